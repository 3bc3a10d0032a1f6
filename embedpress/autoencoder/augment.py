"""What is done to training vectors: mixing with neighbours, noise, dropped entries."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor


def mixed(x: Tensor, partners: Tensor, mixup: float, metric: str) -> Tensor:
    """New vectors on the lines through near ones, so that the same few are not learnt by heart.

    mixup (Zhang et al., "mixup: Beyond Empirical Risk Minimization", 2018) among neighbours,
    as SMOTE (Chawla et al., 2002) draws its samples, but to both sides of `x`: steps inwards
    alone would shrink the data.

    Parameters
    ----------
    x, partners : Tensor of shape (n, d)
    mixup : float
        Standard deviation of the step, in distances to the partner.
    metric : {"cosine", "ip", "l2"}
        Under "cosine" the new vectors have norm 1.

    Returns
    -------
    Tensor of shape (n, d)
    """
    if not mixup:
        return x
    y = x + mixup * torch.randn(len(x), 1).to(x.device) * (partners - x)
    return F.normalize(y, dim=-1) if metric == "cosine" else y


def corrupted(
    x: Tensor, noise: float, mask: float, metric: str, generator: torch.Generator | None = None
) -> Tensor:
    """Vectors with noise and dropped entries, each at a strength of its own.

    Queries are corrupted so while the documents and the targets stay clean: denoising, after
    Vincent et al., "Extracting and Composing Robust Features with Denoising Autoencoders"
    (2008). Strengths from nothing to the most keep clean queries among those trained on.

    Parameters
    ----------
    x : Tensor of shape (n, d)
    noise : float
        The most Gaussian noise, in norms of the vector.
    mask : float
        The largest share of entries that are set to zero.
    metric : {"cosine", "ip", "l2"}
        Under "cosine" the vectors get norm 1 again.
    generator : torch.Generator, optional
        torch's own by default.

    Returns
    -------
    Tensor of shape (n, d)
    """
    if not noise and not mask:
        return x

    def uniform(*shape: int) -> Tensor:
        return torch.rand(*shape, generator=generator).to(x.device)

    if noise:
        size = x.norm(dim=-1, keepdim=True) * (noise / math.sqrt(x.shape[1])) * uniform(len(x), 1)
        x = x + size * torch.randn(x.shape, generator=generator).to(x.device)
    if mask:
        x = x * (uniform(*x.shape) >= mask * uniform(len(x), 1))
    return F.normalize(x, dim=-1) if metric == "cosine" else x
