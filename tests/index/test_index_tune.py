"""How many lists a search visits: the fewest that agree with a scan, and where to stop asking."""

from __future__ import annotations

from typing import Any

import faiss
import numpy as np
import pytest

from embedpress.index.coarse import keep_nprobe, visiting
from embedpress.index.tune import tune_nprobe

D, DEPTH, METRICS = 8, 10, (faiss.METRIC_INNER_PRODUCT, faiss.METRIC_L2)


def inverted(x: np.ndarray, n_lists: int, metric: int, links: int = 0) -> Any:
    """An inverted file of floats over random ones of them, in a graph where there are links."""
    exact: Any = faiss.IndexFlat(D, metric)
    exact.add(x[:n_lists])
    index: Any = faiss.IndexIVFFlat(exact, D, n_lists, metric)
    index.add(x)
    if links:
        graph: Any = faiss.IndexHNSWFlat(D, links, metric)
        graph.add(x[:n_lists])
        index.quantizer = graph
        index.referenced_objects = [exact, graph]
    return index


def unit(rng: np.random.Generator, n: int) -> np.ndarray:
    x = rng.standard_normal((n, D)).astype(np.float32)
    return np.ascontiguousarray(x / np.linalg.norm(x, axis=1, keepdims=True))


def scanned(x: np.ndarray, queries: np.ndarray, metric: int) -> tuple[np.ndarray, np.ndarray]:
    flat = faiss.IndexFlat(D, metric)
    flat.add(x)
    scores, rows = flat.search(queries, DEPTH + 1)
    return scores, rows


def agreement(index: Any, queries: np.ndarray, own: np.ndarray, truth: Any, nprobe: int) -> float:
    """The share of the scan's ten found, by rows and in plain Python."""
    rows = index.search(queries, DEPTH + 1, params=visiting(index, nprobe))[1]
    shares = []
    for hits, exact, self_ in zip(rows, truth[1], own, strict=True):
        wanted = [row for row in exact if row != self_][:DEPTH]
        found = [row for row in hits if row != self_ and row >= 0][:DEPTH]
        shares.append(len(set(wanted) & set(found)) / DEPTH)
    return float(np.mean(shares))


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("target", [0.5, 0.9, 0.99, 1.0])
def test_the_fewest_lists_that_agree_are_taken(metric: int, target: float) -> None:
    rng = np.random.default_rng(0)
    x = unit(rng, 2000)
    index, own = inverted(x, 40, metric), np.arange(100, 400)
    truth = scanned(x, x[own], metric)
    nprobe, share = tune_nprobe(index, x[own], own, truth, agreement=target)
    by_hand = [agreement(index, x[own], own, truth, n) for n in range(1, 41)]
    assert nprobe == 1 + next(n for n, value in enumerate(by_hand) if value >= target)
    # Scores that differ by a rounding count as one.
    assert share == pytest.approx(by_hand[nprobe - 1], abs=1e-3)


@pytest.mark.parametrize("metric", METRICS)
def test_lists_that_gain_nothing_are_not_visited(metric: int) -> None:
    rng = np.random.default_rng(1)
    x, queries = unit(rng, 4000), unit(rng, 200)
    index, own = inverted(x, 512, metric), np.full(200, -1)
    scores, rows = scanned(x, queries, metric)
    # Three of a hundred queries have hits that lie in no list.
    scores[:6] = 9 if metric == faiss.METRIC_INNER_PRODUCT else -9
    nprobe, share = tune_nprobe(index, queries, own, (scores, rows))
    assert nprobe < 256
    assert 0.96 < share <= 0.97
    assert tune_nprobe(index, queries, own, (scores, rows), agreement=0.95)[0] < nprobe


@pytest.mark.parametrize("metric", METRICS)
def test_an_equal_hit_is_as_good_as_another(metric: int) -> None:
    rng = np.random.default_rng(2)
    x = np.repeat(unit(rng, 50), 40, axis=0)
    queries, own = unit(rng, 60), np.full(60, -1)
    scores, rows = scanned(x, queries, metric)
    # The scan names forty equal rows in an order of its own.
    nprobe, share = tune_nprobe(inverted(x[::-1].copy(), 30, metric), queries, own, (scores, rows))
    assert share >= 0.99
    assert nprobe < 30


def test_fewer_vectors_than_hits_and_none_at_all() -> None:
    rng = np.random.default_rng(3)
    x, queries, metric = unit(rng, 6), unit(rng, 5), faiss.METRIC_INNER_PRODUCT
    index, own = inverted(x, 3, metric), np.full(5, -1)
    truth = scanned(x, queries, metric)
    assert (truth[1] < 0).any()
    assert tune_nprobe(index, queries, own, truth) == (3, 1.0)
    nothing = np.full((5, DEPTH + 1), -1)
    found = tune_nprobe(index, x[:5], own, (np.zeros(nothing.shape, np.float32), nothing))
    assert found == (1, 1.0)


@pytest.mark.parametrize("metric", METRICS)
def test_all_lists_are_found_through_a_graph(metric: int) -> None:
    rng = np.random.default_rng(4)
    x, queries = unit(rng, 6000), unit(rng, 100)
    index, plain = inverted(x, 2048, metric, links=16), inverted(x, 2048, metric)
    assert faiss.downcast_index(index.quantizer).hnsw.efSearch == 16
    for nprobe in (8, 64, 2048, 10**9):
        found = index.search(queries, DEPTH, params=visiting(index, nprobe))[1]
        exact = plain.search(queries, DEPTH, params=visiting(plain, nprobe))[1]
        assert (found == exact).mean() > 0.98
    # What plain FAISS does with the index when it is given no parameters.
    keep_nprobe(index, 64)
    keep_nprobe(plain, 64)
    assert faiss.downcast_index(index.quantizer).hnsw.efSearch == 128
    found = index.search(queries, DEPTH)[1]
    np.testing.assert_array_equal(
        found, index.search(queries, DEPTH, params=visiting(index, 64))[1]
    )
    assert (found == plain.search(queries, DEPTH)[1]).mean() > 0.98
