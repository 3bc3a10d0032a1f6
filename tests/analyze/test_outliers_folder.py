from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from samples import curved, write_embeddings

import embedpress
from embedpress.analyze import outliers_folder as module
from embedpress.analyze.detector import OutlierDetector
from embedpress.analyze.outliers_folder import outliers_folder
from embedpress.errors import MismatchError, UsageError
from embedpress.vectors import open_vectors
from embedpress.vectors.holdout import held_out

N, STRANGE = 600, 12


@pytest.fixture(scope="module")
def mixed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    strangers = np.random.default_rng(3).normal(size=(STRANGE, 32)).astype(np.float32)
    x = np.concatenate([curved(N, seed=4), strangers])
    names = {"text": [f"row {i}" for i in range(len(x))]}
    return write_embeddings(
        tmp_path_factory.mktemp("mixed") / "x", x, ids=[f"n{i}" for i in range(len(x))],
        metadata=names,
    )  # fmt: skip


def test_the_file_holds_what_the_detector_says(
    saved: Callable[..., Path], mixed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "READ_ROWS", 100)
    result = outliers_folder(mixed, saved(), tmp_path, contamination=STRANGE / (N + STRANGE))
    table = pq.read_table(tmp_path / "scores.parquet")
    batch = open_vectors(mixed).read()
    detector = OutlierDetector(embedpress.load(saved()), contamination=STRANGE / (N + STRANGE)).fit(
        batch.vectors
    )
    assert table["id"].to_pylist() == batch.ids.to_pylist()
    np.testing.assert_allclose(table["score"], detector.decision_scores_, rtol=1e-4)
    np.testing.assert_allclose(table["density"], detector.scores_["density"], rtol=1e-4)
    np.testing.assert_array_equal(table["outlier"], detector.labels_ == 1)
    assert result["count"] == N + STRANGE
    assert result["n_outliers"] == STRANGE
    assert result["threshold"] == pytest.approx(detector.threshold_)
    assert len({record["id"] for record in result["top"]} & {f"n{N + i}" for i in range(12)}) >= 9
    assert result["top"][0]["text"].startswith("row ")
    proba = detector.probability(detector.decision_scores_, "unify")
    np.testing.assert_allclose(table["probability"], proba, atol=1e-4)


def test_a_sample_stands_for_the_whole(
    saved: Callable[..., Path], mixed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MOST_KNOWN", 150)
    outliers_folder(mixed, saved(), tmp_path, contamination="auto")
    called = pq.read_table(tmp_path / "scores.parquet")["outlier"].to_numpy(zero_copy_only=False)
    assert called[N:].sum() >= STRANGE - 2
    assert called[:N].mean() < 0.1


def test_a_reference_and_a_rate(saved: Callable[..., Path], mixed: Path, tmp_path: Path) -> None:
    reference = write_embeddings(tmp_path / "known", curved(2000, seed=6))
    result = outliers_folder(
        mixed, saved(), tmp_path / "out", reference=reference, false_positive_rate=0.05
    )
    table = pq.read_table(tmp_path / "out" / "scores.parquet")
    called = table["outlier"].to_numpy(zero_copy_only=False)
    assert called[N:].sum() >= STRANGE - 1
    assert called[:N].mean() < 0.15
    known = open_vectors(reference).read()
    detector = OutlierDetector(embedpress.load(saved()), false_positive_rate=0.05)
    detector.fit(known.vectors, held_out=held_out(known.ids))
    assert result["threshold"] == pytest.approx(detector.threshold_)
    # Not their own neighbours here, though both have a row of each number.
    expected = detector.decision_function(open_vectors(mixed).read().vectors)
    np.testing.assert_allclose(table["score"], expected, rtol=1e-4)


def test_nothing_may_be_an_outlier(saved: Callable[..., Path], mixed: Path, tmp_path: Path) -> None:
    result = outliers_folder(mixed, saved(), tmp_path, contamination="0")
    assert result["threshold"] is None
    assert result["n_outliers"] == 0


def test_what_cannot_be(saved: Callable[..., Path], mixed: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="contamination"):
        outliers_folder(mixed, saved(), tmp_path, contamination="lots")
    with pytest.raises(UsageError, match="score"):
        outliers_folder(mixed, saved(), tmp_path, score="all")
    other = write_embeddings(tmp_path / "other", curved(20, dim=16))
    with pytest.raises(MismatchError, match="16 dimensions"):
        outliers_folder(mixed, saved(), tmp_path, reference=other)
    assert not (tmp_path / "scores.parquet").exists()
