"""Towers as training finds them: networks that are the best linear answer."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from embedpress.autoencoder.network import ResidualMap, Tower
from embedpress.autoencoder.quantizer import AdditiveQuantizer
from embedpress.autoencoder.reranker import Reranker
from embedpress.autoencoder.start import principal_axes, residual_codebooks, rotation

Floats = NDArray[np.float32]


HIDDEN_SIZES = {
    "latents": {"encoder": 4096, "query_encoder": 4096, "decoder": 4096},
    # What encodes millions of documents has to be fast, and loses nothing by being small.
    "codes": {"encoder": 512, "query_encoder": 1024, "decoder": 1024},
    "reranker": {"documents": 4096},
}
"""The one hidden layer of each network, where none were given."""


@dataclass(frozen=True)
class TowerBuilder:
    """Towers of one kind of network; see :class:`embedpress.Compressor` for each option."""

    metric: str
    hidden_sizes: Sequence[int] | None
    dropout: float
    batch_norm: bool
    seed: int

    def latents(self, train: Floats, n_components: int, nested_sizes: Sequence[int]) -> Tower:
        """A tower that is PCA of vectors `train` (n, d) at unit scale."""
        axes, mean, _ = principal_axes(train, n_components)
        if self.metric != "l2":
            # The order of inner products is the same without centring, and directions of latents
            # are then those of the embeddings, which spherical k-means divides.
            mean = mean - axes.T @ (axes @ mean)
        return self._tower("latents", axes, mean, None, nested_sizes)

    def codes(self, train: Floats, code_size: int, groups: int) -> Tower:
        """A tower that is a balanced rotation of `train` (n, d) with k-means codebooks."""
        width = min(train.shape[1], max(512, groups)) // groups * groups
        axes, mean = rotation(train, width, groups)
        z = np.ascontiguousarray((train - mean) @ axes.T)
        books = residual_codebooks(z, code_size // groups, groups, seed=self.seed)
        # Every size starts as it would alone, so that one that is found is as good as given.
        with torch.random.fork_rng(devices=[]):
            return self._tower("codes", axes, mean, AdditiveQuantizer(torch.from_numpy(books)))

    def reranker(self, codes: Tower) -> Reranker:
        """A reranker that leaves the order of a scan as it is."""
        width = codes.width
        with torch.random.fork_rng(devices=[]):
            documents = self._map("reranker", "documents", torch.eye(width), torch.zeros(width))
        reranker = Reranker(documents, copy.deepcopy(codes.query_encoder))
        with torch.no_grad():
            reranker.log_scale.copy_(codes.log_scale)
        return reranker

    def _tower(
        self,
        name: str,
        axes: Floats,
        mean: Floats,
        quantizer: AdditiveQuantizer | None,
        nested_sizes: Sequence[int] = (),
    ) -> Tower:
        weight, centre = torch.from_numpy(axes), torch.from_numpy(mean)
        shift = -(weight @ centre)
        # An inner product with a query needs the query uncentred, a distance centred alike.
        query_shift = shift if self.metric == "l2" else torch.zeros_like(shift)
        return Tower(
            self._map(name, "encoder", weight, shift),
            self._map(name, "query_encoder", weight, query_shift),
            self._map(name, "decoder", weight.T, centre),
            quantizer,
            nested_sizes,
        )

    def _map(self, name: str, part: str, weight: torch.Tensor, bias: torch.Tensor) -> ResidualMap:
        given = self.hidden_sizes
        return ResidualMap(
            weight,
            bias,
            hidden_sizes=(HIDDEN_SIZES[name][part],) if given is None else given,
            dropout=self.dropout,
            batch_norm=self.batch_norm,
        )
