"""What is read ahead and written behind comes in order, and ends when either end does."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest

from embedpress.engine.ahead import read_ahead, write_behind


def numbers(n: int, made: list[int], error: BaseException | None = None) -> Iterator[int]:
    for i in range(n):
        made.append(i)
        yield i
    if error is not None:
        raise error


@pytest.fixture(autouse=True)
def _no_thread_is_left() -> Iterator[None]:
    before = threading.active_count()
    yield
    assert threading.active_count() == before


def test_items_come_in_order_and_not_too_far_ahead() -> None:
    made: list[int] = []
    ahead = []
    for item in read_ahead(numbers(20, made), 2):
        time.sleep(0.002)
        ahead.append(len(made) - item)
        assert made[: item + 1] == list(range(item + 1))
    # One is in hand, two wait, one is being put.
    assert max(ahead) <= 4
    assert made == list(range(20))


@pytest.mark.parametrize("error", [ValueError("x"), KeyboardInterrupt(), MemoryError()])
def test_what_the_reader_raises_comes_after_what_it_gave(error: BaseException) -> None:
    found: list[int] = []
    with pytest.raises(type(error)):
        found.extend(read_ahead(numbers(5, [], error), 2))
    assert found == list(range(5))


def test_a_reader_that_is_left_stops() -> None:
    made: list[int] = []
    items = read_ahead(numbers(10**6, made), 2)
    assert next(items) == 0
    items.close()
    assert len(made) < 10


def test_what_is_handed_over_is_consumed_in_order() -> None:
    found: list[int] = []
    with write_behind(found.extend, 2) as hand:
        for i in range(50):
            hand(i)
    assert found == list(range(50))


@pytest.mark.parametrize("at", [0, 3])
def test_a_consumer_that_fails_stops_the_giver(at: int) -> None:
    given: list[int] = []

    def consume(items: Iterator[int]) -> None:
        for i in items:
            if i == at:
                raise OSError("full")

    def give() -> None:
        with write_behind(consume, 2) as hand:
            for i in range(10**6):
                hand(i)
                given.append(i)

    with pytest.raises(OSError, match="full"):
        give()
    assert len(given) < at + 10


def test_a_giver_that_fails_lets_the_consumer_take_what_was_given() -> None:
    found: list[int] = []
    finished: list[bool] = []

    def consume(items: Iterator[int]) -> None:
        for i in items:
            time.sleep(0.005)
            found.append(i)
        finished.append(True)

    def give() -> None:
        with write_behind(consume, 4) as hand:
            for i in range(4):
                hand(i)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        give()
    assert found == list(range(4))
    # Its items did not end: they were given up.
    assert finished == []
