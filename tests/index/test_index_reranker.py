"""First hits reordered by the compressor's reranker, against all of it by hand."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from index_truth import N
from samples import SMALL

from embedpress import Compressor, build_index, compress, load, open_index
from embedpress.autoencoder.pretrained import save
from embedpress.errors import UsageError
from embedpress.evaluate.evaluation import evaluate
from embedpress.evaluate.metrics import recall_at_k, true_neighbors
from embedpress.index.search import SearchIndex
from embedpress.onnx.compressor import OnnxCompressor

K, OVERSAMPLE = 5, 4


@pytest.fixture(scope="module")
def folders(
    embeddings: np.ndarray,
    embedded: Callable[..., Path],
    tmp_path_factory: pytest.TempPathFactory,
) -> Callable[..., tuple[Path, Path]]:
    """A compressor whose reranker says something of its own, and its codes."""
    made: dict[str, tuple[Path, Path]] = {}

    def folder(metric: str) -> tuple[Path, Path]:
        if metric not in made:
            options: dict[str, Any] = {**SMALL, "epochs": 2, "metric": metric}
            compressor = Compressor(**options).fit(embeddings)
            assert compressor.code_tower_ is not None
            reranker = compressor._builder().reranker(compressor.code_tower_)
            with torch.random.fork_rng(), torch.no_grad():
                torch.manual_seed(0)
                for weights in reranker.parameters():
                    weights.add_(0.1 * torch.randn_like(weights))
            compressor.reranker_ = reranker.eval()
            model, codes = (tmp_path_factory.mktemp(name) for name in ("model", "codes"))
            save(compressor, model)
            compress(embedded(metric), model, codes, num_threads=1)
            made[metric] = model, codes
        return made[metric]

    return folder


def by_hand(
    index: SearchIndex, model: OnnxCompressor, base: np.ndarray, queries: np.ndarray, **options: Any
) -> tuple[np.ndarray, np.ndarray]:
    """The first hits of the scan, by four parts of the reranker's score and one of the scan's."""
    first = index.search(queries, K * OVERSAMPLE, rerank=False, **options)
    documents = model.rerank_documents(model.encode(base)).astype(np.float64)
    asked = model.rerank_queries(queries).astype(np.float64)
    rows, scores = [], []
    for query, (found, scanned) in zip(asked, first.lines(), strict=True):
        value = documents[found] @ query
        if model.metric == "l2":
            value = np.square(documents[found] - query).sum(axis=1)
        value = (4 * value + scanned) / 5
        order = np.argsort(value if model.metric == "l2" else -value)[:K]
        missing = (0, K - len(order))
        rows.append(np.pad(found[order], missing, constant_values=-1))
        scores.append(np.pad(value[order], missing, constant_values=np.nan))
    return np.array(rows), np.array(scores)


@pytest.mark.parametrize("factory", ["Flat", "IVF8"])
@pytest.mark.parametrize("metric", ["cosine", "ip", "l2"])
@pytest.mark.parametrize("filter", [None, 'label == "food" and year > 2010'])
def test_first_hits_in_the_order_of_the_reranker(
    folders: Callable[..., tuple[Path, Path]],
    base: np.ndarray,
    queries: np.ndarray,
    tmp_path: Path,
    factory: str,
    metric: str,
    filter: str | None,
) -> None:
    model, codes = folders(metric)
    build_index(codes, model, tmp_path / "index", factory=factory)
    index, compressor = open_index(tmp_path / "index", model), load(model)
    options: dict[str, Any] = {"filter": filter} if filter else {}
    if factory != "Flat":
        options["nprobe"] = 8
    found = index.search(queries, K, oversample=OVERSAMPLE, **options)
    rows, scores = by_hand(index, compressor, base, queries, **options)
    there = rows >= 0
    assert there.any()
    np.testing.assert_array_equal(found.rows >= 0, there)
    # Equal codes have equal scores, in whatever order.
    np.testing.assert_allclose(found.scores[there], scores[there], rtol=1e-3, atol=1e-4)
    assert (found.rows == rows).mean() > 0.9
    plain = index.search(queries, K, rerank=False, **options)
    assert (plain.rows != found.rows).any()


def test_a_mapped_index_and_a_few_queries_at_once_give_the_same(
    folders: Callable[..., tuple[Path, Path]],
    queries: np.ndarray,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model, codes = folders("cosine")
    build_index(codes, model, tmp_path / "index", factory="Flat")
    whole = open_index(tmp_path / "index", model).search(queries, K)
    monkeypatch.setattr("embedpress.index.candidates._BLOCK", 1)
    found = open_index(tmp_path / "index", model, memory_map=True).search(queries, K)
    np.testing.assert_array_equal(found.rows, whole.rows)
    np.testing.assert_allclose(found.scores, whole.scores, rtol=1e-5)
    every = open_index(tmp_path / "index", model).search(queries[:1], N)
    assert sorted(every.rows[0]) == list(range(N))


def test_a_tier_goes_before_it_and_latents_have_none(
    folders: Callable[..., tuple[Path, Path]],
    embedded: Callable[..., Path],
    queries: np.ndarray,
    tmp_path: Path,
) -> None:
    model, codes = folders("cosine")
    build_index(codes, model, tmp_path / "tier", rerank="float32", vectors=embedded("cosine"))
    index = open_index(tmp_path / "tier", model)
    assert index.rerank_tier is not None
    best = index.search(queries, 1).scores
    assert (best <= 1 + 1e-6).all()
    compress(embedded("cosine"), model, tmp_path / "latents", what="latents", num_threads=1)
    build_index(tmp_path / "latents", model, tmp_path / "plain")
    plain = open_index(tmp_path / "plain", model)
    assert not plain.reranks
    with pytest.raises(UsageError, match="nothing reranks the index"):
        plain.search(queries, 1, rerank=True)


@pytest.mark.parametrize("metric", ["cosine", "l2"])
def test_an_evaluation_finds_what_a_search_of_the_index_finds(
    folders: Callable[..., tuple[Path, Path]],
    base: np.ndarray,
    queries: np.ndarray,
    tmp_path: Path,
    metric: str,
) -> None:
    model, codes = folders(metric)
    build_index(codes, model, tmp_path / "index", factory="Flat")
    truth = true_neighbors(queries, base, 10, metric=metric)
    rows = {row.name: row for row in evaluate(base, queries, load(model)).recall}
    index = open_index(tmp_path / "index", model)
    for name, rerank in (("codes", False), ("codes, reranked", None)):
        found = index.search(queries, 10, rerank=rerank).rows
        # Rows of equal codes may change places.
        expected = float(recall_at_k(found, truth).mean())
        assert rows[name].recall == pytest.approx(expected, abs=0.01)
    assert rows["codes"].bytes == rows["codes, reranked"].bytes == 4
    assert abs(rows["codes"].recall - rows["codes, reranked"].recall) > 0.02
