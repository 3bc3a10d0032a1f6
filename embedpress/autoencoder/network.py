"""The networks of one compressor: linear maps with a residual correction, trained together."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from embedpress.autoencoder.quantizer import AdditiveQuantizer

SHORTEST = 1e-30
"""Norm below which a vector counts as zero: less than that of any that is let in."""


class ResidualMap(nn.Module):
    """``linear(x) + mlp(x)``, where the last layer of the MLP starts at zero.

    At the start the map *is* its linear part (PCA, a rotation), so that training can only
    leave the best linear answer upward. The residual form is He et al., "Identity Mappings
    in Deep Residual Networks" (2016); the zero start is Goyal et al. (2017).

    Parameters
    ----------
    weight : Tensor of shape (d_out, d_in), float32
    bias : Tensor of shape (d_out,), float32
    hidden_sizes : sequence of int
        Widths of the hidden layers; empty for a purely linear map.
    dropout : float
        Dropped share of every hidden layer while training, in [0, 1).
    batch_norm : bool
        Normalise every hidden layer over the batch.
    """

    def __init__(
        self,
        weight: Tensor,
        bias: Tensor,
        *,
        hidden_sizes: Sequence[int] = (),
        dropout: float = 0.0,
        batch_norm: bool = False,
    ) -> None:
        super().__init__()
        d_out, d_in = weight.shape
        self.linear = nn.Linear(d_in, d_out)
        with torch.no_grad():
            self.linear.weight.copy_(weight)
            self.linear.bias.copy_(bias)
        layers: list[nn.Module] = []
        width = d_in
        for hidden in hidden_sizes:
            layers.append(nn.Linear(width, hidden))
            if batch_norm:
                layers.append(nn.BatchNorm1d(hidden))
            layers.append(nn.ReLU())
            if dropout:
                layers.append(nn.Dropout(dropout))
            width = hidden
        if layers:
            last = nn.Linear(width, d_out)
            nn.init.zeros_(last.weight)
            nn.init.zeros_(last.bias)
            layers.append(last)
        self.mlp = nn.Sequential(*layers)
        self.residual = bool(layers)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.linear(x)
        return y + self.mlp(x) if self.residual else y


class InputScale(nn.Module):
    """Bring embeddings to unit scale: each to norm 1 (cosine), else all by one constant."""

    scale: Tensor

    def __init__(self, metric: str, scale: float) -> None:
        super().__init__()
        self.metric = metric
        self.register_buffer("scale", torch.tensor(float(scale)))

    def forward(self, x: Tensor) -> Tensor:
        if self.metric == "cosine":
            return F.normalize(x, dim=-1, eps=SHORTEST)
        return x / self.scale

    def restore(self, y: Tensor) -> Tensor:
        """Undo the constant; a norm that cosine took away does not come back."""
        if self.metric == "cosine":
            return y
        return y * self.scale


class Tower(nn.Module):
    """Encoder, query encoder, decoder and, for codes, a quantizer between them.

    Documents pass the encoder (and the quantizer), queries pass the query encoder and are
    never quantized (asymmetric search: Jégou et al., "Product Quantization for Nearest
    Neighbor Search", 2011). All inputs here are already at unit scale.

    Where sizes are nested, the first so many floats of a latent are a latent too.
    """

    def __init__(
        self,
        encoder: ResidualMap,
        query_encoder: ResidualMap,
        decoder: ResidualMap,
        quantizer: AdditiveQuantizer | None = None,
        nested_sizes: Sequence[int] = (),
    ) -> None:
        super().__init__()
        self.encoder = encoder
        self.query_encoder = query_encoder
        self.decoder = decoder
        self.quantizer = quantizer
        # The temperature of the student's scores is learnt from the teacher's.
        self.log_scale = nn.Parameter(torch.zeros(()))
        self.nested_sizes = tuple(nested_sizes)
        if self.nested_sizes:
            self.nested_log_scales = nn.Parameter(torch.zeros(len(self.nested_sizes)))

    def temperatures(self) -> list[tuple[int, Tensor]]:
        """Sizes of latents that are trained, the whole one first, each with its log scale."""
        nested = self.nested_log_scales if self.nested_sizes else ()
        return [(self.width, self.log_scale), *zip(self.nested_sizes, nested, strict=True)]

    @property
    def width(self) -> int:
        """Dimensions of the latent."""
        return self.encoder.linear.out_features
