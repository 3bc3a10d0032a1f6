"""One shard: the table it holds and the Parquet bytes it is written as."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from embedpress.errors import InputError
from embedpress.vectors.ids import normal_ids

ID = "id"
COLUMNS = {"embeddings": "vector", "latents": "vector", "codes": "code"}
ROW_GROUP = 8192


def shard_name(index: int) -> str:
    """Return the file name of the shard number `index`, counted from 0."""
    return f"part-{index:05d}.parquet"


def value_type(kind: str, dim: int) -> pa.DataType:
    """Return the Arrow type of the values of a `kind` of vectors, `dim` floats or bytes wide."""
    return pa.binary(dim) if kind == "codes" else pa.list_(pa.float32(), dim)


def shard_table(ids: Any, values: npt.NDArray[Any], metadata: pa.Table | None = None) -> pa.Table:
    """Put ids, values and metadata together as the table of a shard.

    Parameters
    ----------
    ids
        n integers or strings: a sequence, an ndarray or an Arrow array.
    values
        float32 vectors of shape (n, d) or uint8 codes of shape (n, code_size).
    metadata
        A table of n rows and any columns but "id" and "vector" or "code".

    Returns
    -------
    pyarrow.Table
        Columns "id", "vector" (FixedSizeList<float32>) or "code" (FixedSizeBinary), metadata.

    Raises
    ------
    InputError
        If lengths or dtypes do not fit each other.
    """
    if values.ndim != 2 or values.shape[1] == 0 or values.dtype not in (np.float32, np.uint8):
        raise InputError(
            f"a shard holds 2-d float32 or uint8 values, not {values.dtype} {values.shape}"
        )
    n = len(values)
    name = COLUMNS["codes" if values.dtype == np.uint8 else "embeddings"]
    try:
        array = ids if isinstance(ids, (pa.Array, pa.ChunkedArray)) else pa.array(ids)
    except pa.ArrowException as error:
        raise InputError(f"ids must be all integers or all strings: {error}") from None
    if pa.types.is_null(array.type) and n == 0:
        array = array.cast(pa.int64())
    array = normal_ids(array)
    if len(array) != n or (metadata is not None and metadata.num_rows != n):
        raise InputError(f"{len(array)} ids or the metadata do not match {n} rows of values")
    table = pa.table({ID: array, name: value_array(values)})
    if metadata is not None:
        for extra, column in zip(metadata.column_names, metadata.columns, strict=True):
            if extra in table.column_names:
                raise InputError(f"metadata column {extra!r} is there twice or reserved: rename it")
            table = table.append_column(extra, column)
    return table


def value_array(values: npt.NDArray[Any]) -> pa.Array:
    """Return a matrix as Arrow: codes as FixedSizeBinary, floats as FixedSizeList."""
    values = np.ascontiguousarray(values)
    n, dim = values.shape
    if values.dtype == np.uint8:
        data = [None, pa.py_buffer(values)]
        return pa.FixedSizeBinaryArray.from_buffers(pa.binary(dim), n, data)
    return pa.FixedSizeListArray.from_arrays(pa.array(values.reshape(-1)), dim)


class ShardFile:
    """A shard as Parquet, written a part at a time: the same rows always give the same bytes.

    Parameters
    ----------
    sink
        A file to write to.
    schema
        That of :func:`solid_table`.

    Notes
    -----
    Floats and codes hardly compress, so the second column is stored as it is; the others are
    compressed with zstd. Pages carry checksums.
    """

    def __init__(self, sink: Any, schema: pa.Schema) -> None:
        bare = [ID, *schema.names[2:]]
        self.schema = schema
        self._writer = pq.ParquetWriter(
            sink,
            schema,
            version="2.6",
            data_page_version="1.0",
            compression=dict.fromkeys(bare, "zstd"),
            compression_level=dict.fromkeys(bare, 3),
            use_dictionary=[name for name in bare if name != ID],
            write_statistics=[ID],
            write_page_checksum=True,
            store_schema=True,
        )

    def write(self, table: pa.Table) -> None:
        """Write the next rows: a multiple of `ROW_GROUP` of them, but for the last ones."""
        # Chunk borders, which only say where rows came from, must not show.
        self._writer.write_table(table.combine_chunks(), row_group_size=ROW_GROUP)

    def close(self) -> None:
        """Write what closes the file."""
        self._writer.close()


def shard_bytes(table: pa.Table) -> pa.Buffer:
    """Return a shard's table as the bytes of its file."""
    sink = pa.BufferOutputStream()
    solid = solid_table(table)
    file = ShardFile(sink, solid.schema)
    file.write(solid)
    file.close()
    return sink.getvalue()


def solid_table(table: pa.Table) -> pa.Table:
    """Return a table of :func:`shard_table` as it is stored, without nulls in ids and vectors.

    Notes
    -----
    Parquet keeps a null flag for every number of a nullable list; without them shards are
    written and read twice as fast. What only says where a table came from, such as pandas'
    notes, is left out.
    """
    columns, schema = [], []
    for name in table.column_names:
        array = table.column(name)
        solid = name == table.column_names[1] and pa.types.is_fixed_size_list(array.type)
        if solid:
            bare = pa.list_(pa.field("element", pa.float32(), nullable=False), array.type.list_size)
            array = pa.FixedSizeListArray.from_arrays(array.combine_chunks().flatten(), type=bare)
        columns.append(array)
        schema.append(pa.field(name, array.type, nullable=not solid and name != ID))
    return pa.Table.from_arrays(columns, schema=pa.schema(schema))
