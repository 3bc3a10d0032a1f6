"""The last part of the training of codes: queries and codewords against the whole base."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor

from embedpress.autoencoder.augment import corrupted
from embedpress.autoencoder.losses import neighbor_distillation, reconstruction, similarity
from embedpress.autoencoder.neighbors import Neighborhoods
from embedpress.autoencoder.network import Tower
from embedpress.autoencoder.quantizer import AdditiveQuantizer

ANCHORS = 128
"""Vectors that ask in a step."""
TRUE, FOUND = 48, 128
"""Documents that an anchor is scored against: its nearest, and the first that a search finds."""
REFRESHED = 50
"""Steps after which the base is encoded anew."""
READ = 256
"""Documents a step that the decoder is trained on."""
ROWS = 4096


def polish_groups(tower: Tower, quantizer: AdditiveQuantizer, rate: float) -> list[dict[str, Any]]:
    """Groups of parameters that are polished, at a tenth of the training's learning rate."""
    learnt = [tower.query_encoder, tower.decoder, quantizer]
    return [
        {"params": [p for net in learnt for p in net.parameters()], "lr": rate / 10},
        {"params": [tower.log_scale], "lr": rate},
    ]


def polish_losses(
    tower: Tower,
    quantizer: AdditiveQuantizer,
    neighborhoods: Neighborhoods,
    rng: np.random.Generator,
    *,
    temperature: float,
    noise: float,
    mask: float,
    reconstruction_weight: float,
    device: torch.device,
) -> Iterator[dict[str, Tensor]]:
    """Endless steps on the mistakes of a search of the whole base.

    A batch of neighbourhoods has few of the documents that a search confuses. Here each anchor
    meets its true neighbours and the first documents that the present codes give it, while the
    documents keep their codes: Zhan et al., "Jointly Optimizing Query Encoder and Product
    Quantization to Improve Retrieval Performance" (2021).

    Parameters
    ----------
    tower : Tower
        Its encoder is not trained.
    quantizer : AdditiveQuantizer
        The tower's.
    neighborhoods : Neighborhoods
        Of the training vectors.
    rng : numpy.random.Generator
    temperature, noise, mask, reconstruction_weight : float
        As in training.
    device : torch.device

    Yields
    ------
    dict of str to Tensor
        ``loss`` and its parts, ready for ``backward``.
    """
    metric = neighborhoods.metric
    base = torch.from_numpy(neighborhoods.vectors).to(device)
    askers = [base]
    if neighborhoods.queries is not None:
        askers.append(torch.from_numpy(neighborhoods.queries).to(device))
    step = 0
    while True:
        if step % REFRESHED == 0:
            tower.eval()
            with torch.no_grad():
                blocks = range(0, len(base), ROWS)
                assigned = [quantizer.assign(tower.encoder(base[i : i + ROWS])) for i in blocks]
                codes = torch.cat(assigned)
                stored = quantizer.lookup(codes)
        tower.train()
        asking = askers[step % len(askers)]
        drawn = rng.choice(len(asking), min(ANCHORS, len(asking)), replace=False)
        anchors = torch.from_numpy(drawn).to(device)
        asked = asking[anchors]
        queries = tower.query_encoder(corrupted(asked, noise, mask, metric))
        with torch.no_grad():
            true = similarity(asked, base, metric)
            given = similarity(queries, stored, metric)
            near = [
                scores.topk(min(k, len(base)), dim=1).indices
                for scores, k in ((true, TRUE), (given, FOUND))
            ]
            rows = torch.cat(near, dim=1).sort(dim=1).values
            # What both lists name counts once; a sample query is no document.
            left_out = torch.zeros_like(rows, dtype=torch.bool)
            left_out[:, 1:] = rows[:, 1:] == rows[:, :-1]
            if asking is base:
                left_out |= rows == anchors[:, None]
            teacher = true.gather(1, rows) / temperature
        words = quantizer.lookup(codes[rows.reshape(-1)])
        documents = words.reshape(*rows.shape, -1)
        student = torch.bmm(documents, queries[:, :, None])[..., 0]
        if metric == "l2":
            student = student - documents.square().sum(-1) / 2
        student = student * tower.log_scale.exp() / temperature
        distillation = neighbor_distillation(teacher, student, left_out)
        read = torch.from_numpy(rng.integers(0, len(words), READ)).to(device)
        clean = base[rows.reshape(-1)[read]]
        error = reconstruction(clean, tower.decoder(words[read]))
        loss = distillation + reconstruction_weight * error
        yield {"loss": loss, "distillation": distillation, "reconstruction": error}
        step += 1
