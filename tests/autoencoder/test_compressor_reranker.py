from __future__ import annotations

import numpy as np
import pytest
import torch

from embedpress import Compressor
from embedpress.autoencoder import polish
from embedpress.autoencoder.neighbors import Neighborhoods
from embedpress.autoencoder.network import Tower
from embedpress.autoencoder.polish import polish_losses
from embedpress.autoencoder.quantizer import AdditiveQuantizer

TEMPERATURE = 0.05


def scored(queries: np.ndarray, documents: np.ndarray, metric: str) -> np.ndarray:
    scores = queries.astype(np.float64) @ documents.T.astype(np.float64)
    return scores - np.square(documents).sum(axis=1) / 2 if metric == "l2" else scores


def log_softmax(scores: np.ndarray) -> np.ndarray:
    shifted = scores - scores.max(axis=1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))


def untrained(metric: str, x: np.ndarray) -> tuple[Compressor, np.ndarray]:
    compressor = Compressor(None, 4, epochs=0, metric=metric, num_threads=1).fit(x)
    with torch.no_grad():
        return compressor, compressor.scale_(torch.from_numpy(x)).numpy()


def parts_of(compressor: Compressor) -> tuple[Tower, AdditiveQuantizer]:
    tower = compressor.code_tower_
    assert tower is not None
    assert tower.quantizer is not None
    return tower, tower.quantizer


@pytest.mark.parametrize("metric", ["cosine", "ip", "l2"])
def test_a_small_base_is_scored_whole(
    embeddings: np.ndarray, metric: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Fewer documents than a list has places: the divergence is that of all of them."""
    monkeypatch.setattr(polish, "ANCHORS", 10_000)
    monkeypatch.setattr(polish, "FOUND", 10_000)
    compressor, unit = untrained(metric, embeddings)
    tower, quantizer = parts_of(compressor)
    losses = polish_losses(
        tower,
        quantizer,
        Neighborhoods(unit, metric, seeds=4, size=8, anchors=8),
        np.random.default_rng(0),
        temperature=TEMPERATURE,
        noise=0,
        mask=0,
        reconstruction_weight=0.5,
        device=torch.device("cpu"),
    )
    parts = next(losses)
    with torch.no_grad():
        stored = quantizer.lookup(quantizer.assign(tower.encoder(torch.from_numpy(unit)))).numpy()
        asked = tower.query_encoder(torch.from_numpy(unit)).numpy()
    own = np.eye(len(unit), dtype=bool)
    wanted, given = (
        log_softmax(np.where(own, -1e9, scores / TEMPERATURE))
        for scores in (scored(unit, unit, metric), scored(asked, stored, metric))
    )
    divergence = np.where(own, 0, np.exp(wanted) * (wanted - given)).sum(axis=1).mean()
    assert divergence > 1e-4
    assert float(parts["distillation"].detach()) == pytest.approx(divergence, rel=1e-3)
    total = parts["distillation"] + 0.5 * parts["reconstruction"]
    assert float(parts["loss"].detach()) == pytest.approx(float(total.detach()), rel=1e-5)


def test_codes_stay_while_queries_and_codewords_learn(embeddings: np.ndarray) -> None:
    compressor, unit = untrained("cosine", embeddings)
    tower, quantizer = parts_of(compressor)
    losses = polish_losses(
        tower,
        quantizer,
        Neighborhoods(unit, "cosine", seeds=4, size=8, anchors=8, queries=unit[:30].copy()),
        np.random.default_rng(0),
        temperature=TEMPERATURE,
        noise=0,
        mask=0,
        reconstruction_weight=0.5,
        device=torch.device("cpu"),
    )
    for parts in (next(losses), next(losses)):
        tower.zero_grad()
        parts["loss"].backward()  # type: ignore[no-untyped-call]
        assert all(p.grad is None for p in tower.encoder.parameters())
        for learnt in (quantizer.codebooks, tower.query_encoder.linear.weight):
            assert learnt.grad is not None
            assert float(learnt.grad.abs().max()) > 0


def test_polishing_follows_the_training_of_codes_where_recall_decides(
    embeddings: np.ndarray,
) -> None:
    def last_steps(monitor: str) -> dict[str, int]:
        compressor = Compressor(6, 4, epochs=16, monitor=monitor, num_threads=1).fit(embeddings)
        steps = {name: [r["step"] for r in h] for name, h in compressor.history_.items()}
        assert all(found == sorted(set(found)) for found in steps.values())
        return {name: found[-1] for name, found in steps.items()}

    trained = last_steps("loss")
    steps = trained["latents"]
    assert trained["codes"] == steps
    assert last_steps("recall") == {"latents": steps, "codes": steps + steps // 8}
