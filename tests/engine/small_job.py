"""A job of a few small shards, and ways to run, kill and compare it."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from embedpress.engine import Job, Piece
from embedpress.vectors import Manifest, shard_table

ROWS, DIM = 6, 3


def piece(index: int, *, text_ids: bool = True) -> Piece:
    x = np.random.default_rng(index).normal(size=(ROWS, DIM)).astype(np.float32)
    ids: list[Any] = [100 * index + row for row in range(ROWS)]
    texts = pa.table({"text": [f"é {i}" for i in ids]})
    skipped = [{"row": 100 * index + 50, "reason": "broken"}] if index % 2 else []
    if text_ids:
        ids = [f"id{i}" for i in ids]
    return Piece(shard_table(ids, x, texts), skipped=skipped, counters={"truncated": index})


def make_job(
    out: Path,
    shards: int = 4,
    *,
    work: Callable[[int], Piece] = piece,
    inputs: str = "inputs",
    calls: list[int] | None = None,
    **config: Any,
) -> Job:
    def chunks(done: frozenset[int]) -> Iterator[tuple[int, int]]:
        for index in range(shards):
            if index not in done:
                yield index, index

    def counted(index: int) -> Piece:
        if calls is not None:
            calls.append(index)
        return work(index)

    header = Manifest("embeddings", DIM, model="small", config={"batch": 2, **config})
    return Job(out, header, inputs, chunks, counted, shards=shards)


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def in_child(body: Callable[[], None], before: Callable[[], None] = lambda: None) -> int:
    """Run `body` in a forked process: its exit status, or minus the signal that killed it."""
    child = os.fork()
    if child == 0:
        try:
            signal.alarm(30)
            before()
            body()
            os._exit(0)
        except BaseException:
            os._exit(1)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def kill_at(event: int, folder: Path) -> Callable[[], None]:
    """Prepare a process to die by SIGKILL when it touches `folder` for the `event`-th time.

    Opening, renaming and removing files count, and syncing them, before and after.
    """
    left = event

    def tick() -> None:
        nonlocal left
        left -= 1
        if left < 0:
            os.kill(os.getpid(), signal.SIGKILL)

    def hook(name: str, args: tuple[Any, ...]) -> None:
        if name in ("open", "os.rename", "os.remove", "os.mkdir") and str(args[0]).startswith(
            str(folder)
        ):
            tick()

    def install() -> None:
        sync = os.fsync

        def fsync(descriptor: int) -> None:
            tick()
            sync(descriptor)
            tick()

        os.fsync = fsync  # type: ignore[assignment]
        sys.addaudithook(hook)

    return install
