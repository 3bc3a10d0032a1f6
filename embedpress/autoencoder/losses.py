"""What training minimises: the neighbours' order first, the reconstruction beside it."""

from __future__ import annotations

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
