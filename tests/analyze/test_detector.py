from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from samples import SMALL, curved
from sklearn.base import clone
from sklearn.exceptions import NotFittedError

import embedpress
from embedpress.analyze.detector import WEIGHTS, OutlierDetector
from embedpress.autoencoder.estimator import Compressor
from embedpress.errors import InputError, UsageError

STRANGERS = 20


@pytest.fixture(scope="module")
def strangers() -> np.ndarray:
    x = np.random.default_rng(5).normal(size=(STRANGERS, 32))
    return x.astype(np.float32)


class Plane:
    """A compressor that keeps the first two dimensions."""

    metric = "l2"
    n_components = 2

    def transform(self, x: np.ndarray) -> np.ndarray:
        return np.ascontiguousarray(x[:, :2])

    def inverse_transform(self, z: np.ndarray) -> np.ndarray:
        return np.pad(z, ((0, 0), (0, 1)))


def test_scores_by_hand() -> None:
    x = np.array([[0, 0, 1], [1, 0, -1], [0, 2, 1], [3, 3, 3]], np.float32)
    detector = OutlierDetector(Plane(), n_neighbors=1, contamination=0.25).fit(x)
    # Nearest others in the plane: (0,0)-(1,0), (1,0)-(0,0), (0,2)-(0,0), (3,3)-(0,2); in space
    # (0,0,1)-(0,2,1) and back, (1,0,-1)-(0,0,1), (3,3,3)-(0,2,1).
    expected = {
        "density": np.array([1, 1, 4, 10]) / 2.5,
        "distance": np.array([4, 5, 4, 14]) / 4.5,
        "reconstruction": np.array([1, 1, 1, 9.0]),
    }
    for name, values in expected.items():
        np.testing.assert_allclose(detector.scores_[name], values, rtol=1e-6)
    combined = sum(w * expected[n] for n, w in WEIGHTS.items())
    np.testing.assert_allclose(detector.decision_scores_, combined, rtol=1e-6)
    np.testing.assert_array_equal(detector.labels_, [0, 0, 0, 1])
    # A vector that comes again is its own neighbour, as any other would be.
    np.testing.assert_allclose(detector.scores(x)["density"], 0)
    new = detector.scores(np.array([[0, 1, 2]], np.float32))
    np.testing.assert_allclose(new["density"], 1 / 2.5)
    np.testing.assert_allclose(new["distance"], 2 / 4.5)
    np.testing.assert_allclose(new["reconstruction"], 4)


@pytest.mark.parametrize("score", ["combined", "reconstruction", "density", "distance"])
@pytest.mark.parametrize("options", [{}, {"metric": "l2"}, {"n_components": None}], ids=str)
def test_strangers_stand_out(
    fitted: Callable[..., Compressor],
    embeddings: np.ndarray,
    others: np.ndarray,
    strangers: np.ndarray,
    score: str,
    options: dict[str, Any],
) -> None:
    detector = OutlierDetector(fitted(**options), score=score, num_threads=1).fit(embeddings)
    known, strange = detector.decision_function(others), detector.decision_function(strangers)
    assert (strange[:, None] > known).mean() > 0.97
    assert detector.predict(strangers).mean() >= 0.9
    assert detector.labels_.mean() == pytest.approx(0.1, abs=1 / 800)
    for name in ("decision_scores_", "labels_"):
        assert getattr(detector, name).shape == (800,)
    np.testing.assert_array_equal(detector.labels_, detector.decision_scores_ > detector.threshold_)


def test_strangers_among_the_vectors_are_labelled(
    fitted: Callable[..., Compressor], embeddings: np.ndarray, strangers: np.ndarray
) -> None:
    mixed = np.concatenate([embeddings, strangers])
    detector = OutlierDetector(fitted(), contamination=STRANGERS / len(mixed), num_threads=1)
    labels = detector.fit_predict(mixed)
    assert labels[len(embeddings) :].sum() >= STRANGERS - 2
    assert labels.sum() == STRANGERS
    detector.set_params(contamination="auto").fit(mixed)
    assert detector.labels_[len(embeddings) :].sum() >= STRANGERS - 2
    assert detector.labels_.sum() < 3 * STRANGERS
    detector.set_params(contamination=0).fit(mixed)
    assert detector.labels_.sum() == 0
    assert detector.predict(strangers).sum() == 0


def test_a_false_positive_rate_holds_for_new_vectors(
    fitted: Callable[..., Compressor], strangers: np.ndarray
) -> None:
    # None of which the compressor was trained on.
    embeddings = curved(2000, seed=8)
    detector = OutlierDetector(fitted(), false_positive_rate=0.05, num_threads=1)
    detector.fit(embeddings)
    assert detector.predict(curved(3000, seed=9)).mean() == pytest.approx(0.05, abs=0.035)
    assert detector.predict(strangers).mean() > 0.9
    aside = np.arange(2000) % 2 == 0
    detector.fit(embeddings, held_out=aside)
    assert detector.labels_[aside].mean() <= 0.05
    with pytest.raises(InputError, match="held_out has shape"):
        detector.fit(embeddings, held_out=aside[1:])
    with pytest.raises(UsageError, match="held-out vectors"):
        detector.set_params(false_positive_rate=0.001).fit(embeddings)


def test_probabilities(
    fitted: Callable[..., Compressor], embeddings: np.ndarray, others: np.ndarray
) -> None:
    detector = OutlierDetector(fitted(), num_threads=1).fit(embeddings)
    scores, learnt = detector.decision_function(others), detector.decision_scores_
    linear = detector.predict_proba(others)
    assert linear.shape == (300, 2)
    np.testing.assert_allclose(linear.sum(axis=1), 1)
    by_hand = (scores - learnt.min()) / (learnt.max() - learnt.min())
    np.testing.assert_allclose(linear[:, 1], by_hand.clip(0, 1))
    unified = detector.predict_proba(others, method="unify")[:, 1]
    below = scores <= learnt.mean()
    assert (unified[below] == 0).all()
    assert (unified[~below] > 0).all()
    np.testing.assert_array_equal(np.argsort(unified[~below]), np.argsort(scores[~below]))
    with pytest.raises(UsageError, match="method"):
        detector.predict_proba(others, method="other")


def test_pyod_says_the_same_of_the_same_scores(
    fitted: Callable[..., Compressor], embeddings: np.ndarray, others: np.ndarray
) -> None:
    base = pytest.importorskip("pyod.models.base", reason="PyOD is not installed")

    class Same(base.BaseDetector):  # type: ignore[misc, name-defined]
        def __init__(self, contamination: float) -> None:
            super().__init__(contamination=contamination)

        def fit(self, X: np.ndarray, y: object = None) -> Any:
            self._set_n_classes(y)
            self.decision_scores_ = ours.decision_scores_
            self._process_decision_scores()
            return self

        def decision_function(self, X: np.ndarray) -> np.ndarray:
            return ours.decision_function(X)

    ours = OutlierDetector(fitted(), contamination=0.07, num_threads=1).fit(embeddings)
    theirs = Same(contamination=0.07).fit(embeddings)
    assert ours.threshold_ == pytest.approx(theirs.threshold_)
    np.testing.assert_array_equal(ours.labels_, theirs.labels_)
    np.testing.assert_array_equal(ours.predict(others), theirs.predict(others))
    for method in ("linear", "unify"):
        np.testing.assert_allclose(
            ours.predict_proba(others, method=method), theirs.predict_proba(others, method=method)
        )


def test_it_trains_a_compressor_of_its_own(embeddings: np.ndarray, strangers: np.ndarray) -> None:
    quick = Compressor(**{**SMALL, "code_size": None, "epochs": 2})
    detector = OutlierDetector(quick).fit(embeddings)
    assert detector.compressor is quick
    assert not hasattr(quick, "scale_")
    assert detector.predict(strangers).mean() > 0.9
    again = clone(detector)
    assert not hasattr(again, "threshold_")
    assert again.get_params()["compressor__n_components"] == 6
    with pytest.raises(NotFittedError):
        again.predict(strangers)


def test_few_and_equal_vectors(fitted: Callable[..., Compressor]) -> None:
    x = curved(2)
    assert np.isfinite(OutlierDetector(fitted()).fit(x).decision_scores_).all()
    same = np.repeat(x[:1], 30, axis=0)
    detector = OutlierDetector(fitted()).fit(same)
    assert detector.labels_.sum() == 0
    assert detector.predict(x).tolist() == [0, 1]
    # In whatever batch, and however it is rounded there.
    assert not any(detector.predict(same[:n]).any() for n in range(1, 31))
    with pytest.raises(InputError, match="at least 2"):
        OutlierDetector(fitted()).fit(x[:1])


def test_a_sample_is_enough(
    fitted: Callable[..., Compressor], embeddings: np.ndarray, strangers: np.ndarray
) -> None:
    detector = OutlierDetector(fitted(), max_samples=100, num_threads=1).fit(embeddings)
    assert detector.decision_scores_.shape == (800,)
    assert detector.predict(strangers).mean() > 0.9


@pytest.mark.parametrize(
    "options",
    [{"score": "all"}, {"n_neighbors": 0}, {"max_samples": 1}, {"contamination": 0.6},
     {"validation_fraction": 1}, {"n_neighbors": 2.0}],
    ids=str,
)  # fmt: skip
def test_options_that_cannot_be(embeddings: np.ndarray, options: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match=next(iter(options))):
        OutlierDetector(**options).fit(embeddings)


def test_production_detects_without_torch(
    saved: Callable[..., Path], fitted: Callable[..., Compressor], embeddings: np.ndarray,
    others: np.ndarray, tmp_path: Path,
) -> None:  # fmt: skip
    np.save(tmp_path / "x.npy", embeddings)
    np.save(tmp_path / "y.npy", others)
    code = (
        "import sys, numpy as np, embedpress\n"
        "folder, x, y, out = sys.argv[1:]\n"
        "d = embedpress.OutlierDetector(embedpress.load(folder)).fit(np.load(x))\n"
        "np.save(out, d.decision_function(np.load(y)))\n"
        "assert 'torch' not in sys.modules\n"
    )
    files = [saved(), tmp_path / "x.npy", tmp_path / "y.npy", tmp_path / "scores.npy"]
    subprocess.run([sys.executable, "-c", code, *map(str, files)], check=True)
    expected = OutlierDetector(fitted(), num_threads=1).fit(embeddings).decision_function(others)
    np.testing.assert_allclose(np.load(tmp_path / "scores.npy"), expected, rtol=1e-3)
    assert "OutlierDetector" in embedpress.__all__
