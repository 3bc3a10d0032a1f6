"""Compression as a job: a whole dataset of embeddings to codes or latents, resumable."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from embedpress.engine.batch import EncodeBatch
from embedpress.engine.job import Job, Piece
from embedpress.engine.options import RunOptions
from embedpress.engine.run import run_job
from embedpress.errors import InputError, MismatchError, UsageError
from embedpress.onnx.compressor import BATCH_ROWS as BLOCK_STEP
from embedpress.onnx.compressor import OnnxCompressor
from embedpress.vectors import (
    Batch,
    Manifest,
    Vectors,
    metric_for,
    open_vectors,
    sha256_of,
    shard_table,
)
from embedpress.vectors.arrow import saved_files
from embedpress.vectors.budget import Budget
from embedpress.vectors.shard import ROW_GROUP

_HERE = RunOptions()
# Blocks in memory besides those being encoded: as read, as checked, waiting, and what the
# allocator keeps of them.
_COPIES = 10


def compress(
    source: str | Path,
    model: str | Path,
    out: str | Path,
    *,
    what: str = "codes",
    n_components: int | None = None,
    column: str | None = None,
    rows_per_shard: int = 65_536,
    memory_budget: str | int = "2G",
    num_threads: int | None = None,
    options: RunOptions = _HERE,
    progress: Callable[[int], None] | None = None,
) -> Manifest:
    """Compress embeddings to a folder of Parquet shards, with ONNX Runtime alone.

    Parameters
    ----------
    source : str or Path
        A folder of embeddings or a plain file of vectors; see
        :func:`embedpress.open_vectors`.
    model : str or Path
        A compressor folder.
    out : str or Path
        The folder to write. The same command finishes a job that was killed.
    what : {"codes", "latents"}
    n_components : int, optional
        Floats of a latent, one of the compressor's `latent_sizes`; the most by default.
    column : str, optional
        The vector column of a plain file of several.
    rows_per_shard : int
        Rows in each shard but the last.
    memory_budget : str or int
        Most memory of the process, as ``"2G"`` or in bytes: it bounds the rows in flight and,
        where it is tight, the threads. On a cluster, that of each task.
    num_threads : int, optional
        Blocks that are encoded at once.
    options : RunOptions
        Where the job runs and which share of it.
    progress : callable, optional
        Called with numbers of rows as they are finished.

    Returns
    -------
    Manifest

    Raises
    ------
    UsageError, InputError, FormatError
        For options, vectors or a compressor that cannot be used.
    MismatchError
        If the vectors are not of the compressor's kind, or `out` holds other work.
    StorageError
        If the disk refuses; what is done is kept.
    """
    if rows_per_shard < 1:
        raise UsageError(f"rows_per_shard must be at least 1, not {rows_per_shard}")
    budget = Budget(memory_budget)
    compressor = OnnxCompressor(model, num_threads=num_threads)
    encode = EncodeBatch(compressor.path, what=what, n_components=n_components)
    vectors = open_vectors(source, metric=metric_for(source, compressor.metric), column=column)
    check_kind(vectors, compressor)
    workers, rows = _in_flight(budget, encode, compressor.num_threads)

    def chunks(done: frozenset[int]) -> Iterator[tuple[int, tuple[int, int]]]:
        for index, start in enumerate(range(0, vectors.count, rows_per_shard)):
            if index not in done:
                yield index, (start, min(start + rows_per_shard, vectors.count))

    origin = vectors.manifest
    header = Manifest(
        kind=what,
        dim=encode.size,
        dtype="uint8" if what == "codes" else "float32",
        metric=compressor.metric,
        model=origin.model if origin else None,
        revision=origin.revision if origin else None,
        pooling=origin.pooling if origin else None,
        config={
            "compressor": compressor.fingerprint,
            "rows_per_shard": rows_per_shard,
            "source": {**origin.config, "normalized": origin.normalized} if origin else {},
        },
    )
    job = Job(
        out=Path(out),
        header=header,
        inputs_fingerprint=inputs_fingerprint(vectors),
        chunks=chunks,
        read=_Spans(vectors, column, rows),
        work=_Work(encode),
        # Blocks side by side keep more of two processors busy than both at one matrix.
        workers=workers,
        shards=-(-vectors.count // rows_per_shard),
    )
    return run_job(job, options=options, progress=progress)


def _in_flight(budget: Budget, encode: EncodeBatch, threads: int) -> tuple[int, int]:
    """Threads that encode at once, and rows of their blocks, within a memory budget."""
    # The second run shows what the runtime holds on to.
    for _ in range(2):
        encode.encode(np.ones((BLOCK_STEP, encode.dim), np.float32))
    row, one = encode.dim * 4, budget.taken()
    left = budget.left("this compressor", (_COPIES + 1) * BLOCK_STEP * row)
    left += (_COPIES + 1) * BLOCK_STEP * row
    for workers in range(threads, 1, -1):
        rows = (left - (workers - 1) * one) // ((_COPIES + workers) * row)
        if rows >= BLOCK_STEP:
            break
    else:
        workers, rows = 1, left // ((_COPIES + 1) * row)
    return workers, min(rows // BLOCK_STEP * BLOCK_STEP, ROW_GROUP)


class _Spans:
    """Reads spans of rows; pickled, it is where they are and not what they hold."""

    def __init__(self, vectors: Vectors, column: str | None, rows: int) -> None:
        self._opened: Vectors | None = vectors
        self._path, self._column = vectors.path.absolute(), column
        self._metric = None if vectors.manifest else vectors.metric
        self._rows = rows

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_opened": None}

    def __call__(self, span: tuple[int, int]) -> Iterator[Batch]:
        if self._opened is None:
            self._opened = open_vectors(self._path, metric=self._metric, column=self._column)
        return self._opened.iter_batches(self._rows, start=span[0], stop=span[1])


@dataclass(frozen=True)
class _Work:
    """Encodes a batch and keeps its ids and metadata."""

    encode: EncodeBatch

    def __call__(self, batch: Batch) -> Piece:
        return Piece(shard_table(batch.ids, self.encode.encode(batch.vectors), batch.metadata))


def check_kind(vectors: Vectors, compressor: OnnxCompressor) -> None:
    """Refuse vectors that the compressor was not made for.

    Raises
    ------
    InputError
        Not embeddings.
    MismatchError
        Another dimension.
    """
    if vectors.kind != "embeddings":
        raise InputError(f"{vectors.path} holds {vectors.kind}: give the embeddings themselves")
    if vectors.dim != compressor.dim:
        raise MismatchError(
            f"{vectors.path} has {vectors.dim} dimensions, the compressor at {compressor.path} "
            f"takes {compressor.dim}: use the one fitted on these embeddings"
        )


def inputs_fingerprint(vectors: Vectors) -> str:
    """Text that is another when the vectors are: of the shards' checksums, or of the file."""
    if vectors.manifest is None:
        files = saved_files(vectors.path)
        if files is None:
            return sha256_of(vectors.path)
        return hashlib.sha256("".join(map(sha256_of, files)).encode()).hexdigest()
    sums = "".join(shard.sha256 for shard in vectors.manifest.shards)
    return hashlib.sha256(sums.encode()).hexdigest()
