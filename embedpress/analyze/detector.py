"""A detector of outliers: what a compressor cannot restore, and what lies far from all known."""

from __future__ import annotations

import math
from typing import Any, NamedTuple, Protocol

import faiss
import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator, clone
from sklearn.utils.validation import check_is_fitted

from embedpress.analyze.outliers import (
    check_contamination,
    contamination_threshold,
    false_positive_threshold,
    reconstruction_error,
)
from embedpress.errors import InputError, UsageError
from embedpress.threads import faiss_threads
from embedpress.vectors.check import check_vectors

WEIGHTS = {"distance": 1.0, "density": 0.5, "reconstruction": 0.1}
"""Of the scores, each in its median, in the combined one. They were chosen on other draws of the
mixtures of ``benchmarks/outliers.py`` than are reported."""
SCORES = ("combined", *WEIGHTS)
BLOCK = 8192
ROUNDING = 1e-6
"""The share by which what is computed in float32 may differ in another batch."""

Floats = NDArray[np.float32]
Scores = NDArray[np.float64]


class FittedCompressor(Protocol):
    """What is asked of a compressor: a fitted estimator, or what :func:`embedpress.load` gives."""

    metric: str

    def transform(self, X: ArrayLike, /) -> Floats: ...
    def inverse_transform(self, Z: ArrayLike, /) -> Floats: ...
    def encode(self, X: ArrayLike, /) -> NDArray[np.uint8]: ...
    def decode(self, codes: ArrayLike, /) -> Floats: ...


class OutlierDetector(BaseEstimator):  # type: ignore[misc]
    """Anomaly detection by a compressor, with PyOD's surface.

    Parameters
    ----------
    compressor : Compressor or OnnxCompressor, optional
        A fitted one is used as it is (:func:`embedpress.load` needs no torch); an unfitted
        :class:`embedpress.Compressor` is cloned and trained on the known vectors; None trains
        one of 64 latents, or of half the dimensions where these are fewer than 128.
    contamination : float or "auto", default 0.1
        Share of outliers among the vectors of :meth:`fit`, 0 to 0.5; see
        :func:`~embedpress.analyze.outliers.contamination_threshold`.
    false_positive_rate : float, optional
        Sets the threshold in place of `contamination`: so many of the vectors of the known kind
        may be called outliers; see
        :func:`~embedpress.analyze.outliers.false_positive_threshold`. It takes the vectors of
        :meth:`fit` for known ones.
    score : {"combined", "reconstruction", "density", "distance"}, default "combined"
        "reconstruction" is the squared distance of a vector to what is restored of it;
        "density" the mean squared distance of its latent to those of the nearest known vectors
        (of the restored vector, where there are only codes); "distance" the same among the
        embeddings themselves. Each is relative to its median over known vectors. "combined" is
        distance + density / 2 + reconstruction / 10.
    n_neighbors : int, default 2
    max_samples : int, default 20000
        At most so many known vectors are kept to measure distances to, drawn by `seed`.
    validation_fraction : float, default 0.2
        Share of the vectors that is set aside for a `false_positive_rate`.
    seed : int, default 0
    num_threads : int, optional

    Attributes
    ----------
    decision_scores_ : ndarray of shape (n,), float64
        Of the vectors of :meth:`fit`, each without itself among its neighbours.
    scores_ : dict of str to ndarray of shape (n,), float64
        The same of every kind, as :meth:`scores` gives them.
    threshold_ : float
        What the score of an outlier exceeds.
    labels_ : ndarray of shape (n,), int64
        1 for an outlier, else 0.
    compressor_ : Compressor or OnnxCompressor

    Notes
    -----
    Reconstruction error is Hawkins et al., "Outlier Detection Using Replicator Neural
    Networks" (2002); distance to the nearest neighbours Ramaswamy et al., "Efficient Algorithms
    for Mining Outliers" (2000), in the mean form of Angiulli and Pizzuti (2002).

    Examples
    --------
    >>> detector = OutlierDetector(contamination=0.01).fit(known)  # doctest: +SKIP
    >>> detector.predict(others)  # 1 for an outlier  # doctest: +SKIP
    """

    def __init__(
        self,
        compressor: Any = None,
        *,
        contamination: float | str = 0.1,
        false_positive_rate: float | None = None,
        score: str = "combined",
        n_neighbors: int = 2,
        max_samples: int = 20_000,
        validation_fraction: float = 0.2,
        seed: int = 0,
        num_threads: int | None = None,
    ) -> None:
        self.compressor = compressor
        self.contamination = contamination
        self.false_positive_rate = false_positive_rate
        self.score = score
        self.n_neighbors = n_neighbors
        self.max_samples = max_samples
        self.validation_fraction = validation_fraction
        self.seed = seed
        self.num_threads = num_threads

    def fit(
        self, X: ArrayLike, y: object = None, *, held_out: NDArray[np.bool_] | None = None
    ) -> OutlierDetector:
        """Learn the known vectors, and score them.

        Parameters
        ----------
        X : array-like of shape (n, d)
        y : ignored
        held_out : ndarray of shape (n,), bool, optional
            With a `false_positive_rate`, the rows that are set aside for it; by default drawn
            by `seed`. A compressor that was fitted before must not have seen them either, or
            more than the rate is flagged.

        Returns
        -------
        OutlierDetector
            Itself.

        Raises
        ------
        InputError
            Vectors that cannot be used, or fewer than 2 to learn from.
        UsageError
            An option that cannot be.
        """
        x = check_vectors(X)
        self._check_options()
        order = np.random.default_rng(self.seed).permutation(len(x))
        aside = np.zeros(len(x), bool)
        if self.false_positive_rate is not None:
            aside[order[: round(self.validation_fraction * len(x))]] = True
            if held_out is not None:
                aside = np.asarray(held_out, bool)
                if aside.shape != (len(x),):
                    raise InputError(f"held_out has shape {aside.shape}, not {(len(x),)}")
        known = order[~aside[order]]
        if len(known) < 2:
            raise InputError("give at least 2 vectors to learn what is known")
        self.compressor_ = self._compressor(x[np.sort(known)])
        check_vectors(x[:1], metric=self.compressor_.metric)
        kept = np.sort(known[: self.max_samples])
        latents, restored = self._compressed(x[kept])
        self._centre = self._centre_of(latents)
        self._known = self._placed(x[kept], latents, restored)
        self._typical = dict.fromkeys(WEIGHTS, 1.0)
        own = np.full(len(x), -1)
        own[kept] = np.arange(len(kept))
        raw = self._raw(x, own)
        self._typical = {name: _typical(values[kept]) for name, values in raw.items()}
        self.scores_ = self._combined(raw)
        self.decision_scores_ = self.scores_[self.score]
        if self.false_positive_rate is None:
            threshold = contamination_threshold(self.decision_scores_, self.contamination)
        else:
            threshold = false_positive_threshold(
                self.decision_scores_[aside], self.false_positive_rate
            )
        # A known vector whose score is rounded otherwise in another batch is still no outlier.
        self.threshold_ = threshold + ROUNDING * abs(threshold)
        self.labels_ = (self.decision_scores_ > self.threshold_).astype(np.int64)
        return self

    def fit_predict(self, X: ArrayLike, y: object = None) -> NDArray[np.int64]:
        """`labels_` of a :meth:`fit` on `X`."""
        return self.fit(X).labels_

    def decision_function(self, X: ArrayLike) -> Scores:
        """Scores of vectors, higher is stranger.

        Parameters
        ----------
        X : array-like of shape (n, d)

        Returns
        -------
        ndarray of shape (n,), float64
        """
        return self.scores(X)[self.score]

    def scores(self, X: ArrayLike) -> dict[str, Scores]:
        """Scores of every kind: "combined", "reconstruction", "density" and "distance".

        Parameters
        ----------
        X : array-like of shape (n, d)

        Returns
        -------
        dict of str to ndarray of shape (n,), float64
        """
        check_is_fitted(self, "threshold_")
        x = check_vectors(X, dim=self._known.embeddings.shape[1], metric=self.compressor_.metric)
        return self._combined(self._raw(x, np.full(len(x), -1)))

    def predict(self, X: ArrayLike) -> NDArray[np.int64]:
        """1 for an outlier, else 0.

        Parameters
        ----------
        X : array-like of shape (n, d)

        Returns
        -------
        ndarray of shape (n,), int64
        """
        return (self.decision_function(X) > self.threshold_).astype(np.int64)

    def predict_proba(self, X: ArrayLike, method: str = "linear") -> Scores:
        """Scores as probabilities.

        Parameters
        ----------
        X : array-like of shape (n, d)
        method : {"linear", "unify"}
            "linear" scales from the lowest score of :meth:`fit` to the highest; "unify" is the
            Gaussian scaling of Kriegel et al., "Interpreting and Unifying Outlier Scores" (2011).

        Returns
        -------
        ndarray of shape (n, 2), float64
            Of being known, of being an outlier.

        Raises
        ------
        UsageError
            Another method.
        """
        outlier = self.probability(self.decision_function(X), method)
        return np.stack([1 - outlier, outlier], axis=1)

    def probability(self, scores: Scores, method: str = "linear") -> Scores:
        """Probability of being an outlier, of decision scores; see :meth:`predict_proba`."""
        check_is_fitted(self, "threshold_")
        learnt = self.decision_scores_
        if method == "linear":
            width = float(np.ptp(learnt)) or 1.0
            return np.asarray(np.clip((scores - learnt.min()) / width, 0, 1))
        if method == "unify":
            away = (scores - learnt.mean()) / ((float(learnt.std()) or 1.0) * math.sqrt(2))
            return np.clip([math.erf(value) for value in away], 0, 1)
        raise UsageError(f"method={method!r} must be 'linear' or 'unify'")

    def _check_options(self) -> None:
        check_contamination(self.contamination)
        if self.score not in SCORES:
            raise UsageError(f"score={self.score!r} must be one of {', '.join(SCORES)}")
        for name, lowest in (("n_neighbors", 1), ("max_samples", 2)):
            value = getattr(self, name)
            if type(value) is not int or value < lowest:
                raise UsageError(f"{name}={value!r} must be a whole number from {lowest} on")
        if not 0 < self.validation_fraction < 1:
            raise UsageError(f"validation_fraction={self.validation_fraction} must lie in (0, 1)")

    def _compressor(self, known: Floats) -> FittedCompressor:
        if self.compressor is not None and _is_fitted(self.compressor):
            return self.compressor  # type: ignore[no-any-return]
        from embedpress.autoencoder.estimator import Compressor

        if self.compressor is None:
            latents = max(1, min(64, known.shape[1] // 2))
            fresh = Compressor(latents, None, seed=self.seed, num_threads=self.num_threads)
        else:
            fresh = clone(self.compressor)
        return fresh.fit(known)

    @property
    def _has_latents(self) -> bool:
        return getattr(self.compressor_, "n_components", None) is not None

    def _compressed(self, x: Floats) -> tuple[Floats, Floats]:
        """Latents, and what they restore; where there are none, what codes restore for both."""
        compressor = self.compressor_
        if self._has_latents:
            latents = np.asarray(compressor.transform(x))
            return latents, compressor.inverse_transform(latents)
        restored = compressor.decode(compressor.encode(x))
        return restored, restored

    def _centre_of(self, latents: Floats) -> Floats:
        """What latents under "cosine" are seen from: there few dimensions tell more apart."""
        if self.compressor_.metric != "cosine" or not self._has_latents:
            return np.zeros(1, np.float32)
        return np.asarray(latents.mean(axis=0, dtype=np.float64), np.float32)

    def _placed(self, x: Floats, latents: Floats, restored: Floats) -> _Points:
        if self.compressor_.metric == "cosine":
            away = latents - self._centre
            # What rounding alone leaves of equal latents has no direction.
            nothing = ROUNDING * np.linalg.norm(self._centre)
            away[np.linalg.norm(away, axis=1) <= nothing] = 0
            return _Points(_unit(x), restored, _unit(away))
        return _Points(x, restored, latents)

    def _raw(self, x: Floats, own: NDArray[np.int64]) -> dict[str, Scores]:
        """Squared distances: to the restored vector, and to the nearest known ones."""
        k = min(self.n_neighbors, len(self._known.embeddings) - 1)
        blocks: dict[str, list[Scores]] = {name: [] for name in WEIGHTS}
        with faiss_threads(self.num_threads):
            for low in range(0, len(x), BLOCK):
                mine = own[low : low + BLOCK]
                part = x[low : low + BLOCK]
                points = self._placed(part, *self._compressed(part))
                error = reconstruction_error(
                    points.embeddings, points.restored, self.compressor_.metric
                )
                # One less the cosine is half the squared distance of unit vectors.
                cosine = self.compressor_.metric == "cosine"
                blocks["reconstruction"].append(error if cosine else error**2)
                known = self._known
                blocks["density"].append(_to_nearest(points.latents, known.latents, mine, k))
                blocks["distance"].append(_to_nearest(points.embeddings, known.embeddings, mine, k))
        return {name: np.concatenate(values) for name, values in blocks.items()}

    def _combined(self, raw: dict[str, Scores]) -> dict[str, Scores]:
        relative = {name: values / self._typical[name] for name, values in raw.items()}
        combined = sum(weight * relative[name] for name, weight in WEIGHTS.items())
        return {"combined": np.asarray(combined), **relative}


class _Points(NamedTuple):
    """Embeddings, what is restored of them, and latents; under cosine of norm 1 but restored."""

    embeddings: Floats
    restored: Floats
    latents: Floats


def _is_fitted(compressor: Any) -> bool:
    return hasattr(compressor, "scale_") or not hasattr(compressor, "get_params")


def _unit(x: Floats) -> Floats:
    lengths = np.linalg.norm(x, axis=1, keepdims=True)
    return np.asarray(x / np.where(lengths > 0, lengths, 1), np.float32)


def _to_nearest(points: Floats, known: Floats, own: NDArray[np.int64], k: int) -> Scores:
    """Mean squared distance to the `k` nearest known points but the one that is oneself."""
    squared, rows = faiss.knn(points, known, k + 1, metric=faiss.METRIC_L2)
    others = np.where(rows == own[:, None], np.inf, np.maximum(squared, 0))
    return np.asarray(np.sort(others, axis=1)[:, :k].mean(axis=1, dtype=np.float64))


def _typical(values: Scores) -> float:
    """The median, or where most are zero the mean; 1 where all are."""
    return float(np.median(values)) or float(values.mean()) or 1.0
