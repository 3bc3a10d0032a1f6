"""Two ends of a line of work: what is read ahead of it, and what is written behind it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from queue import Full, Queue
from typing import Any, TypeVar

T = TypeVar("T")
_END = object()
_WAIT = 0.1


class _GivenUpError(Exception):
    """The one who handed the items over stopped in the middle."""


def read_ahead(items: Iterator[T], depth: int) -> Generator[T, None, None]:
    """Yield the items of an iterator that runs in a thread of its own, `depth` items ahead.

    What the iterator raises is raised here, after the items before it. When this one is closed,
    the thread ends with the item at hand.
    """
    queue: Queue[Any] = Queue(depth)
    left = threading.Event()
    failure: list[BaseException] = []

    def run() -> None:
        try:
            for item in items:
                if not _put(queue, item, left):
                    return
        except BaseException as error:
            failure.append(error)
        _put(queue, _END, left)

    thread = threading.Thread(target=run, name="read-ahead", daemon=True)
    thread.start()
    try:
        while (item := queue.get()) is not _END:
            yield item
        if failure:
            raise failure[0]
    finally:
        left.set()
        thread.join()


@contextmanager
def write_behind(
    consume: Callable[[Iterator[T]], None], depth: int
) -> Iterator[Callable[[T], None]]:
    """Yield a function that hands items to `consume`, which runs in a thread of its own.

    At most `depth` items wait. What `consume` raises is raised by the next call or at the end
    of the block. When the block raises, `consume` is let go on to the last item handed over,
    where its iterator raises.
    """
    queue: Queue[Any] = Queue(depth)
    over = threading.Event()
    failure: list[BaseException] = []
    given_up = False

    def items() -> Iterator[T]:
        while (item := queue.get()) is not _END:
            yield item
        if given_up:
            raise _GivenUpError

    def run() -> None:
        try:
            consume(items())
        except _GivenUpError:
            pass
        except BaseException as error:
            failure.append(error)
        over.set()

    def hand(item: T) -> None:
        if not _put(queue, item, over):
            raise failure[0]

    thread = threading.Thread(target=run, name="write-behind", daemon=True)
    thread.start()
    try:
        yield hand
    except BaseException:
        given_up = True
        raise
    finally:
        _put(queue, _END, over)
        thread.join()
    if failure:
        raise failure[0]


def _put(queue: Queue[Any], item: object, unwanted: threading.Event) -> bool:
    """Put an item, unless nobody will take it any more."""
    while not unwanted.is_set():
        try:
            queue.put(item, timeout=_WAIT)
        except Full:
            continue
        return True
    return False
