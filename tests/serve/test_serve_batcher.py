from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

import pytest

from embedpress.serve.batcher import Batcher, pieces
from embedpress.serve.metrics import Metrics
from embedpress.serve.refusal import RequestError
from embedpress.serve.settings import Settings


def settings(**options: Any) -> Settings:
    return Settings(index="index", model="model", max_inputs=8, **options)


def batcher(
    work: Callable[[list[Any]], Sequence[Any]], max_rows: int = 8, **options: Any
) -> Batcher[Any, Any]:
    return Batcher("text", work, max_rows, settings(**{"max_queue": 64, **options}), Metrics())


def run(main: Coroutine[Any, Any, Any]) -> Any:
    return asyncio.run(main)


def test_what_comes_together_runs_together_and_each_gets_its_own() -> None:
    sizes, threads = [], set()

    def work(parts: list[int]) -> list[int]:
        sizes.append(len(parts))
        threads.add(threading.current_thread())
        time.sleep(0.01)
        return [part * 10 for part in parts]

    async def main() -> list[int]:
        one = batcher(work)
        found = await asyncio.gather(*(one.run(i, 1) for i in range(20)))
        one.close()
        return found

    assert run(main()) == [10 * i for i in range(20)]
    assert sum(sizes) == 20
    assert max(sizes) == 8
    assert len(threads) == 1
    assert threading.main_thread() not in threads


def test_the_event_loop_goes_on_while_a_batch_runs() -> None:
    async def main() -> int:
        one = batcher(lambda parts: [time.sleep(0.2) for _ in parts])
        task = asyncio.create_task(one.run(0, 1))
        ticks = 0
        while not task.done():
            await asyncio.sleep(0.01)
            ticks += 1
        one.close()
        return ticks

    assert run(main()) > 5


def test_parts_larger_than_a_batch_and_no_more_rows_than_fit() -> None:
    batches = []

    def work(parts: list[int]) -> list[int]:
        batches.append(parts)
        return parts

    async def main() -> None:
        one = batcher(work)
        await asyncio.gather(*(one.run(rows, rows) for rows in (1, 20, 3, 3, 3)))
        one.close()

    run(main())
    assert batches[0] == [1]
    assert [20] in batches
    assert [3, 3] in batches
    assert all(sum(batch) <= 8 or len(batch) == 1 for batch in batches)


def test_a_lone_client_never_waits_and_a_crowd_does() -> None:
    async def main() -> tuple[float, list[int]]:
        sizes: list[int] = []

        def work(parts: list[int]) -> list[int]:
            sizes.append(len(parts))
            return parts

        one = batcher(work, max_wait=300.0)
        started = time.perf_counter()
        for _ in range(3):
            await one.run(0, 1)
        alone = time.perf_counter() - started
        await asyncio.gather(one.run(0, 1), one.run(1, 1), one.run(2, 1))
        await asyncio.gather(one.run(0, 1), later(one, 0.05))
        one.close()
        return alone, sizes

    async def later(one: Batcher[Any, Any], seconds: float) -> None:
        await asyncio.sleep(seconds)
        await one.run(1, 1)

    alone, sizes = run(main())
    assert alone < 0.3
    assert sizes == [1, 1, 1, 3, 2]


def test_a_full_batch_does_not_wait_for_the_clock() -> None:
    async def main() -> float:
        one = batcher(lambda parts: parts, max_wait=60_000.0)
        await asyncio.gather(*(one.run(i, 1) for i in range(8)))
        started = time.perf_counter()
        await asyncio.gather(*(one.run(i, 1) for i in range(8)))
        one.close()
        return time.perf_counter() - started

    assert run(main()) < 5


def test_one_that_fails_does_not_spoil_the_others() -> None:
    def work(parts: list[int]) -> list[int]:
        if 13 in parts:
            raise ValueError("unlucky")
        return parts

    async def main() -> list[Any]:
        one = batcher(work, max_rows=32)
        found = await asyncio.gather(
            *(one.run(i, 1) for i in range(10, 16)), return_exceptions=True
        )
        one.close()
        return found

    found = run(main())
    assert [i for i in found if isinstance(i, int)] == [10, 11, 12, 14, 15]
    assert isinstance(found[3], ValueError)


def test_a_client_that_goes_away_leaves_the_others_theirs() -> None:
    async def main() -> list[Any]:
        one = batcher(lambda parts: [time.sleep(0.05) or part for part in parts])
        tasks = [asyncio.create_task(one.run(i, 1)) for i in range(4)]
        await asyncio.sleep(0.01)
        tasks[1].cancel()
        found = await asyncio.gather(*tasks, return_exceptions=True)
        again = await one.run(9, 1)
        one.close()
        return [*found, again]

    found = run(main())
    assert isinstance(found[1], asyncio.CancelledError)
    assert [found[0], *found[2:]] == [0, 2, 3, 9]


def test_a_full_queue_refuses_and_says_when_to_come_again() -> None:
    async def main() -> None:
        one = batcher(lambda parts: [time.sleep(0.3) or part for part in parts], max_queue=10)
        with one.admit(6):
            with pytest.raises(RequestError, match="6 of 10") as error, one.admit(5):
                pass
            assert (error.value.status, error.value.retry_after) == (429, 1)
            with one.admit(4):
                await one.run(1, 4)
        for _ in range(20):  # it learns how long a row takes
            one._seconds_a_row += 0.1 * (0.3 - one._seconds_a_row)
        with one.admit(10):
            with pytest.raises(RequestError) as error, one.admit(1):
                pass
            assert 2 <= error.value.retry_after <= 3
        with one.admit(10):
            pass
        one.close()

    run(main())


def test_pieces_are_slices() -> None:
    assert list(pieces(list(range(7)), 3)) == [[0, 1, 2], [3, 4, 5], [6]]
