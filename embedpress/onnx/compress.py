"""Compression as a job: a whole dataset of embeddings to codes or latents, resumable."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from embedpress.engine.job import Job, Piece
from embedpress.engine.run import run_job
from embedpress.errors import InputError, MismatchError, UsageError
from embedpress.onnx.runtime import OnnxCompressor
from embedpress.vectors import Manifest, Vectors, open_vectors, sha256_of, shard_table

WHAT = ("codes", "latents")


def compress(
    source: str | Path,
    model: str | Path,
    out: str | Path,
    *,
    what: str = "codes",
    column: str | None = None,
    rows_per_shard: int = 65_536,
    batch_rows: int = 8192,
    num_threads: int | None = None,
    progress: Callable[[int], None] | None = None,
) -> Manifest:
    """Compress embeddings to a folder of Parquet shards, with ONNX Runtime alone.

    Parameters
    ----------
    source : str or Path
        A folder of embeddings or a plain file of vectors; see
        :func:`embedpress.open_vectors`, also for `column`.
    model : str or Path
        A compressor folder.
    out : str or Path
        The folder to write. The same command finishes a job that was killed.
    what : {"codes", "latents"}
    rows_per_shard : int
        Rows in each shard but the last.
    batch_rows : int
        Rows in memory at once.
    num_threads : int, optional
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
    if what not in WHAT:
        raise UsageError(f"what={what!r} must be codes or latents")
    if rows_per_shard < 1 or batch_rows < 1:
        raise UsageError("rows_per_shard and batch_rows must be at least 1")
    compressor = OnnxCompressor(model, num_threads=num_threads)
    size = compressor.code_size if what == "codes" else compressor.n_components
    if size is None:
        raise InputError(f"the compressor at {model} gives no {what}: fit it with them")
    vectors = open_vectors(source, metric=metric_for(source, compressor), column=column)
    check_kind(vectors, compressor)
    run = compressor.encode if what == "codes" else compressor.transform

    def work(span: tuple[int, int]) -> Piece:
        tables = [
            shard_table(batch.ids, run(batch.vectors), batch.metadata)
            for batch in vectors.iter_batches(batch_rows, start=span[0], stop=span[1])
        ]
        return Piece(_joined(tables))

    def chunks(done: frozenset[int]) -> Iterator[tuple[int, tuple[int, int]]]:
        for index, start in enumerate(range(0, vectors.count, rows_per_shard)):
            if index not in done:
                yield index, (start, min(start + rows_per_shard, vectors.count))

    origin = vectors.manifest
    header = Manifest(
        kind=what,
        dim=size,
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
    shards = -(-vectors.count // rows_per_shard)
    job = Job(
        Path(out), header, inputs_fingerprint(vectors), chunks, work, shards=shards
    )
    return run_job(job, progress=progress)


def metric_for(source: str | Path, compressor: OnnxCompressor) -> str | None:
    """A plain file says nothing of its metric: it is read by the compressor's."""
    return None if Path(source).is_dir() else compressor.metric


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
        return sha256_of(vectors.path)
    sums = "".join(shard.sha256 for shard in vectors.manifest.shards)
    return hashlib.sha256(sums.encode()).hexdigest()


def _joined(tables: list[Any]) -> Any:
    import pyarrow as pa

    return tables[0] if len(tables) == 1 else pa.concat_tables(tables)
