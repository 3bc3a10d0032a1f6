"""A second look at the first hits: a network that reads their codes together, not byte by byte."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from embedpress.autoencoder.network import ResidualMap

WEIGHT_DECAY = 0.6
"""Of the documents' network: without it, what it gains on vectors trained on, others lose."""


class Reranker(nn.Module):
    """Two networks whose inner product, with the scan's own score, orders the first hits of codes.

    A scan scores a code as a sum of one table entry a byte. Here the codewords' sum passes
    a network of its own first, so that a byte can mean different things beside others, and costs
    no byte more. At the start it changes nothing: the documents' network is the identity and the
    queries' one that of the tower. After Huijben et al., "Residual Quantization with Implicit
    Neural Codebooks" (2024), whose decoder is conditional too, but learnt here from neighbours
    instead of from reconstruction.

    Parameters
    ----------
    documents : ResidualMap
        From sums of codewords to vectors of the same width.
    queries : ResidualMap
        From embeddings at unit scale to that width.
    """

    def __init__(self, documents: ResidualMap, queries: ResidualMap) -> None:
        super().__init__()
        self.documents = documents
        self.queries = queries
        # The temperature of the scores is learnt, as a tower's.
        self.log_scale = nn.Parameter(torch.zeros(()))

    def parameter_groups(self, rate: float, weight_decay: float) -> list[dict[str, Any]]:
        """Parameters with their learning rates: what is already good moves slowly."""
        slow = [*self.documents.linear.parameters(), *self.queries.parameters()]
        groups: list[dict[str, Any]] = [
            {
                "params": [*self.documents.mlp.parameters()],
                "lr": rate,
                "weight_decay": max(weight_decay, WEIGHT_DECAY),
            },
            {"params": slow, "lr": rate / 10, "weight_decay": 0.0},
            {"params": [self.log_scale], "lr": rate, "weight_decay": 0.0},
        ]
        return [group for group in groups if group["params"]]
