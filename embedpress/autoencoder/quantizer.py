"""Quantization of a latent to bytes: learnt codebooks, product and residual."""

from __future__ import annotations

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

CODEBOOK_SIZE = 256
"""Codewords in a codebook: one byte names one."""


class AdditiveQuantizer(nn.Module):
    """Codebooks in `stages` residual rounds over `groups` slices of the latent.

    One stage is product quantization (Jégou et al., 2011), one group is residual
    quantization (Chen et al., "Approximate nearest neighbor search by residual vector
    quantization", 2010), and both together a product-residual quantizer. Byte
    ``m = stage * groups + group`` of a code names a codeword of that stage and group, and a
    vector is the sum of its codewords, each in the slice of its group. An inner product with
    a query is therefore a sum of `code_size` table entries: FAISS's ``IndexPQ`` scan.

    Parameters
    ----------
    codebooks : Tensor of shape (stages, groups, 256, slice), float32
    """

    def __init__(self, codebooks: Tensor) -> None:
        super().__init__()
        self.codebooks = nn.Parameter(codebooks.clone())

    @property
    def code_size(self) -> int:
        """Bytes a vector."""
        return self.codebooks.shape[0] * self.codebooks.shape[1]

    def assign(self, z: Tensor) -> Tensor:
        """Greedy nearest codewords, stage after stage.

        Parameters
        ----------
        z : Tensor of shape (n, groups * slice), float32

        Returns
        -------
        Tensor of shape (n, code_size), int64
        """
        stages, groups, _, width = self.codebooks.shape
        residual = z.reshape(-1, groups, width).transpose(0, 1)
        chosen = []
        for stage in range(stages):
            book = self.codebooks[stage]
            # argmax of <r, c> - |c|^2 / 2 is argmin of |r - c|^2, with half the arithmetic.
            half_norms = book.square().sum(-1).unsqueeze(1) / 2
            scores = torch.baddbmm(-half_norms, residual, book.transpose(1, 2))
            # max is twice as fast as argmax.
            index = scores.max(-1).indices
            chosen.append(index.transpose(0, 1))
            if stage + 1 < stages:
                residual = residual - _rows_of(book, index)
        return torch.cat(chosen, dim=1)

    def lookup(self, codes: Tensor) -> Tensor:
        """Sum of the codewords that `codes` name.

        Parameters
        ----------
        codes : Tensor of shape (n, code_size), int64

        Returns
        -------
        Tensor of shape (n, groups * slice), float32
        """
        stages, groups, size, width = self.codebooks.shape
        table = self.codebooks.reshape(stages * groups * size, width)
        offsets = torch.arange(stages * groups, device=codes.device) * size
        words = F.embedding(codes + offsets, table)
        return words.reshape(-1, stages, groups, width).sum(1).reshape(-1, groups * width)

    def straight_through(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """Quantize so that gradients reach both the codewords and the encoder.

        The gradient of the quantized latent is handed to `z` unchanged (Bengio et al.,
        "Estimating or Propagating Gradients Through Stochastic Neurons", 2013) and to the
        chosen codewords.

        Returns
        -------
        quantized : Tensor of shape (n, groups * slice), float32
        commitment : Tensor, float32 scalar
            Mean squared distance that pulls latents and codewords towards each other (van
            den Oord et al., "Neural Discrete Representation Learning", 2017).
        """
        with torch.no_grad():
            codes = self.assign(z)
        words = self.lookup(codes)
        commitment = (z - words).square().sum(-1).mean()
        return words + (z - z.detach()), commitment

    def expand_queries(self, q: Tensor) -> Tensor:
        """Lay a query out once a stage, to be scored against the codebooks as one PQ.

        Parameters
        ----------
        q : Tensor of shape (n, groups * slice), float32

        Returns
        -------
        Tensor of shape (n, code_size * slice), float32
        """
        return q.repeat(1, self.codebooks.shape[0])


def _rows_of(book: Tensor, index: Tensor) -> Tensor:
    """Codewords (groups, n, slice) of `book` (groups, 256, slice) named by (groups, n)."""
    groups, size, width = book.shape
    offsets = (torch.arange(groups, device=index.device) * size).unsqueeze(1)
    return F.embedding(index + offsets, book.reshape(groups * size, width))
