"""Rows of an index as files that databases read: Parquet shards, or text for pgvector's COPY."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.csv as pc

from embedpress.engine import Job, Piece, run_job
from embedpress.errors import InputError
from embedpress.push.rows import IndexRows
from embedpress.vectors import Manifest, atomic_path, shard_table
from embedpress.vectors.files import storage_errors

ROWS_PER_SHARD = 65_536
_ROWS = 4_096
_SQL = {
    pa.int64(): "bigint",
    pa.int32(): "integer",
    pa.float64(): "double precision",
    pa.float32(): "real",
    pa.bool_(): "boolean",
}


def push_parquet(rows: IndexRows, out: Path, progress: Callable[[int], None]) -> int:
    """Write a folder of Parquet shards: id, vector (a list of floats of fixed size), metadata.

    The same call goes on where it was stopped. The folder is one of embeddings or latents like any
    other of embedpress. LanceDB, DuckDB and others read its shards.

    Returns
    -------
    int
        Rows.
    """
    starts = range(0, rows.count, ROWS_PER_SHARD)

    def chunks(done: frozenset[int]) -> Iterator[tuple[int, int]]:
        return ((i, start) for i, start in enumerate(starts) if i not in done)

    def read(start: int) -> Iterator[tuple[int, int]]:
        stop = min(start + ROWS_PER_SHARD, rows.count)
        return ((low, min(low + _ROWS, stop)) for low in range(start, stop, _ROWS))

    def work(span: tuple[int, int]) -> Piece:
        block = rows.block(*span)
        metadata = block.table.drop_columns("id")
        progress(span[1] - span[0])
        ids = block.table["id"].combine_chunks()
        return Piece(shard_table(ids, block.vectors, metadata if metadata.num_columns else None))

    manifest = rows.manifest
    header = Manifest(
        rows.form,
        rows.dim,
        metric=rows.metric,
        model=manifest.extractor.get("model"),
        revision=manifest.extractor.get("revision"),
        pooling=manifest.extractor.get("pooling"),
        config={"compressor": manifest.compressor, "restored_from": manifest.what},
    )
    state = manifest.sha256[manifest.files["index"]] + manifest.sha256[manifest.files["ids"]]
    state += manifest.sha256.get(manifest.files.get("deleted", ""), "")
    return run_job(Job(out, header, state, chunks, work, read=read)).count


def push_csv(rows: IndexRows, out: Path, progress: Callable[[int], None]) -> int:
    """Write a CSV file with a header, vectors as pgvector writes them: ``[0.5,-1,...]``.

    ``COPY items FROM STDIN WITH (FORMAT csv, HEADER)`` reads it into the table of
    :func:`table_sql`. A missing value is an empty field, an empty text a quoted one.

    Returns
    -------
    int
        Rows.
    """
    names = rows.columns.names
    for field in rows.columns:
        if pa.types.is_nested(field.type) or field.name == "vector":
            raise InputError(f"the column {field.name!r} has no place in a CSV file of vectors")
    header = io.StringIO()
    csv.writer(header, lineterminator="\n").writerow([names[0], "vector", *names[1:]])
    with storage_errors(out), atomic_path(out) as path, path.open("xb") as file:
        file.write(header.getvalue().encode())
        for block in rows.blocks(_ROWS):
            # The shortest text that gives the same float32 again.
            texts = ["[" + ",".join(map(str, line)) + "]" for line in block.vectors]
            table = block.table.add_column(1, "vector", pa.array(texts))
            pc.write_csv(table, file, pc.WriteOptions(include_header=False))
            progress(block.table.num_rows)
    return rows.count


def table_sql(rows: IndexRows, name: str = "items") -> str:
    """The PostgreSQL table that takes the rows of :func:`push_csv`, and how to fill it."""
    columns = []
    for field in rows.columns:
        kind = _SQL.get(field.type, "text")
        key = " PRIMARY KEY" if field.name == "id" else ""
        columns.append(f'"{field.name.replace(chr(34), chr(34) * 2)}" {kind}{key}')
    columns.insert(1, f'"vector" vector({rows.dim})')
    return (
        "CREATE EXTENSION IF NOT EXISTS vector;\n"
        f"CREATE TABLE {name} ({', '.join(columns)});\n"
        f"COPY {name} FROM STDIN WITH (FORMAT csv, HEADER);"
    )
