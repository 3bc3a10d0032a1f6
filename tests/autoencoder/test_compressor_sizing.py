"""The smallest code that reaches a recall: planned without training, then found by it."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from samples import SMALL, curved
from sklearn.exceptions import NotFittedError

from embedpress.autoencoder.estimator import Compressor
from embedpress.autoencoder.judge import figures
from embedpress.autoencoder.pretrained import load_compressor, save
from embedpress.autoencoder.sizing import (
    LADDER,
    chosen_size,
    ladder,
    next_size,
    rising,
    train_sizes,
)
from embedpress.errors import InputError, TargetWarning, UsageError
from embedpress.onnx.compressor import load

AUTO: dict[str, Any] = {
    **SMALL,
    "n_components": None,
    "code_size": "auto",
    "monitor": "recall",
    "validation_fraction": 0.2,
    "epochs": 4,
}


# -- planning -------------------------------------------------------------------------


def once_each(
    starts: dict[int, float], recall: Callable[[int], float], target: float
) -> dict[int, float]:
    """What is trained where training a size gives `recall`, which is asked once a size."""
    asked: list[int] = []

    def train(size: int) -> float:
        assert size in starts
        assert size not in asked
        asked.append(size)
        return recall(size)

    trained = train_sizes(starts, train, target)
    assert list(trained) == asked
    return trained


SHARES = st.lists(st.floats(0, 1), min_size=1, max_size=len(LADDER)).map(sorted)


@given(starts=SHARES, gains=st.data(), target=st.floats(0.01, 1))
def test_of_any_rising_recall_the_smallest_size_that_holds_is_found(
    starts: list[float], gains: st.DataObject, target: float
) -> None:
    before = dict(zip(LADDER, starts, strict=False))
    drawn = gains.draw(st.lists(st.floats(0, 1), min_size=len(before), max_size=len(before)))
    # Never below the start, and rising as it does.
    after: dict[int, float] = {}
    for (size, start), gain in zip(before.items(), drawn, strict=True):
        after[size] = max([start + gain * (1 - start), *after.values()])
    trained = once_each(before, after.__getitem__, target)
    holding = [size for size, recall in after.items() if recall >= target]
    assert chosen_size(trained, target) == (min(holding) if holding else max(before))


@given(starts=SHARES, gain=st.floats(0, 1), target=st.floats(0.01, 1))
def test_three_trainings_are_enough_where_all_sizes_gain_alike(
    starts: list[float], gain: float, target: float
) -> None:
    before = dict(zip(LADDER, (round(start, 3) for start in starts), strict=False))
    after = {size: start + gain * (1 - start) for size, start in before.items()}
    # A gain cannot be told to the last bit.
    if min(abs(recall - target) for recall in after.values()) > 1e-6 and 1 not in before.values():
        assert len(once_each(before, after.__getitem__, target)) <= 3


def test_recall_that_falls_with_the_size_ends_all_the_same() -> None:
    starts = dict.fromkeys(LADDER, 0.5)
    trained = once_each(starts, lambda size: 1 / size, 0.9)
    assert chosen_size(trained, 0.9) == max(trained) == 256


def test_the_first_training_is_where_a_quarter_of_the_gap_is_enough() -> None:
    starts = {16: 0.51, 24: 0.6, 32: 0.68, 48: 0.76, 64: 0.82}
    # 0.68 + 0.32 / 4 = 0.76
    assert next_size(starts, {}, 0.755) == 32
    assert next_size(starts, {}, 0.99) == 64
    # It gained a fifth: no smaller one should do, but the next has to show it.
    assert next_size(starts, {32: 0.76}, 0.755) == 24
    assert next_size(starts, {32: 0.76, 24: 0.7}, 0.755) is None
    # It gained nothing: the start of 48 bytes is enough.
    assert next_size(starts, {32: 0.68}, 0.755) == 48
    # It gained much: 16 bytes should do.
    assert next_size(starts, {32: 0.9}, 0.755) == 16


def test_a_size_that_starts_below_a_smaller_one_is_left_out() -> None:
    starts = {16: 0.5, 32: 0.7, 8: 0.5, 24: 0.4, 48: 0.7, 64: 0.6}
    assert list(rising(starts)) == [8, 16, 32, 48]
    assert list(rising({8: 0.0})) == [8]


@pytest.mark.parametrize(
    ("options", "sizes"),
    [
        ({"groups": None, "dim": 384, "metric": "cosine"}, list(LADDER)),
        ({"groups": None, "dim": 32, "metric": "l2"}, [8, 16, 24, 32]),
        ({"groups": None, "dim": 8, "metric": "ip"}, [8]),
        ({"groups": 1, "dim": 8, "metric": "ip"}, [8, 16, 24, 32]),
        ({"groups": 16, "dim": 64, "metric": "cosine"}, [16, 32, 48, 64, 96, 128, 192, 256]),
        ({"groups": 16, "dim": 64, "metric": "l2"}, [16]),
    ],
)
def test_the_ladder_keeps_to_the_rules(options: dict[str, Any], sizes: list[int]) -> None:
    assert ladder(**options) == sizes


# -- training -------------------------------------------------------------------------


def scattered(n: int, *, seed: int = 0) -> np.ndarray:
    """Vectors of no structure, which need more bytes than those on a sheet."""
    return np.random.default_rng(seed).normal(size=(n, 32)).astype(np.float32)


@pytest.fixture(scope="module")
def sized() -> Compressor:
    """Of 8, 16, 24 and 32 bytes one in between is enough. Not to be changed."""
    return Compressor(**AUTO, target_recall=0.9).fit(scattered(1000))


def test_the_smallest_size_that_reaches_the_target_is_kept(sized: Compressor) -> None:
    sizes = {size["code_size"]: size for size in sized.sizes_}
    assert list(sizes) == [8, 16, 24, 32]
    trained = {size: found["trained"] for size, found in sizes.items() if found["trained"]}
    assert sized.code_size_ == chosen_size(trained, 0.9)
    assert 8 < sized.code_size_ < 32
    assert trained[sized.code_size_] >= 0.9
    smaller = max(size for size in sizes if size < sized.code_size_)
    assert trained[smaller] < 0.9
    # Slices of one dimension each would leave 8 of the 32 over.
    assert sizes[24]["start"] < sizes[16]["start"]
    assert sizes[24]["trained"] is None
    assert figures(sized)["target_reached"] is True
    assert figures(sized)["held_out"]["codes"]["trained"] == trained[sized.code_size_]


def test_a_size_that_was_found_is_as_good_as_one_that_was_given(sized: Compressor) -> None:
    x = scattered(1000)
    given_ = Compressor(**{**AUTO, "code_size": sized.code_size_}).fit(x)
    assert np.array_equal(sized.encode(x), given_.encode(x))
    assert np.array_equal(sized.encode_queries(x), given_.encode_queries(x))
    assert given_.sizes_ == []
    assert given_.code_size_ == sized.code_size_ == sized.code_groups() == given_.code_groups()
    recalls = [[r["recall"] for r in c.history_["codes"]] for c in (sized, given_)]
    assert recalls[0] == recalls[1]


def test_the_parameters_stay_as_they_were_given(sized: Compressor) -> None:
    assert (sized.code_size, sized.target_recall) == ("auto", 0.9)
    with pytest.raises(NotFittedError):
        _ = Compressor(code_size="auto").code_size_
    assert Compressor(n_components=3, code_size=None).fit(curved(20)).code_size_ is None


def test_a_found_size_is_saved_and_loaded(sized: Compressor, tmp_path: Path) -> None:
    x = curved(50, seed=3)
    config = save(sized, tmp_path / "model")
    assert config["code_size"] == sized.code_size_
    assert config["parameters"]["code_size"] == "auto"
    metrics = json.loads((tmp_path / "model" / "metrics.json").read_text())
    assert (metrics["sizes"], metrics["target_recall"]) == (sized.sizes_, 0.9)
    runtime = load(tmp_path / "model", num_threads=1)
    assert runtime.code_size == sized.code_size_
    assert runtime.encode(x).shape == (50, sized.code_size_)
    card = (tmp_path / "model" / "README.md").read_text()
    assert f"{sized.code_size_} bytes is the smallest size that reaches recall@10 0.9" in card
    for size in sized.sizes_:
        trained = "" if size["trained"] is None else f"{size['trained']:.3f}"
        assert f"| {size['code_size']} | {size['start']:.3f} | {trained} |" in card

    loaded = load_compressor(tmp_path / "model")
    assert (loaded.code_size_, loaded.sizes_) == (sized.code_size_, sized.sizes_)
    assert figures(loaded) == figures(sized)
    assert np.array_equal(loaded.encode(x), sized.encode(x))
    save(loaded, tmp_path / "again")
    for file in (tmp_path / "model").iterdir():
        assert file.read_bytes() == (tmp_path / "again" / file.name).read_bytes()
    loaded.partial_fit(curved(300))
    assert loaded.code_size_ == sized.code_size_


def test_a_target_out_of_reach_takes_the_largest_and_says_so(tmp_path: Path) -> None:
    compressor = Compressor(**{**AUTO, "epochs": 1}, target_recall=1)
    with pytest.warns(TargetWarning, match=r"no code size reaches recall@10 1: 32 bytes") as said:
        compressor.fit(scattered(600))
    assert len(said) == 1
    assert "\n" not in str(said[0].message)
    assert said[0].filename == __file__
    assert compressor.code_size_ == 32
    assert figures(compressor)["target_reached"] is False
    save(compressor, tmp_path)
    card = (tmp_path / "README.md").read_text()
    assert "No size reaches recall@10 1 on these queries: 32 bytes is the largest." in card
    assert load_compressor(tmp_path).code_size_ == 32


def test_a_size_is_found_for_a_number_of_groups(tmp_path: Path) -> None:
    x = scattered(600)
    compressor = Compressor(**AUTO, target_recall=0.9, groups=8, metric="ip").fit(x)
    assert [size["code_size"] for size in compressor.sizes_] == [8, 16, 24, 32, 48, 64, 96, 128]
    assert compressor.code_size_ in (16, 24, 32)
    assert compressor.code_groups() == 8
    assert figures(compressor)["held_out"]["codes"]["start_method"] == "PRQ"
    save(compressor, tmp_path)
    assert np.array_equal(load_compressor(tmp_path).encode(x), compressor.encode(x))


def test_an_easy_target_takes_the_smallest_without_a_warning() -> None:
    calls: list[str] = []
    with warnings.catch_warnings():
        warnings.simplefilter("error", TargetWarning)
        compressor = Compressor(**AUTO, target_recall=0.05).fit(
            curved(300), progress=lambda name, done, total: calls.append(name)
        )
    assert compressor.code_size_ == 8
    assert set(calls) == {"codes of 8 bytes", "reranker"}


@pytest.mark.parametrize("options", [{"validation_fraction": 0}, {"max_samples": 45}])
def test_without_held_out_queries_no_size_can_be_found(options: dict[str, Any]) -> None:
    compressor = Compressor(**{**AUTO, **options})
    with pytest.raises(InputError, match="held-out queries, and 300 vectors leave fewer") as caught:
        compressor.fit(curved(300))
    assert "give more vectors, a larger fraction or a number as code_size" in str(caught.value)
    assert not hasattr(compressor, "scale_")


def test_too_few_dimensions_for_any_size() -> None:
    with pytest.raises(UsageError, match="none of them goes with 6 dimensions"):
        Compressor(**AUTO).fit(curved(300, dim=6))


# -- the fallback ---------------------------------------------------------------------


@pytest.mark.parametrize("monitor", ["recall", "loss"])
def test_training_that_does_harm_leaves_the_start(monitor: str, tmp_path: Path) -> None:
    x = curved(400)
    options = {**SMALL, "monitor": monitor, "learning_rate": 1e3}
    compressor = Compressor(**options).fit(x)
    start = Compressor(**{**options, "epochs": 0}).fit(x)
    assert np.array_equal(compressor.transform(x), start.transform(x))
    assert np.array_equal(compressor.encode(x), start.encode(x))
    assert compressor.fell_back_ == {"latents": True, "codes": True}
    held = figures(compressor)["held_out"]
    for name, method in (("latents", "PCA"), ("codes", "OPQ")):
        assert held[name] == {
            "trained": compressor.history_[name][0]["recall"],
            "start": compressor.history_[name][0]["recall"],
            "start_method": method,
            "fell_back": True,
        }
    save(compressor, tmp_path)
    assert json.loads((tmp_path / "metrics.json").read_text())["held_out"] == held
    assert load_compressor(tmp_path).fell_back_ == compressor.fell_back_
    card = (tmp_path / "README.md").read_text()
    assert "Training of codes did not beat OPQ: the start was kept." in card
    assert "Training of latents did not beat PCA: the start was kept." in card


def test_training_that_helps_is_kept(fitted: Callable[..., Compressor]) -> None:
    compressor = fitted(n_components=3, code_size=2, monitor="recall", epochs=50)
    assert compressor.fell_back_ == {"latents": False, "codes": False, "reranker": False}
    held = figures(compressor)["held_out"]
    assert held["reranker"]["start_method"] == "scan"
    assert all(held[name]["trained"] > held[name]["start"] for name in held)


def test_a_start_that_is_not_opq_is_not_called_so(fitted: Callable[..., Compressor]) -> None:
    held = figures(fitted(groups=2))["held_out"]
    assert held["codes"]["start_method"] == "PRQ"


def test_nothing_is_said_of_a_fallback_that_was_not_measured() -> None:
    compressor = Compressor(**{**SMALL, "validation_fraction": 0}).fit(curved(60))
    assert compressor.fell_back_ == {"latents": False, "codes": False}
    assert figures(compressor)["held_out"] == {}
    with pytest.raises(NotFittedError):
        _ = Compressor().fell_back_


def test_more_training_of_what_left_its_start_is_no_fallback() -> None:
    x = curved(400)
    compressor = Compressor(**{**SMALL, "n_components": 3, "code_size": None, "epochs": 40})
    compressor.fit(x)
    assert compressor.fell_back_ == {"latents": False}
    latents = compressor.transform(x)
    compressor.set_params(learning_rate=1e3).partial_fit(x)
    # The second training was undone, but what the first one found stays.
    assert np.array_equal(compressor.transform(x), latents)
    assert compressor.fell_back_ == {"latents": False}
