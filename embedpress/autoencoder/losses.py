"""What training minimises: the neighbours' order first, the reconstruction beside it."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def similarity(queries: Tensor, documents: Tensor, metric: str) -> Tensor:
    """Scores of every query against every document, larger is nearer.

    Parameters
    ----------
    queries : Tensor of shape (n_queries, d)
    documents : Tensor of shape (n_documents, d)
    metric : {"cosine", "ip", "l2"}
        "cosine" takes vectors of norm 1. For "l2" the query's own norm is left out: it
        is the same for every document.

    Returns
    -------
    Tensor of shape (n_queries, n_documents)
    """
    scores = queries @ documents.T
    if metric == "l2":
        scores = scores - documents.square().sum(-1) / 2
    return scores


PERPLEXITY = 30.0
"""Neighbours that count for every anchor, where no temperature is given."""
_NEAREST, _HALVINGS = 128, 16
_LEAST, _MOST = -2.0, 10.0


@torch.no_grad()
def perplexity_scales(scores: Tensor, own: Tensor, perplexity: float = PERPLEXITY) -> Tensor:
    """Inverse temperatures at which each anchor has about as many neighbours that count.

    One temperature gives an anchor in a dense place hundreds of them and a lonely one none.
    Found by bisection as in van der Maaten and Hinton, "Visualizing Data using t-SNE" (2008),
    over the 128 highest scores.

    Parameters
    ----------
    scores : Tensor of shape (n_anchors, n_documents)
    own : Tensor of shape (n_anchors, n_documents), bool
        What is left out.
    perplexity : float
        The exponential of the distribution's entropy; at most a third of the documents.

    Returns
    -------
    Tensor of shape (n_anchors, 1)
    """
    lowest = torch.finfo(scores.dtype).min / 4
    near = scores.masked_fill(own, lowest).topk(min(_NEAREST, scores.shape[1]), dim=1).values
    near = near - near[:, :1]
    wanted = math.log(max(1.0, min(perplexity, (near.shape[1] - 1) / 3)))
    low = torch.full_like(near[:, :1], _LEAST)
    high = torch.full_like(low, _MOST)
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        logs = (near * middle.exp()).log_softmax(dim=1)
        entropy = -(logs.exp() * logs.clamp(min=lowest)).sum(dim=1, keepdim=True)
        broad = entropy > wanted
        low, high = torch.where(broad, middle, low), torch.where(broad, high, middle)
    return ((low + high) / 2).exp()


def neighbor_distillation(teacher: Tensor, student: Tensor, own: Tensor) -> Tensor:
    """Kullback-Leibler divergence of the student's neighbour distribution from the teacher's.

    Stochastic neighbours as in Hinton and Roweis, "Stochastic Neighbor Embedding" (2002),
    used as in listwise distillation (Cao et al., "Learning to Rank", 2007).

    Parameters
    ----------
    teacher, student : Tensor of shape (n_anchors, n_documents)
        Scores already divided by the temperature.
    own : Tensor of shape (n_anchors, n_documents), bool
        Where the document is the anchor itself: left out of both distributions.

    Returns
    -------
    Tensor, float32 scalar
    """
    lowest = torch.finfo(teacher.dtype).min / 4
    wanted = teacher.masked_fill(own, lowest).log_softmax(-1)
    given = student.masked_fill(own, lowest).log_softmax(-1)
    return (wanted.exp() * (wanted - given)).sum(-1).mean()


def reconstruction(x: Tensor, restored: Tensor) -> Tensor:
    """Mean squared error, summed over dimensions: the share of unit-scale energy lost."""
    return (x - restored).square().sum(-1).mean()
