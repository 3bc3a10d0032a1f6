"""Held-out queries, by which a training is judged."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import faiss
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from embedpress.autoencoder.augment import corrupted
from embedpress.autoencoder.network import Tower
from embedpress.autoencoder.record import nested_recall
from embedpress.autoencoder.reranker import Reranker
from embedpress.index.candidates import candidate_scores, of_both
from embedpress.index.hits import best_first

Floats = NDArray[np.float32]

LARGEST_BASE = 20_000
MOST_QUERIES = 2_000
FEWEST_QUERIES = 10
"""Held-out queries below which none are held out: their recall would say nothing."""
FIRST_HITS = 100
"""Hits that a reranker is judged by: as many as a search for twenty gives it."""


class Validation:
    """Held-out queries against a fixed base, by the embeddings' own neighbours.

    Parameters
    ----------
    base : ndarray of shape (n, d), float32
        At unit scale.
    queries : ndarray of shape (m, d), float32
        None of them in `base`.
    metric : {"cosine", "ip", "l2"}
    k : int
        Neighbours that count.
    corrupted : ndarray of shape (m, d), float32, optional
        The queries with noise, where training is to denoise.
    """

    def __init__(
        self,
        base: Floats,
        queries: Floats,
        *,
        metric: str,
        k: int = 10,
        corrupted: Floats | None = None,
    ) -> None:
        self.base, self.queries, self.corrupted = base, queries, corrupted
        self.k = min(k, len(base))
        self.metric = metric
        self.kind = faiss.METRIC_L2 if metric == "l2" else faiss.METRIC_INNER_PRODUCT
        self.truth = faiss.knn(queries, base, self.k, metric=self.kind)[1]

    def recall(self, tower: Tower, device: torch.device) -> float:
        """recall@k of the tower's search: queries not quantized, documents as stored."""
        return self._recall(
            encode_queries(tower, self.queries, device), stored_latents(tower, self.base, device)
        )

    def recalls(self, tower: Tower, device: torch.device) -> dict[str, float]:
        """`recall`, and with corrupted queries `noisy_recall`: of the same true neighbours.

        For each nested size the recall of so many floats, as ``recall_32``.
        """
        queries = encode_queries(tower, self.queries, device)
        stored = stored_latents(tower, self.base, device)
        found = {"recall": self._recall(queries, stored)}
        for size in tower.nested_sizes:
            found[nested_recall(size)] = self._recall(queries[:, :size], stored[:, :size])
        if self.corrupted is not None:
            noisy = encode_queries(tower, self.corrupted, device)
            found["noisy_recall"] = self._recall(noisy, stored)
        return found

    def reranked(self, tower: Tower, reranker: Reranker, device: torch.device) -> dict[str, float]:
        """`recall` after the first hits of the tower's search were reordered.

        With corrupted queries `noisy_recall` too.
        """
        stored = stored_latents(tower, self.base, device)
        reranker.eval()
        documents = _in_blocks(reranker.documents, stored, device)

        def recall(asked: Floats) -> float:
            queries = encode_queries(tower, asked, device)
            count = min(FIRST_HITS, len(stored))
            scanned, first = faiss.knn(queries, stored, count, metric=self.kind)
            again = _in_blocks(reranker.queries, asked, device)
            l2 = self.metric == "l2"
            reranked = candidate_scores(again, first, documents.__getitem__, l2=l2)
            order = best_first(of_both(scanned, reranked), self.metric)[:, : self.k]
            return self._hit(np.take_along_axis(first, order, 1))

        found = {"recall": recall(self.queries)}
        if self.corrupted is not None:
            found["noisy_recall"] = recall(self.corrupted)
        return found

    def _recall(self, queries: Floats, stored: Floats) -> float:
        queries, stored = np.ascontiguousarray(queries), np.ascontiguousarray(stored)
        return self._hit(faiss.knn(queries, stored, self.k, metric=self.kind)[1])

    def _hit(self, found: NDArray[np.int64]) -> float:
        hits = [len(np.intersect1d(f, t)) for f, t in zip(found, self.truth, strict=True)]
        return float(np.sum(hits) / self.truth.size)


def stored_latents(tower: Tower, x: Floats, device: torch.device, rows: int = 4096) -> Floats:
    """Latents of documents at unit scale as a search sees them: quantized where the tower does."""
    tower.eval()

    def stored(block: Tensor) -> Tensor:
        z: Tensor = tower.encoder(block)
        return z if tower.quantizer is None else tower.quantizer.lookup(tower.quantizer.assign(z))

    return _in_blocks(stored, x, device, rows)


def encode_queries(tower: Tower, x: Floats, device: torch.device, rows: int = 4096) -> Floats:
    """Query latents of embeddings at unit scale."""
    tower.eval()
    return _in_blocks(tower.query_encoder, x, device, rows)


def _in_blocks(
    function: Callable[[Tensor], Tensor], x: Floats, device: torch.device, rows: int = 4096
) -> Floats:
    with torch.inference_mode():
        blocks = [
            function(torch.from_numpy(x[i : i + rows]).to(device)).cpu().numpy()
            for i in range(0, len(x), rows)
        ]
    return np.ascontiguousarray(np.concatenate(blocks))


@dataclass(frozen=True)
class Holdout:
    """How many queries are held out, and what is done to them.

    Parameters
    ----------
    fraction : float
        Share of the vectors that may ask.
    metric : {"cosine", "ip", "l2"}
    noise, mask : float
        See :func:`~embedpress.autoencoder.augment.corrupted`.
    seed : int
    """

    fraction: float
    metric: str
    noise: float
    mask: float
    seed: int

    def count(self, n: int) -> int:
        """How many of `n` vectors are held out as queries; 0 where they would be too few."""
        queries = min(int(n * self.fraction), MOST_QUERIES)
        return queries if queries >= FEWEST_QUERIES else 0

    def split(
        self, unit: Floats, asking: Floats | None = None
    ) -> tuple[Floats, Floats | None, Validation | None]:
        """Cut what is there into what is trained on and what is held out.

        Parameters
        ----------
        unit : ndarray of shape (n, d), float32
            Vectors at unit scale.
        asking : ndarray of shape (m, d), float32, optional
            Sample queries at unit scale: some of these are held out then, and no vectors.

        Returns
        -------
        vectors : ndarray
            To train on.
        sample queries : ndarray or None
            To train on.
        validation : Validation or None
            None where there are too few vectors to hold any out.
        """
        source = unit if asking is None else asking
        held_out = self.count(len(source))
        if not held_out:
            return unit, asking, None
        order = np.random.default_rng(self.seed + 1).permutation(len(source))
        # Drawn, not the first ones: files are often sorted by what their rows show.
        kept = np.ascontiguousarray(source[np.sort(order[held_out:])])
        if asking is None:
            unit, drawn = kept, order[held_out : held_out + LARGEST_BASE]
            base = source[np.sort(drawn)]
        else:
            asking = kept
            drawn = np.random.default_rng(self.seed + 2).permutation(len(unit))[:LARGEST_BASE]
            base = unit[np.sort(drawn)]
        queries = source[order[:held_out]]
        return (
            unit,
            asking,
            Validation(base, queries, metric=self.metric, corrupted=self._corrupted(queries)),
        )

    def _corrupted(self, queries: Floats) -> Floats | None:
        if not self.noise and not self.mask:
            return None
        generator = torch.Generator().manual_seed(self.seed)
        noisy = corrupted(torch.from_numpy(queries), self.noise, self.mask, self.metric, generator)
        return np.ascontiguousarray(noisy.numpy())
