"""The peers: classical compression at the same number of bytes, each given its best form."""

from __future__ import annotations

import time
from typing import Any

import numpy as np

from embedpress.errors import InputError, UsageError
from embedpress.evaluate.coders import Coder
from embedpress.evaluate.exact import Floats, Ids, true_neighbors, unit_rows
from embedpress.evaluate.metrics import recall_at_k
from embedpress.evaluate.recipes import KINDS, QUICK_KINDS, Recipe, check_kinds, recipes
from embedpress.threads import faiss_threads
from embedpress.vectors.check import check_metric, check_vectors

TUNING_QUERIES = 1000
TUNING_BASE = 20000


class Baseline:
    """A peer of a stated size: fit it, then search a base with it.

    Built by :func:`baseline` and :func:`peers_at`.

    Attributes
    ----------
    name : str
        Such as "OPQ32"; of the chosen form once fitted.
    kind : str
        One of :data:`embedpress.evaluate.recipes.KINDS`.
    bytes_per_vector : int
        All that is stored for one vector, RaBitQ's factors included.
    train_seconds, encode_seconds, search_seconds : float
        Of :meth:`fit`, and of the last :meth:`search`.
    model_bytes : int
        What is stored once: codebooks, ranges, matrices.
    """

    def __init__(
        self,
        kind: str,
        forms: list[Recipe],
        n_bytes: int,
        *,
        dim: int,
        metric: str,
        seed: int,
        num_threads: int | None,
    ) -> None:
        self.kind = kind
        self.name = forms[0].label if len(forms) == 1 else f"{kind} at {n_bytes} B"
        self.bytes_per_vector = n_bytes
        self.dim = dim
        self.metric = metric
        self.train_seconds = self.encode_seconds = self.search_seconds = 0.0
        self._forms = forms
        self._seed = seed
        self._threads = num_threads
        self._coder: Coder | None = None

    def fit(self, train: Any) -> Baseline:
        """Choose among the forms this peer has at its size, and train the best.

        Parameters
        ----------
        train : array_like, shape (n, d), float
            Never the queries it will be measured with.

        Returns
        -------
        Baseline
            Itself.

        Raises
        ------
        InputError
            Vectors that cannot be used, or too few.

        Notes
        -----
        Where there is a choice (components against bits, how to centre), each form is trained on
        up to 20,000 training rows and searched with up to 1,000 others; the best recall@10 wins
        and is trained again on everything.
        """
        x = self._checked(train, "training vectors")
        start = time.perf_counter()
        with faiss_threads(self._threads):
            recipe = self._forms[0] if len(self._forms) == 1 else self._best_recipe(x)
            self._coder = self._train(recipe, x)
        self.train_seconds = time.perf_counter() - start
        self.name = recipe.label
        return self

    def search(self, base: Any, queries: Any, k: int) -> Ids:
        """Encode the base, then find each query's nearest codes by brute force.

        Parameters
        ----------
        base, queries : array_like, shape (n, d) and (nq, d), float
        k : int
            1 to `n`.

        Returns
        -------
        ndarray, shape (nq, k), int64
            Row numbers of `base`, best first.
        """
        coder = self._fitted()
        b, q = self._checked(base, "base vectors"), self._checked(queries, "queries")
        if not 1 <= k <= len(b):
            raise UsageError(f"k is {k}: with {len(b)} base rows it must be 1 to {len(b)}")
        with faiss_threads(self._threads):
            start = time.perf_counter()
            codes = coder.encode(b)
            middle = time.perf_counter()
            ids = coder.search(codes, q, k)
        self.encode_seconds = middle - start
        self.search_seconds = time.perf_counter() - middle
        return ids

    @property
    def model_bytes(self) -> int:
        return self._fitted().model_bytes

    def _fitted(self) -> Coder:
        if self._coder is None:
            raise UsageError(f"{self.name} is not trained: call fit first")
        return self._coder

    def _checked(self, x: Any, what: str) -> Floats:
        a = check_vectors(x, dim=self.dim, metric=self.metric, what=what)
        return unit_rows(a) if self.metric == "cosine" else a

    def _train(self, recipe: Recipe, x: Floats) -> Coder:
        coder = Coder(recipe, x, l2=self.metric == "l2", seed=self._seed)
        if coder.code_size != self.bytes_per_vector:
            raise InputError(
                f"{recipe.label} takes {coder.code_size} bytes, not {self.bytes_per_vector}: "
                "this FAISS lays its codes out in another way"
            )
        return coder

    def _best_recipe(self, x: Floats) -> Recipe:
        if len(x) < 20:
            raise InputError(f"{self.name} is chosen on held-out rows: give 20 or more")
        order = np.random.default_rng(self._seed).permutation(len(x))
        n_queries = min(TUNING_QUERIES, len(x) // 5)
        queries = x[order[:n_queries]]
        base = x[np.sort(order[n_queries : n_queries + TUNING_BASE])]
        k = min(10, len(base))
        truth = true_neighbors(queries, base, k, metric="l2" if self.metric == "l2" else "ip")
        scores = []
        for recipe in self._forms:
            coder = self._train(recipe, base)
            found = coder.search(coder.encode(base), queries, k)
            scores.append(float(recall_at_k(found, truth).mean()))
        return self._forms[int(np.argmax(scores))]


def baseline(
    kind: str,
    n_bytes: int,
    *,
    dim: int,
    metric: str,
    seed: int = 0,
    num_threads: int | None = None,
) -> Baseline:
    """A peer of exactly `n_bytes` a vector.

    Parameters
    ----------
    kind : {"pca", "pca-sq", "opq", "rabitq", "rq", "prq", "lsq", "int8", "binary"}
        PCA with float32 components; PCA with scalar-quantized components; optimized product
        quantization; RaBitQ behind a random rotation (and PCA where it is too large, more bits
        a component where that is better); residual quantization (beam 5, minutes to train), and
        the same in slices of the vector; local search quantization, in slices where 8 codebooks
        are not enough (many minutes); a byte a dimension; a bit a component with queries left
        as floats.
    n_bytes : int
    dim : int
        Dimensions of the embeddings.
    metric : {"cosine", "ip", "l2"}
    seed : int
    num_threads : int, optional

    Returns
    -------
    Baseline

    Raises
    ------
    UsageError
        Unknown kind or metric, or a size the kind does not have.

    Notes
    -----
    All are FAISS's own with its own defaults. OPQ: Ge et al. 2013; RQ: Babenko and Lempitsky
    2014, Liu et al. 2015; LSQ: Martinez et al. 2018; RaBitQ: Gao and Long 2024; the rotation
    before a bit a component is ITQ (Gong and Lazebnik 2011).
    """
    check_metric(metric)
    check_kinds([kind])
    forms = recipes(kind, n_bytes, dim, metric)
    if not forms:
        raise UsageError(f"{kind} has no form of {n_bytes} bytes for {dim} dimensions")
    return Baseline(
        kind, forms, n_bytes, dim=dim, metric=metric, seed=seed, num_threads=num_threads
    )


def peers_at(
    n_bytes: int,
    dim: int,
    metric: str,
    *,
    slow: bool = False,
    seed: int = 0,
    num_threads: int | None = None,
) -> list[Baseline]:
    """Every peer that comes in exactly `n_bytes` a vector.

    Parameters
    ----------
    n_bytes, dim, metric, seed, num_threads
        As in :func:`baseline`.
    slow : bool
        Residual and local search quantization too, which take minutes to train.

    Returns
    -------
    list of Baseline
    """
    check_metric(metric)
    return [
        baseline(kind, n_bytes, dim=dim, metric=metric, seed=seed, num_threads=num_threads)
        for kind in (KINDS if slow else QUICK_KINDS)
        if recipes(kind, n_bytes, dim, metric)
    ]
