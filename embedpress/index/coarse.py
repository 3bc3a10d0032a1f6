"""The coarse quantizer of an inverted file: centroids of lists, and the way to the nearest."""

from __future__ import annotations

from typing import Any

import faiss
import numpy as np
from numpy.typing import NDArray

from embedpress.index.layout import Layout, graph_width
from embedpress.threads import faiss_threads

Floats = NDArray[np.float32]

PLAIN_UP_TO = 1024
"""Lists up to which ordinary k-means is quick; beyond, it is done in two levels."""
_REFINEMENTS = 2


def coarse_quantizer(centroids: Floats, layout: Layout, metric: int, *, repeat: int = 1) -> Any:
    """The FAISS index that finds the nearest of the centroids.

    Parameters
    ----------
    centroids : ndarray of shape (n_lists, d), float32
    layout : Layout
    metric : int
        FAISS's constant.
    repeat : int
        A query is laid out so many times; so are the centroids it is compared with.

    Returns
    -------
    faiss.IndexFlat, or faiss.IndexHNSWSQ over float16 where the layout has links
    """
    return _finder(np.tile(centroids, (1, repeat)), metric, layout.links)


def visiting(index: Any, nprobe: int, selector: Any = None) -> Any:
    """FAISS's parameters of a search that visits so many lists.

    Parameters
    ----------
    index : faiss.IndexIVF
        A graph over its centroids is searched as widely as that number wants.
    nprobe : int
    selector : faiss.IDSelector, optional
        The rows that may be found.

    Returns
    -------
    faiss.SearchParametersIVF
    """
    nprobe = min(nprobe, index.nlist)
    options: dict[str, Any] = {} if selector is None else {"sel": selector}
    # FAISS's types do not know what its parameters take.
    library: Any = faiss
    if isinstance(faiss.downcast_index(index.quantizer), faiss.IndexHNSW):
        wide = library.SearchParametersHNSW(efSearch=graph_width(nprobe))
        options["quantizer_params"] = wide
    return library.SearchParametersIVF(nprobe=nprobe, **options)


def keep_nprobe(index: Any, nprobe: int) -> None:
    """Let the index visit so many lists when no parameters are given, as plain FAISS does."""
    index.nprobe = nprobe
    quantizer = faiss.downcast_index(index.quantizer)
    if isinstance(quantizer, faiss.IndexHNSW):
        quantizer.hnsw.efSearch = graph_width(nprobe)


def train_centroids(sample: Floats, n_lists: int, metric: int, *, seed: int = 0) -> Floats:
    """K-means centroids (n_lists, d), on the unit sphere under inner product.

    Many are trained in two levels: the sample is cut into coarse clusters, each of which is cut
    into its share of the centroids (as in FAISS's two-level clustering), and all are moved to the
    means of what is nearest to them, found through a graph.
    """
    if n_lists <= PLAIN_UP_TO:
        return _kmeans(sample, n_lists, metric, seed)
    top = _kmeans(sample, round(n_lists**0.5), metric, seed)
    parents = _finder(top, metric, 0).search(sample, 1)[1][:, 0]
    sizes = np.bincount(parents, minlength=len(top))
    shares = _shares(sizes, n_lists)
    parts = [
        _kmeans(sample[parents == parent], int(share), metric, seed)
        for parent, share in enumerate(shares)
        if share
    ]
    centroids = np.concatenate(parts)
    for _ in range(_REFINEMENTS):
        nearest = _finder(centroids, metric, 16).search(sample, 1)[1][:, 0]
        centroids = _means(sample, nearest, centroids, metric)
    return centroids


def _kmeans(x: Floats, k: int, metric: int, seed: int) -> Floats:
    kmeans = faiss.Kmeans(
        x.shape[1],
        k,
        niter=10,
        seed=seed,
        spherical=metric == faiss.METRIC_INNER_PRODUCT,
        min_points_per_centroid=1,
    )
    kmeans.train(np.ascontiguousarray(x))
    centroids: Floats = np.asarray(kmeans.centroids, np.float32).reshape(k, -1)
    return centroids


def _shares(sizes: NDArray[np.int64], total: int) -> NDArray[np.int64]:
    """`total` split in proportion to sizes, at most one for each member."""
    exact = sizes * (total / sizes.sum())
    shares: NDArray[np.int64] = np.minimum(np.floor(exact).astype(np.int64), sizes)
    while shares.sum() < total:
        for place in np.argsort(shares - exact, kind="stable")[: total - shares.sum()]:
            shares[place] += shares[place] < sizes[place]
    return shares


def _means(x: Floats, nearest: NDArray[np.int64], centroids: Floats, metric: int) -> Floats:
    order = np.argsort(nearest, kind="stable")
    filled, starts = np.unique(nearest[order], return_index=True)
    moved: Floats = centroids.copy()
    for number, low, high in zip(filled, starts, [*starts[1:], len(x)], strict=True):
        moved[number] = x[order[low:high]].mean(axis=0)
    if metric == faiss.METRIC_INNER_PRODUCT:
        moved /= np.maximum(np.linalg.norm(moved, axis=1, keepdims=True), 1e-12)
    return moved


def _finder(centroids: Floats, metric: int, links: int) -> Any:
    d = centroids.shape[1]
    if not links:
        flat = faiss.IndexFlat(d, metric)
        flat.add(np.ascontiguousarray(centroids))
        return flat
    half: Any = faiss.ScalarQuantizer.QT_fp16
    graph = faiss.IndexHNSWSQ(d, half, links, metric)
    graph.hnsw.efSearch = graph_width(1)
    graph.is_trained = True
    # Threads that add at once would link differently each time.
    with faiss_threads(1):
        graph.add(np.ascontiguousarray(centroids))
    return graph
