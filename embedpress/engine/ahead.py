"""Two ends of a line of work: what is read ahead of it, and what is written behind it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from queue import SimpleQueue
from typing import Any, TypeVar

T = TypeVar("T")
_END = object()


class _GivenUpError(Exception):
    """The one who handed the items over stopped in the middle."""


class _Belt:
    """A queue with room for `depth` items, from one thread to another.

    Ctrl-C leaves it whole at any instant. The locks of ``queue.Queue`` are taken in Python, where
    an interrupt can leave one taken for ever, and the other thread waiting for it; those of
    ``SimpleQueue`` are not, so that two of them are used: one of items, one of free places.
    """

    def __init__(self, depth: int) -> None:
        self._items: SimpleQueue[Any] = SimpleQueue()
        self._places: SimpleQueue[None] = SimpleQueue()
        self._unwanted = False
        for _ in range(depth):
            self._places.put(None)

    def put(self, item: object) -> bool:
        """Put an item as soon as there is room; False if nobody will take it any more."""
        if not self._unwanted:
            self._places.get()
        if self._unwanted:
            return False
        self._items.put(item)
        return True

    def end(self) -> None:
        """Put the end, for which there is always room."""
        self._items.put(_END)

    def take(self) -> Any:
        """Wait for the next item."""
        item = self._items.get()
        self._places.put(None)
        return item

    def leave(self) -> None:
        """Take no more; who waits for room goes on."""
        self._unwanted = True
        self._places.put(None)


def read_ahead(items: Iterator[T], depth: int) -> Generator[T, None, None]:
    """Yield the items of an iterator that runs in a thread of its own, `depth` items ahead.

    What the iterator raises is raised here, after the items before it. When this one is closed,
    the thread ends with the item at hand.
    """
    belt = _Belt(depth)
    failure: list[BaseException] = []

    def run() -> None:
        try:
            for item in items:
                if not belt.put(item):
                    return
        except BaseException as error:
            failure.append(error)
        belt.end()

    thread = threading.Thread(target=run, name="read-ahead", daemon=True)
    thread.start()
    try:
        while (item := belt.take()) is not _END:
            yield item
        if failure:
            raise failure[0]
    finally:
        belt.leave()
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
    belt = _Belt(depth)
    failure: list[BaseException] = []
    given_up = False

    def items() -> Iterator[T]:
        while (item := belt.take()) is not _END:
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
        belt.leave()

    def hand(item: T) -> None:
        if not belt.put(item):
            raise failure[0]

    thread = threading.Thread(target=run, name="write-behind", daemon=True)
    thread.start()
    try:
        yield hand
    except BaseException:
        given_up = True
        raise
    finally:
        belt.end()
        thread.join()
    if failure:
        raise failure[0]
