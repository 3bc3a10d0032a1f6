"""Threads: how many this process may use, and how a call sets them for itself alone."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from queue import SimpleQueue
from threading import Thread
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
    work: Callable[[Item], Result],
    items: Iterable[Item],
    num_threads: int,
    *,
    ahead: int | None = None,
) -> Generator[Result, None, None]:
    """Results in the order of the items, `num_threads` of them in work at a time.

    Batches side by side, each in one thread, keep processors busier than all of them at one
    batch, where every one of a hundred small steps waits for the slowest. What is under way when
    the iterator is left ends first; what only waits is not begun.

    Parameters
    ----------
    work : callable
        Makes a result of an item, in a thread.
    items : iterable
    num_threads : int
    ahead : int, optional
        Items that may be begun before the result of the first of them is asked for; by default
        as many as there are threads.

    Notes
    -----
    Ctrl-C ends it at any instant. The locks of ``concurrent.futures`` are taken in Python, where
    an interrupt can leave one taken for ever; those of ``queue.SimpleQueue`` are not.
    """
    asked: SimpleQueue[tuple[Item, SimpleQueue[Callable[[], Result]]] | None] = SimpleQueue()
    waiting: deque[SimpleQueue[Callable[[], Result]]] = deque()
    threads: list[Thread] = []
    left = False

    def run() -> None:
        while (task := asked.get()) is not None:
            item, answer = task
            if not left:
                answer.put(_attempt(work, item))
        # For the next thread, of which there may be one that an interrupt kept from the list.
        asked.put(None)

    try:
        for item in items:
            waiting.append(SimpleQueue())
            asked.put((item, waiting[-1]))
            if len(threads) < num_threads:
                thread = Thread(target=run, name="work", daemon=True)
                thread.start()
                threads.append(thread)
            if len(waiting) > (num_threads if ahead is None else ahead):
                yield waiting.popleft().get()()
        while waiting:
            yield waiting.popleft().get()()
    finally:
        left = True
        asked.put(None)
        for thread in threads:
            thread.join()


def _attempt(work: Callable[[Item], Result], item: Item) -> Callable[[], Result]:
    """Work now; what is returned gives the result, or raises what the work raised."""
    try:
        result = work(item)
    except BaseException as error:
        failure = error

        def fail() -> Result:
            raise failure

        return fail
    return lambda: result
