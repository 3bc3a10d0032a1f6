"""Runs a job in this process: reading, work and writing overlap, in order."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import chain
from typing import Any

from embedpress.engine.ahead import read_ahead, write_behind
from embedpress.engine.job import Job, Piece
from embedpress.threads import side_by_side

# Blocks that wait to be worked on, and pieces that wait to be written.
READ_AHEAD, WRITE_BEHIND = 2, 4
_Item = tuple[int, Any]
# What follows the last block of a shard, and the last piece.
_END: Any = object()


def run_here(job: Job, done: frozenset[int], write: Callable[[int, Iterable[Piece]], None]) -> None:
    """Make the shards that are not done.

    Parameters
    ----------
    job
        What to do. Blocks are read in a thread of their own, and worked on in this one, where
        Ctrl-C arrives, or in as many as the job asks for.
    done
        Numbers of the shards to leave out.
    write
        Called in another thread with the number of each shard and its pieces, one shard at a
        time, in order. A shard whose work was finished is written whatever happens after it.
    """

    def consume(items: Iterator[_Item]) -> None:
        for index, first in items:
            rest = iter(lambda: next(items)[1], _END)
            write(index, () if first is _END else chain([first], rest))

    with write_behind(consume, WRITE_BEHIND) as hand:
        blocks = read_ahead(_blocks(job, done), READ_AHEAD)
        try:
            for index, piece in _worked(job, blocks):
                if job.watch is not None and piece is not _END and piece.skipped:
                    job.watch(piece.skipped)
                hand((index, piece))
        finally:
            blocks.close()


def _blocks(job: Job, done: frozenset[int]) -> Iterator[_Item]:
    for index, payload in job.chunks(done):
        for block in job.read(payload):
            yield index, block
        yield index, _END


def _worked(job: Job, blocks: Iterator[_Item]) -> Iterator[_Item]:
    """Yield the pieces of the blocks, in order."""

    def work(item: _Item) -> _Item:
        index, block = item
        return index, _END if block is _END else job.work(block)

    if job.workers == 1:
        yield from map(work, blocks)
    else:
        yield from side_by_side(work, blocks, job.workers)
