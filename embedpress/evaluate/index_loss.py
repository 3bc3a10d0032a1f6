"""What a real index loses beyond compression: its hits beside a scan of everything it holds."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Protocol

from embedpress.evaluate.exact import Floats, Ids
from embedpress.evaluate.metrics import mean_with_ci, recall_at_k
from embedpress.evaluate.result import IndexLoss, IndexPoint
from embedpress.evaluate.task import Form, Task


class IndexSearch(Protocol):
    """An index over the rows of a base.

    Attributes
    ----------
    form : {"codes", "latents"}
    factory : str
        FAISS's name of it.
    nprobe : int or None
        Inverted lists visited by default; None where there are none.
    n_lists : int
    reranks : str or None
        What reorders its first hits by default.
    """

    form: str
    factory: str
    nprobe: int | None
    n_lists: int
    reranks: str | None

    def search(self, queries: Floats, k: int, *, nprobe: int | None, rerank: bool) -> Ids:
        """Base rows of the first `k` hits, -1 where there are fewer."""


def index_loss(task: Task, index: IndexSearch, form: Form) -> IndexLoss:
    """Search an index as it is by default, and with fewer and more inverted lists.

    Parameters
    ----------
    task : Task
    index : IndexSearch
    form : Form
        What a scan of everything found, the codes or latents that the index holds.

    Returns
    -------
    IndexLoss
    """
    points = []
    for nprobe in _probes(index):
        for rerank in (False, True) if index.reranks else (False,):
            if rerank and nprobe != index.nprobe:
                continue
            started = time.perf_counter()
            found = index.search(task.queries, task.k, nprobe=nprobe, rerank=rerank)
            seconds = time.perf_counter() - started
            recall = recall_at_k(found, task.truth)
            default = nprobe == index.nprobe and rerank == bool(index.reranks)
            name = "all of it" if nprobe is None else f"nprobe {nprobe}"
            points.append(
                IndexPoint(
                    f"{name}, {index.reranks}" if rerank else name,
                    nprobe,
                    rerank,
                    default,
                    *mean_with_ci(recall, seed=task.seed),
                    *mean_with_ci(recall - form.per_query, seed=task.seed),
                    microseconds=1e6 * seconds / len(task.queries),
                )
            )
    return IndexLoss(index.form, index.factory, form.row.recall, points)


def _probes(index: IndexSearch) -> Sequence[int | None]:
    if index.nprobe is None:
        return (None,)
    halved = (index.nprobe // 4, index.nprobe // 2, index.nprobe)
    wanted = {1, *halved, 2 * index.nprobe, 4 * index.nprobe}
    return [n for n in sorted(wanted) if 1 <= n <= index.n_lists]
