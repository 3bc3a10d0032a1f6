"""Push an index to another database."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from embedpress.errors import UsageError
from embedpress.onnx.compressor import OnnxCompressor
from embedpress.push.files import push_csv, push_parquet, table_sql
from embedpress.push.milvus import MilvusTarget
from embedpress.push.rows import IndexRows


@dataclass(frozen=True)
class Pushed:
    """What was handed over.

    Attributes
    ----------
    rows, dim : int
    metric : str
        By which the vectors are to be compared.
    written : int
        Rows that were not there already.
    sql : str
        For a CSV file: the PostgreSQL table that takes it.
    """

    rows: int
    dim: int
    metric: str
    written: int
    sql: str = ""


def push(
    index: str | Path,
    model: str | Path,
    to: str,
    *,
    form: str = "latents",
    collection: str = "embedpress",
    overwrite: bool = False,
    batch_rows: int = 1000,
    num_threads: int | None = None,
    progress: Callable[[int], None] | None = None,
) -> Pushed:
    """Write vectors, ids and metadata of an index to a database, or to files that one reads.

    The same call again goes on where it was stopped (a CSV file is written anew).

    Parameters
    ----------
    index : str or Path
        The index folder.
    model : str or Path
        Its compressor.
    to : str
        ``milvus://HOST:PORT[/DATABASE]``; a path that ends in ``.db``, for Milvus Lite;
        ``parquet:FOLDER``; or ``csv:FILE``.
    form : {"latents", "embeddings"}
        What the codes stand for, to be asked with the query encoder: the same scores as the
        index's own. Or embeddings restored from them, to be asked with plain ones.
    collection : str
        Of Milvus; the table that ``sql`` speaks of.
    overwrite : bool
        Remove a collection of that name first.
    batch_rows : int
        Rows that are sent to Milvus at once.
    num_threads : int, optional
    progress : callable, optional
        Called with numbers of rows.

    Returns
    -------
    Pushed

    Raises
    ------
    UsageError, InputError, FormatError
        For a target or an index that cannot be used.
    MismatchError
        Another compressor than the index's, or a collection or folder of something else.
    StorageError
        The server or the disk refused.
    """
    if batch_rows < 1:
        raise UsageError(f"batch_rows={batch_rows} must be at least 1")
    if not collection.isidentifier() or not collection.isascii():
        raise UsageError(f"collection {collection!r} must be letters, digits and _")
    kind, _, place = to.partition(":")
    if not is_milvus(to) and (kind not in ("parquet", "csv") or not place):
        raise UsageError(
            f"cannot push to {to!r}: give milvus://HOST:PORT, FILE.db, parquet:FOLDER or csv:FILE"
        )
    report = progress or (lambda rows: None)
    rows = IndexRows(Path(index), OnnxCompressor(model, num_threads=num_threads), form)
    sql = ""
    if is_milvus(to):
        with MilvusTarget(to, collection, new=True) as target:
            written = target.push(rows, overwrite=overwrite, batch_rows=batch_rows, progress=report)
    elif kind == "parquet":
        written = push_parquet(rows, Path(place), report)
    else:
        written = push_csv(rows, Path(place), report)
        sql = table_sql(rows, collection)
    return Pushed(rows.count, rows.dim, rows.metric, written, sql)


def is_milvus(target: str) -> bool:
    """Whether a target is a Milvus server or a file of Milvus Lite."""
    return target.startswith(("milvus://", "milvus+tls://")) or (
        target.endswith(".db") and ":" not in target
    )
