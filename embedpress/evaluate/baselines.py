"""The peers: classical compression at the same number of bytes, each given its best form."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

import numpy as np

from embedpress.errors import InputError, UsageError
from embedpress.evaluate.coders import Coder, Recipe
from embedpress.evaluate.metrics import (
    as_matrix,
    check_metric,
    recall_at_k,
    true_neighbors,
    unit_rows,
)
from embedpress.threads import faiss_threads

KINDS = ("pca", "pca-sq", "opq", "rabitq", "rq", "int8", "binary")
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
        One of `KINDS`.
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
        recipes: list[Recipe],
        n_bytes: int,
        *,
        metric: str,
        seed: int,
        num_threads: int | None,
    ) -> None:
        self.kind = kind
        self.name = recipes[0].label if len(recipes) == 1 else f"{kind} at {n_bytes} B"
        self.bytes_per_vector = n_bytes
        self.metric = metric
        self.train_seconds = self.encode_seconds = self.search_seconds = 0.0
        self._recipes = recipes
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
            recipe = self._recipes[0] if len(self._recipes) == 1 else self._best_recipe(x)
            self._coder = self._train(recipe, x)
        self.train_seconds = time.perf_counter() - start
        self.name = recipe.label
        return self

    def search(self, base: Any, queries: Any, k: int) -> np.ndarray:
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
        b, q = self._checked(base, "base"), self._checked(queries, "queries")
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

    def _checked(self, x: Any, what: str) -> np.ndarray:
        dim = None if self._coder is None else len(self._coder._base_shift)
        a = as_matrix(x, what, dim=dim)
        return unit_rows(a, what) if self.metric == "cosine" else a

    def _train(self, recipe: Recipe, x: np.ndarray) -> Coder:
        coder = Coder(recipe, x, l2=self.metric == "l2", seed=self._seed)
        if coder.code_size != self.bytes_per_vector:
            raise InputError(
                f"{recipe.label} takes {coder.code_size} bytes, not {self.bytes_per_vector}: "
                "this FAISS lays its codes out in another way"
            )
        return coder

    def _best_recipe(self, x: np.ndarray) -> Recipe:
        if len(x) < 20:
            raise InputError(f"{self.name} is chosen on held-out rows: give 20 or more")
        order = np.random.default_rng(self._seed).permutation(len(x))
        n_queries = min(TUNING_QUERIES, len(x) // 5)
        queries = x[order[:n_queries]]
        base = x[np.sort(order[n_queries : n_queries + TUNING_BASE])]
        k = min(10, len(base))
        truth = true_neighbors(queries, base, k, metric="l2" if self.metric == "l2" else "ip")
        scores = []
        for recipe in self._recipes:
            coder = self._train(recipe, base)
            found = coder.search(coder.encode(base), queries, k)
            scores.append(float(recall_at_k(found, truth).mean()))
        return self._recipes[int(np.argmax(scores))]


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
    kind : {"pca", "pca-sq", "opq", "rabitq", "rq", "int8", "binary"}
        PCA with float32 components; PCA with scalar-quantized components; optimized product
        quantization; RaBitQ behind a random rotation (and PCA where it is too large, more bits
        a component where that is better); residual quantization (beam 5, minutes to train); a
        byte a dimension; a bit a component with queries left as floats.
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
    2014, Liu et al. 2015; RaBitQ: Gao and Long 2024; the rotation before a bit a component is
    ITQ (Gong and Lazebnik 2011).
    """
    check_metric(metric)
    if kind not in KINDS:
        raise UsageError(f"baseline {kind!r} is not known: use one of {', '.join(KINDS)}")
    recipes = _recipes(kind, n_bytes, dim, metric)
    if not recipes:
        raise UsageError(f"{kind} has no form of {n_bytes} bytes for {dim} dimensions")
    return Baseline(kind, recipes, n_bytes, metric=metric, seed=seed, num_threads=num_threads)


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
        Residual quantization too, which takes minutes to train.

    Returns
    -------
    list of Baseline
    """
    check_metric(metric)
    kinds = [k for k in KINDS if slow or k != "rq"]
    return [
        baseline(kind, n_bytes, dim=dim, metric=metric, seed=seed, num_threads=num_threads)
        for kind in kinds
        if _recipes(kind, n_bytes, dim, metric)
    ]


def _recipes(kind: str, n_bytes: int, dim: int, metric: str) -> list[Recipe]:
    if n_bytes < 1:
        return []
    if kind == "int8":
        return [Recipe("int8", "sq", dim)] if n_bytes == dim else []
    if kind == "opq":
        # FAISS splits the rotated vector evenly, so it is padded to a multiple of the codebooks.
        width = -(-dim // n_bytes) * n_bytes
        whole = Recipe(f"OPQ{n_bytes}", "pq", width, books=n_bytes, rotate="opq")
        return [whole] if n_bytes <= dim else []
    if kind == "rq":
        return [Recipe(f"RQ{n_bytes}", "rq", dim, books=n_bytes)] if n_bytes <= dim else []
    if kind == "pca":
        m = n_bytes // 4
        fits = n_bytes % 4 == 0 and m < dim
        return _reduced(Recipe(f"PCA{m}", "float", m), metric) if fits else []
    if kind == "pca-sq":
        sizes = [(m, b) for m, b in ((n_bytes, 8), (2 * n_bytes, 4)) if m < dim]
        forms = [Recipe(f"PCA{m}+SQ{b}", "sq", m, bits=b) for m, b in sizes]
        return [r for form in forms for r in _reduced(form, metric)]
    if kind == "binary":
        return _binary(n_bytes, dim, metric)
    return _rabitq(n_bytes, dim, metric)


def _reduced(form: Recipe, metric: str) -> list[Recipe]:
    form = replace(form, reduce=True, unit=metric == "cosine")
    if metric == "l2":
        return [replace(form, shift="both")]
    return [replace(form, shift=s) for s in ("both", "base", "no")]


def _binary(n_bytes: int, dim: int, metric: str) -> list[Recipe]:
    bits = 8 * n_bytes
    if bits > dim:
        return []
    if bits == dim:
        plain = Recipe("binary", "sign", dim)
        return [plain, replace(plain, label="ITQ+binary", rotate="itq", shift="both")]
    forms = _reduced(Recipe(f"PCA{bits}+binary", "sign", bits, rotate="itq"), metric)
    return [r for r in forms if r.shift != "no"]


def _rabitq(n_bytes: int, dim: int, metric: str) -> list[Recipe]:
    import faiss

    def size(dims: int, bits: int) -> int:
        return int(faiss.IndexRaBitQ(dims, faiss.METRIC_INNER_PRODUCT, bits).code_size)

    out = []
    for bits in (1, 2, 4, 8):
        # Twice the dimensions is padding for its own sake. Factors of each vector take bytes too,
        # more of them beyond one bit, and FAISS knows best how many.
        most = min(8 * n_bytes // bits, 2 * dim)
        dims = next((m for m in range(most, 0, -1) if size(m, bits) <= n_bytes), 0)
        if dims == 0 or size(dims, bits) != n_bytes:
            continue
        name = "RaBitQ" if bits == 1 else f"RaBitQ{bits}"
        if dims >= dim:
            out.append(Recipe(name, "rabitq", dims, bits=bits, rotate="random"))
        else:
            form = Recipe(f"PCA{dims}+{name}", "rabitq", dims, bits=bits, rotate="random")
            out.extend(_reduced(form, metric))
    return out
