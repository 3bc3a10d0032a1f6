"""What every step of an evaluation needs, and what is found with one form."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from embedpress.evaluate.exact import Floats, Ids
from embedpress.evaluate.metrics import PerQuery, mean_with_ci, recall_at_k
from embedpress.evaluate.result import RecallAt, RecallRow


@dataclass(frozen=True)
class Task:
    """The base, the queries and the truth.

    Attributes
    ----------
    base, queries : ndarray, shape (n, d) and (nq, d), float32
    deep_truth : ndarray, shape (nq, deepest), int64
        Exact neighbours, nearest first.
    k : int
        How many of them count where nothing else is said.
    depths : tuple of int
    """

    base: Floats
    queries: Floats
    deep_truth: Ids
    k: int
    depths: tuple[int, ...]
    metric: str
    seed: int
    num_threads: int | None
    progress: Callable[[str], None]

    @property
    def truth(self) -> Ids:
        """The first `k` neighbours."""
        return self.deep_truth[:, : self.k]

    @property
    def deepest(self) -> int:
        """Hits that a search must give for all depths."""
        return int(self.deep_truth.shape[1])

    def at_depths(self, name: str, size: int, found: Ids) -> list[RecallAt]:
        """Recall of the first 1, 10, 100 of what a search found."""
        return [
            RecallAt(
                name,
                size,
                depth,
                *mean_with_ci(recall_at_k(found, self.deep_truth[:, :depth]), seed=self.seed),
            )
            for depth in self.depths
        ]


@dataclass(frozen=True)
class Form:
    """One form of the base and what was found with it."""

    row: RecallRow
    found: Ids
    per_query: PerQuery
