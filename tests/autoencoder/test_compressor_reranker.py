"""The reranker: what it starts as, what it learns from, when it is kept, and how it is saved."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from samples import SMALL, curved

from embedpress import Compressor, load
from embedpress.autoencoder.losses import perplexity_scales
from embedpress.autoencoder.neighbors import Neighborhoods
from embedpress.autoencoder.pretrained import load_compressor, save
from embedpress.autoencoder.reranker import Reranker
from embedpress.autoencoder.trainer import _reranker_losses
from embedpress.errors import InputError
from embedpress.index.candidates import candidate_scores
from embedpress.index.hits import best_first

OPTIONS: dict[str, Any] = {**SMALL, "n_components": None, "monitor": "recall", "epochs": 25}


@pytest.fixture(scope="module")
def trained() -> Compressor:
    compressor = Compressor(**OPTIONS).fit(curved(1500))
    assert compressor.reranker_ is not None
    return compressor


@pytest.mark.parametrize("metric", ["cosine", "ip", "l2"])
def test_a_new_reranker_leaves_the_order_of_a_scan(metric: str) -> None:
    x = curved(400)
    compressor = Compressor(**{**OPTIONS, "metric": metric, "epochs": 1}).fit(x)
    tower = compressor.code_tower_
    assert tower is not None
    assert tower.quantizer is not None
    compressor.reranker_ = compressor._builder().reranker(tower)
    found = compressor.rerank_documents(compressor.encode(x))
    words = tower.quantizer.lookup(torch.from_numpy(compressor.encode(x).astype(np.int64)))
    np.testing.assert_allclose(found, words.detach().numpy(), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(
        compressor.rerank_queries(x), compressor.encode_queries(x), rtol=1e-5, atol=1e-6
    )


def test_hits_are_reordered_by_score_and_none_is_lost() -> None:
    rng = np.random.default_rng(0)
    queries, documents = (rng.normal(size=(n, 5)).astype(np.float32) for n in (7, 40))
    first = np.stack([rng.permutation(40)[:12] for _ in range(7)])
    for metric in ("ip", "l2"):
        found = candidate_scores(queries, first, documents.__getitem__, l2=metric == "l2")
        again = np.take_along_axis(first, best_first(found, metric), 1)
        assert np.array_equal(np.sort(again), np.sort(first))
        for query, row in zip(queries.astype(np.float64), again, strict=True):
            scores = documents[row] @ query
            if metric == "l2":
                scores = -np.square(documents[row] - query).sum(axis=1)
            assert bool((np.diff(scores) <= 1e-9).all())


def test_the_loss_is_the_divergence_of_the_neighbours_it_gives(trained: Compressor) -> None:
    """Against a plain numpy computation; without mixing, and at a given temperature."""
    unit = curved(60, seed=3)
    unit /= np.linalg.norm(unit, axis=1, keepdims=True)
    tower, reranker = trained.code_tower_, trained.reranker_
    assert tower is not None
    assert reranker is not None
    neighborhoods = Neighborhoods(unit, "cosine", seeds=2, size=60, anchors=60)
    options = replace(trained._trainer_options(), mixup=0, temperature=0.1)
    rng, cpu = np.random.default_rng(0), torch.device("cpu")
    losses = _reranker_losses(reranker.eval(), tower, neighborhoods, options, rng, cpu)
    parts = next(losses)
    teacher = unit.astype(np.float64) @ unit.T / 0.1
    scale = float(reranker.log_scale.detach().exp()) / 0.1
    student = trained.rerank_queries(unit).astype(np.float64)
    student = student @ trained.rerank_documents(trained.encode(unit)).T * scale
    for scores in (teacher, student):
        np.fill_diagonal(scores, -1e9)
    wanted, given = (
        s - s.max(1, keepdims=True) - np.log(np.exp(s - s.max(1, keepdims=True)).sum(1))[:, None]
        for s in (teacher, student)
    )
    divergence = float((np.exp(wanted) * (wanted - given)).sum(axis=1).mean())
    assert divergence > 1e-3
    assert float(parts["loss"].detach()) == pytest.approx(divergence, rel=1e-3)
    tower.zero_grad()
    parts["loss"].backward()  # type: ignore[no-untyped-call]
    assert all(p.grad is None for p in tower.encoder.parameters())
    assert reranker.documents.linear.weight.grad is not None


@pytest.mark.parametrize("perplexity", [3.0, 12.0])
def test_every_anchor_is_given_its_own_temperature(perplexity: float) -> None:
    rng = np.random.default_rng(0)
    spread = torch.from_numpy(rng.lognormal(0, 1.5, (20, 1)))
    scores = torch.from_numpy(rng.normal(size=(20, 90))) * spread
    own = torch.zeros(20, 90, dtype=torch.bool)
    own[torch.arange(20), torch.arange(20)] = True
    scales = perplexity_scales(scores, own, perplexity)
    shares = (scores.masked_fill(own, -1e9) * scales).softmax(dim=1)
    entropy = -(shares * shares.clamp(min=1e-30).log()).sum(dim=1)
    np.testing.assert_allclose(entropy.exp(), perplexity, rtol=1e-2)
    # Equal scores allow of no perplexity but their number: still finite.
    assert bool(torch.isfinite(perplexity_scales(torch.ones(2, 9), own[:2, :9])).all())


def test_what_it_learns_of_documents_fades(trained: Compressor) -> None:
    """Its residual network alone decays, and more only where more was asked for."""
    reranker = trained.reranker_
    assert reranker is not None
    for asked, found in ((0.0, 0.6), (0.3, 0.6), (2.0, 2.0)):
        groups = reranker.parameter_groups(1e-3, asked)
        assert [group["weight_decay"] for group in groups] == [found, 0, 0]
        residual = {id(p) for p in reranker.documents.mlp.parameters()}
        assert {id(p) for p in groups[0]["params"]} == residual


def test_it_is_kept_only_where_held_out_queries_gain(trained: Compressor) -> None:
    records = trained.history_["reranker"]
    assert records[0]["recall"] == pytest.approx(
        max(r["recall"] for r in trained.history_["codes"]), abs=5e-3
    )
    assert max(r["recall"] for r in records) > records[0]["recall"]
    for options in (
        {"reranker": False},
        {"monitor": "loss"},
        {"validation_fraction": 0},
        {"epochs": 0},
    ):
        without = Compressor(**{**OPTIONS, "epochs": 2, **options}).fit(curved(300))
        assert without.reranker_ is None
        assert "reranker" not in without.history_
        with pytest.raises(InputError, match="no reranker"):
            without.rerank_queries(curved(3))


def test_more_training_makes_a_new_one(trained: Compressor, tmp_path: Path) -> None:
    save(trained, tmp_path / "model")
    again = load_compressor(tmp_path / "model")
    again.set_params(epochs=3).partial_fit(curved(1500))
    first = again.history_.get("reranker", [{"step": 0}])
    assert first[0]["step"] == 0
    assert sum(record["step"] == 0 for record in first) == 1


def test_a_saved_one_gives_the_same(trained: Compressor, tmp_path: Path) -> None:
    x = curved(50, seed=5)
    save(trained, tmp_path / "model")
    again, onnx = load_compressor(tmp_path / "model"), load(tmp_path / "model")
    assert isinstance(again.reranker_, Reranker)
    assert onnx.reranks
    assert not onnx.bad_files()
    codes = trained.encode(x)
    for other in (again, onnx):
        for got, expected in (
            (other.rerank_documents(codes), trained.rerank_documents(codes)),
            (other.rerank_queries(x), trained.rerank_queries(x)),
        ):
            np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-5)
    assert again.history_["reranker"] == trained.history_["reranker"]
    recalls = [record["recall"] for record in trained.history_["reranker"]]
    card = (tmp_path / "model" / "README.md").read_text()
    assert f"first hits reranked | 4 bytes | 32.0x | {max(recalls):.3f} |" in card
    assert f"scan alone {recalls[0]:.3f} |" in card
    (tmp_path / "model" / "rerank_documents.onnx").write_bytes(b"x")
    assert load(tmp_path / "model").bad_files() == ["rerank_documents.onnx"]
    # A compressor without one takes the place of one with.
    save(Compressor(**{**OPTIONS, "epochs": 0}).fit(x), tmp_path / "model")
    assert not list((tmp_path / "model").glob("rerank_*"))
    assert not load(tmp_path / "model").reranks
