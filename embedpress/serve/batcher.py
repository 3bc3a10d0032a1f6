"""Dynamic batching: what several clients ask at the same time runs as one batch in a thread."""

from __future__ import annotations

import asyncio
import math
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from typing import Any, Generic, TypeVar

from embedpress.serve.metrics import Metrics
from embedpress.serve.refusal import RequestError
from embedpress.serve.settings import Settings

Part = TypeVar("Part")
Result = TypeVar("Result")
LONGEST_RETRY = 60


class Batcher(Generic[Part, Result]):
    """Collects parts of requests and works on them together, in a thread of its own.

    A batch starts as soon as the thread is free. Only where the last batch was of several
    parts, so where there are several clients, does it first wait for company, up to `max_wait`.

    Parameters
    ----------
    kind : str
        Of the metrics.
    work : callable
        Takes a list of parts and gives the result of each, or an exception in its place.
    max_rows : int
        Most rows (texts, pictures, vectors) of a batch; a part is never split.
    settings : Settings
        Its `max_wait`, and its `max_queue` of rows that are admitted and not yet done.
    metrics : Metrics
    """

    def __init__(
        self,
        kind: str,
        work: Callable[[list[Part]], Sequence[Result | Exception]],
        max_rows: int,
        settings: Settings,
        metrics: Metrics,
    ) -> None:
        self.kind, self.max_rows = kind, max_rows
        self.max_wait, self.max_queue = settings.max_wait / 1000, settings.max_queue
        self._work = work
        self._waiting: deque[tuple[Part, int, asyncio.Future[Result]]] = deque()
        self._rows_waiting = 0
        self._rows_admitted = 0
        self._seconds_a_row = 0.0
        self._crowded = False
        self._full = asyncio.Event()
        self._runner: asyncio.Task[None] | None = None
        self._thread = ThreadPoolExecutor(1, thread_name_prefix=f"embedpress-{kind}")
        self._metrics = metrics

    @contextmanager
    def admit(self, rows: int) -> Iterator[None]:
        """Hold places in the queue for a request of `rows` rows, from its first part to its last.

        Raises
        ------
        RequestError
            429 where there are not as many free places; it says when to come again.
        """
        if self._rows_admitted + rows > self.max_queue:
            wait = math.ceil(self._rows_admitted * self._seconds_a_row)
            raise RequestError(
                429,
                f"the queue is full ({self._rows_admitted} of {self.max_queue} places taken): "
                "try again later",
                code="queue_full",
                retry_after=min(max(wait, 1), LONGEST_RETRY),
            )
        self._count(rows)
        try:
            yield
        finally:
            self._count(-rows)

    async def run(self, part: Part, rows: int) -> Result:
        """The result of a part, which takes its turn in a batch."""
        future: asyncio.Future[Result] = asyncio.get_running_loop().create_future()
        self._waiting.append((part, rows, future))
        self._rows_waiting += rows
        if self._rows_waiting >= self.max_rows:
            self._full.set()
        if self._runner is None:
            self._runner = asyncio.create_task(self._drain())
        return await future

    def close(self) -> None:
        """Let the thread end."""
        self._thread.shutdown(wait=True)

    def _count(self, rows: int) -> None:
        self._rows_admitted += rows
        self._metrics.queue_depth.labels(self.kind).inc(rows)

    async def _drain(self) -> None:
        loop = asyncio.get_running_loop()
        try:
            while self._waiting:
                if self._crowded and self.max_wait and not self._full.is_set():
                    await self._wait_for_company()
                taken = self._take()
                started = time.perf_counter()
                parts = [part for part, _, _ in taken]
                results = await loop.run_in_executor(self._thread, self._results, parts)
                seconds = time.perf_counter() - started
                rows = sum(rows for _, rows, _ in taken)
                self._seconds_a_row += 0.1 * (seconds / max(rows, 1) - self._seconds_a_row)
                self._metrics.batch_size.labels(self.kind).observe(rows)
                self._crowded = len(taken) > 1
                for (_, _, future), result in zip(taken, results, strict=True):
                    if future.done():  # its client went away
                        continue
                    if isinstance(result, Exception):
                        future.set_exception(result)
                    else:
                        future.set_result(result)
        finally:
            self._runner = None

    async def _wait_for_company(self) -> None:
        with suppress(TimeoutError, asyncio.TimeoutError):
            await asyncio.wait_for(self._full.wait(), self.max_wait)

    def _take(self) -> list[tuple[Part, int, asyncio.Future[Result]]]:
        taken: list[tuple[Part, int, asyncio.Future[Result]]] = []
        rows = 0
        while self._waiting and (not taken or rows + self._waiting[0][1] <= self.max_rows):
            taken.append(self._waiting.popleft())
            rows += taken[-1][1]
        self._rows_waiting -= rows
        if self._rows_waiting < self.max_rows:
            self._full.clear()
        return taken

    def _results(self, parts: list[Part]) -> Sequence[Result | Exception]:
        try:
            return self._work(parts)
        except Exception as error:
            if len(parts) == 1:
                return [error]
        # One of them spoils the batch: each on its own, so that the others do not suffer.
        return [self._results([part])[0] for part in parts]


def pieces(rows: Any, size: int) -> Iterator[Any]:
    """Slices of at most `size` rows: a large request takes turns with small ones."""
    for start in range(0, len(rows), size):
        yield rows[start : start + size]
