from __future__ import annotations

import itertools
import sys
from pathlib import Path

import numpy as np
import pytest
from samples import SMALL, curved

from embedpress.autoencoder.estimator import Compressor
from embedpress.autoencoder.fit import fit
from embedpress.autoencoder.judge import held_out_recall
from embedpress.errors import MissingDependencyError, StorageError, UsageError

reader = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")


def events(folder: Path) -> dict[str, list[tuple[int, float]]]:
    log = reader.EventAccumulator(str(folder), size_guidance={reader.SCALARS: 0})
    log.Reload()
    return {
        tag: [(event.step, event.value) for event in log.Scalars(tag)]
        for tag in log.Tags()["scalars"]
    }


def test_the_curves_are_those_of_the_history(embeddings: np.ndarray, tmp_path: Path) -> None:
    compressor = Compressor(**SMALL).fit(embeddings, log_dir=tmp_path)
    found = events(tmp_path)
    for tower, records in compressor.history_.items():
        recall = [(record["step"], record["recall"]) for record in records]
        assert found[f"{tower}/recall"] == [(s, pytest.approx(v, rel=1e-6)) for s, v in recall]
        losses = dict(found[f"{tower}/loss"])
        assert sorted(losses) == list(range(1, records[-1]["step"] + 1))
        for before, record in itertools.pairwise(records):
            steps = range(before["step"] + 1, record["step"] + 1)
            mean = np.mean([losses[step] for step in steps])
            assert mean == pytest.approx(record["loss"], rel=1e-5)
        rates = [rate for _, rate in found[f"{tower}/learning_rate"]]
        assert 0 < max(rates) <= SMALL["learning_rate"] * (1 + 1e-6)
    for tower, measured in held_out_recall(compressor).items():
        assert found[f"{tower}/trained_recall"][0][1] == pytest.approx(measured["trained"])
        assert found[f"{tower}/start_recall"][0][1] == pytest.approx(measured["start"])


def test_nested_sizes_have_a_curve_each(embeddings: np.ndarray, tmp_path: Path) -> None:
    compressor = Compressor(**SMALL, nested_sizes=(2,)).fit(embeddings, log_dir=tmp_path)
    recall = [(record["step"], record["recall_2"]) for record in compressor.history_["latents"]]
    found = events(tmp_path)["latents/recall_2"]
    assert found == [(step, pytest.approx(value, rel=1e-6)) for step, value in recall]


def test_training_that_goes_on_has_a_log_of_its_own(embeddings: np.ndarray, tmp_path: Path) -> None:
    compressor = Compressor(**{**SMALL, "epochs": 3})
    compressor.partial_fit(embeddings, log_dir=tmp_path / "first")
    before = {name: len(records) for name, records in compressor.history_.items()}
    compressor.partial_fit(embeddings, log_dir=tmp_path / "second")
    for place, folder in enumerate(("first", "second")):
        found = events(tmp_path / folder)
        for tower, records in compressor.history_.items():
            cut = before[tower]
            expected = (records[:cut], records[cut:])[place]
            assert [value for _, value in found[f"{tower}/recall"]] == pytest.approx(
                [record["recall"] for record in expected], rel=1e-6
            )
            assert f"{tower}/trained_recall" in found


def test_a_log_changes_nothing(embeddings: np.ndarray, tmp_path: Path) -> None:
    plain = Compressor(**SMALL).fit(embeddings)
    logged = Compressor(**SMALL).fit(embeddings, log_dir=tmp_path)
    for name in ("latent_tower_", "code_tower_"):
        mine, theirs = getattr(plain, name).state_dict(), getattr(logged, name).state_dict()
        assert all(mine[key].equal(theirs[key]) for key in mine)


def test_places_that_cannot_be_written_fail_before_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    np.save(tmp_path / "x.npy", curved(100))
    (tmp_path / "file").touch()
    for log_dir, error in (
        (tmp_path / "file", UsageError),
        (tmp_path / "file" / "a", StorageError),
    ):
        with pytest.raises(error) as caught:
            fit(tmp_path / "x.npy", tmp_path / "model", Compressor(**SMALL), log_dir=log_dir)
        assert "\n" not in str(caught.value)
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(MissingDependencyError, match=r"embedpress\[tensorboard\]"):
        fit(tmp_path / "x.npy", tmp_path / "model", Compressor(**SMALL), log_dir=tmp_path / "log")
    assert not (tmp_path / "model").exists()


def test_a_log_that_breaks_off_costs_only_the_log(
    embeddings: np.ndarray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from torch.utils.tensorboard import SummaryWriter

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(SummaryWriter, "add_scalar", full)
    with pytest.warns(RuntimeWarning, match="ends here .*; training goes on"):
        compressor = Compressor(**SMALL).fit(embeddings, log_dir=tmp_path)
    expected = Compressor(**SMALL).fit(embeddings)
    assert np.array_equal(compressor.encode(embeddings), expected.encode(embeddings))
