"""Who is known, who is judged, and how it is scored, in the benchmark of outliers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch")

# What a vector begins with says who it is: no two are the same.
KNOWN, STRANGE = 400, 60


@pytest.fixture
def domain() -> Any:
    from strangers import Domain

    numbers = np.arange(KNOWN, dtype=np.float32)
    vectors = np.stack([numbers, np.ones_like(numbers)], axis=1)
    classes = np.array([f"class {number % 8}" for number in range(KNOWN)])
    others = np.stack([1e4 + np.arange(STRANGE), np.ones(STRANGE)], axis=1).astype(np.float32)
    return Domain("bank", vectors, classes, {"reviews": others})


def owners(vectors: np.ndarray) -> set[int]:
    return set(vectors[:, 0].astype(int).tolist())


@pytest.mark.parametrize("seed", [0, 1, 100])
def test_nothing_that_is_judged_was_learnt_from(domain: Any, seed: int) -> None:
    mixtures = domain.mixtures(seed)
    assert [mixture.name for mixture in mixtures] == ["bank: classes left out", "bank: reviews"]
    for mixture in mixtures:
        known, judged = owners(mixture.known), owners(mixture.judged)
        assert not known & judged
        assert len(judged) == len(mixture.judged) == len(mixture.strange)
        # The classes of the known were not left out; those of near strangers were.
        kinds = {number % 8 for number in known}
        assert len(kinds) == 6
        ordinary = owners(mixture.judged[~mixture.strange])
        assert {number % 8 for number in ordinary} <= kinds
        strangers = owners(mixture.judged[mixture.strange])
        if mixture.name.endswith("left out"):
            assert not {number % 8 for number in strangers} & kinds
        else:
            assert min(strangers) >= 1e4
        assert mixture.strange.mean() == pytest.approx(0.1, abs=0.01)
    # All mixtures of a draw are judged by one training.
    np.testing.assert_array_equal(mixtures[0].known, mixtures[1].known)


def test_a_draw_is_another_by_its_seed_alone(domain: Any) -> None:
    once, again, other = (domain.mixtures(seed)[0] for seed in (3, 3, 4))
    np.testing.assert_array_equal(once.judged, again.judged)
    assert owners(once.known) != owners(other.known)


def test_scores_are_those_of_brute_force() -> None:
    import outliers

    rng = np.random.default_rng(0)
    known, x = (rng.normal(size=(n, 6)).astype(np.float32) for n in (50, 9))
    distances = np.linalg.norm(x[:, None] - known[None], axis=2)
    expected = np.sort(distances, axis=1)[:, :3].mean(axis=1)
    judge = outliers.neighbours(known, n_neighbors=3, seed=0)
    np.testing.assert_allclose(judge(x), expected, rtol=1e-4)
    centre = known.mean(axis=0)
    axes = np.linalg.svd(known - centre, full_matrices=False)[2][:2]
    away = (x - centre) - (x - centre) @ axes.T @ axes
    judge = outliers.principal(known, n_components=2, seed=0)
    np.testing.assert_allclose(judge(x), np.square(away).sum(axis=1), rtol=1e-3)


def test_figures_are_those_of_counted_pairs() -> None:
    import outliers
    from strangers import Mixture

    judged = np.array([[1, 0], [1, 0.2], [1, 0.4], [0.2, 1]], np.float32)
    strange = np.array([False, True, False, True])
    mixture = Mixture("bank: reviews", judged[:1], judged, strange)

    def make(known: np.ndarray, *, seed: int) -> Any:
        assert np.allclose(np.linalg.norm(known, axis=1), 1)
        return lambda x: x[:, 1]

    [row] = outliers.judged([mixture], make, seed=7)
    # Of four pairs of a stranger and a known one, three are in the right order.
    assert row["roc_auc"] == pytest.approx(0.75)
    # The strangers are at places 1 and 3.
    assert row["average_precision"] == pytest.approx((1 + 2 / 3) / 2)
    assert (row["mixture"], row["seed"]) == ("bank: reviews", 7)


def test_settings_are_chosen_on_a_draw_that_is_not_reported(
    domain: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    import outliers

    seeds: dict[str, set[int]] = {"tuned": set(), "reported": set()}

    def peer(known: np.ndarray, *, sign: int, seed: int) -> Any:
        seeds["tuned" if seed == outliers.TUNED_ON else "reported"].add(seed)
        return lambda x: sign * x[:, 0]

    class Quiet(outliers.Ours):
        def __call__(self, known: np.ndarray, *, score: str, seed: int) -> Any:
            return lambda x: x[:, 0]

    monkeypatch.setattr(outliers, "Ours", Quiet)
    monkeypatch.setattr(outliers, "PEERS", {"k-NN distance": (peer, {"sign": [-1, 1]})})
    rows = outliers.measure(domain, seeds=2)
    assert seeds == {"tuned": {100}, "reported": {0, 1}}
    # A review's first number is by far the largest: the right sign finds it.
    found = [row for row in rows if row["method"] == "k-NN distance"]
    assert {row["options"]["sign"] for row in found} == {1}
    assert len(rows) == 2 * 2 * (1 + len(outliers.OURS))


def test_the_best_stands_first_and_ours_in_bold() -> None:
    import outliers

    def row(method: str, mixture: str, seed: int, auc: float) -> dict[str, Any]:
        figures = {"roc_auc": auc, "average_precision": auc / 2}
        return {"method": method, "mixture": mixture, "seed": seed, **figures}

    rows = [
        row("k-NN distance", "a", 0, 0.5), row("k-NN distance", "a", 1, 0.7),
        row("k-NN distance", "b", 0, 0.8), row("embedpress", "a", 0, 0.9),
        row("embedpress", "b", 0, 1.0),
    ]  # fmt: skip
    head, _, *lines = outliers.table(rows)
    assert head == "| detector | mean | a | b |"
    assert lines == [
        "| **embedpress** | 0.950 / 0.475 | 0.900 / 0.450 | 1.000 / 0.500 |",
        "| k-NN distance | 0.700 / 0.350 | 0.600 / 0.300 | 0.800 / 0.400 |",
    ]


def test_a_sample_of_texts_is_drawn_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq
    import strangers

    monkeypatch.setattr(strangers, "DATA", tmp_path)
    monkeypatch.setattr(strangers, "N_TEXTS", 5)
    monkeypatch.setattr(strangers, "extract_text", lambda file, out, **options: None)
    monkeypatch.setattr("demo.minilm_folder", lambda: tmp_path)
    calls = []

    def table() -> pa.Table:
        calls.append(1)
        return pa.table({"text": [f"text {n}" for n in range(50)]})

    assert strangers.sample_of_texts("few", table) == tmp_path / "few" / "embeddings"
    texts = pq.read_table(tmp_path / "few" / "texts.parquet")["text"].to_pylist()
    assert len(set(texts)) == 5
    strangers.sample_of_texts("few", table)
    assert calls == [1]


def test_without_its_data_nothing_is_measured_or_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    import outliers

    monkeypatch.setattr(outliers, "RESULTS", tmp_path)
    outliers.main(tmp_path, tmp_path / "none", tmp_path)
    assert f"outliers are skipped: no folder {tmp_path / 'none'}" in capsys.readouterr().out
    assert not list(tmp_path.iterdir())
