"""Threads: how many this process may use, and how a call sets them for itself alone."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from embedpress.errors import UsageError

Item = TypeVar("Item")
Result = TypeVar("Result")

_QUOTA = Path("/sys/fs/cgroup/cpu.max")


def available_threads() -> int:
    """Processors this process may use, by its affinity and the control group's quota."""
    if hasattr(os, "sched_getaffinity"):
        allowed = len(os.sched_getaffinity(0))
    else:
        allowed = os.cpu_count() or 1
    try:
        quota, period = _QUOTA.read_text().split()
        if quota != "max":
            allowed = min(allowed, max(1, int(quota) // int(period)))
    except (OSError, ValueError):
        pass
    return allowed


def check_threads(num_threads: int | None) -> int:
    """`num_threads`, or all that are available where None.

    Raises
    ------
    UsageError
        Below 1.
    """
    if num_threads is None:
        return available_threads()
    if num_threads < 1:
        raise UsageError(f"num_threads={num_threads} must be 1 or more")
    return num_threads


@contextmanager
def faiss_threads(num_threads: int | None) -> Iterator[None]:
    """Run a block with `num_threads` FAISS threads, and put the setting back.

    Parameters
    ----------
    num_threads : int or None
        None leaves FAISS's setting as it is.

    Raises
    ------
    UsageError
        Below 1.
    """
    if num_threads is None:
        yield
        return
    import faiss

    wanted = check_threads(num_threads)
    before = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(wanted)
    try:
        yield
    finally:
        faiss.omp_set_num_threads(before)


def side_by_side(
    work: Callable[[Item], Result], items: Iterable[Item], num_threads: int
) -> Iterator[Result]:
    """Results in the order of the items, `num_threads` of them in work at a time.

    Batches side by side, each in one thread, keep processors busier than all of them at one
    batch, where every one of a hundred small steps waits for the slowest. What is under way when
    the iterator is left ends first; what only waits is not begun.
    """
    waiting: deque[Future[Result]] = deque()
    pool = ThreadPoolExecutor(num_threads, "work")
    try:
        for item in items:
            waiting.append(pool.submit(work, item))
            if len(waiting) > num_threads:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)
