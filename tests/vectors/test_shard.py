from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from embedpress.errors import InputError
from embedpress.vectors import shard_table
from embedpress.vectors.shard import shard_bytes

TEXT = pa.table({"text": ["a", None, "c"], "tags": [["x"], [], None], "n": [1, 2, 3]})


def test_a_shard_reads_back_in_any_parquet_reader() -> None:
    x = np.arange(12, dtype=np.float32).reshape(3, 4)
    table = pq.read_table(pa.BufferReader(shard_bytes(shard_table(["p", "q", "r"], x, TEXT))))
    assert table.column_names == ["id", "vector", "text", "tags", "n"]
    assert table.column("id").to_pylist() == ["p", "q", "r"]
    assert table.column("vector").to_pylist() == x.tolist()
    assert table.schema.field("vector").type.list_size == 4
    assert table.select(TEXT.column_names).to_pylist() == TEXT.to_pylist()


def test_codes_are_fixed_size_binary() -> None:
    codes = np.arange(6, dtype=np.uint8).reshape(3, 2)
    table = pq.read_table(pa.BufferReader(shard_bytes(shard_table([5, 6, 7], codes))))
    assert table.schema.field("code").type == pa.binary(2)
    assert table.column("code").to_pylist() == [b"\0\1", b"\2\3", b"\4\5"]
    assert table.column("id").type == pa.int64()


def test_the_same_rows_give_the_same_bytes() -> None:
    x = np.random.default_rng(0).normal(size=(20_000, 3)).astype(np.float32)
    texts = pa.table({"text": [f"text {i % 9}" for i in range(20_000)]})
    whole = shard_table(np.arange(20_000), x, texts)
    pieces = pa.concat_tables([whole.slice(0, 11), whole.slice(11, 8000), whole.slice(8011)])
    noted = whole.replace_schema_metadata({"pandas": "{}"})
    noted = noted.set_column(
        2, pa.field("text", pa.string(), metadata={"PARQUET:field_id": "7"}), whole["text"]
    )
    strided = shard_table(np.arange(20_000), np.asfortranarray(x), texts)
    expected = shard_bytes(whole)
    for table in (pieces, noted, strided):
        assert shard_bytes(table).equals(expected)


def test_vectors_are_stored_plain_in_small_row_groups_and_the_rest_compressed() -> None:
    x = np.ones((10_000, 4), np.float32)
    texts = pa.table({"text": ["same text"] * 10_000})
    file = pq.ParquetFile(pa.BufferReader(shard_bytes(shard_table(np.arange(10_000), x, texts))))
    assert [file.metadata.row_group(i).num_rows for i in range(2)] == [8192, 1808]
    columns = [file.metadata.row_group(0).column(i) for i in range(3)]
    assert [c.compression for c in columns] == ["ZSTD", "UNCOMPRESSED", "ZSTD"]
    assert columns[1].encodings == ("RLE", "PLAIN") or columns[1].encodings == ("PLAIN", "RLE")


@pytest.mark.parametrize("dtype", [np.float32, np.uint8])
def test_a_shard_may_have_no_rows(dtype: type) -> None:
    table = shard_table([], np.empty((0, 4), dtype), TEXT.slice(0, 0))
    full = shard_table([1, 2, 3], np.ones((3, 4), dtype), TEXT)
    empty = pq.read_table(pa.BufferReader(shard_bytes(table)))
    assert empty.num_rows == 0
    assert empty.schema == pq.read_schema(pa.BufferReader(shard_bytes(full)))


def test_a_codes_shard_may_have_a_metadata_column_named_vector() -> None:
    extra = pa.table({"vector": pa.array([[1.0], None, [3.0]], pa.list_(pa.float32()))})
    table = shard_table([1, 2, 3], np.ones((3, 4), np.uint8), extra)
    again = pq.read_table(pa.BufferReader(shard_bytes(table)))
    assert again.column("vector").to_pylist() == [[1.0], None, [3.0]]


@pytest.mark.parametrize(
    ("ids", "values", "metadata", "text"),
    [
        ([1, 2], np.ones((3, 2), np.float32), None, "do not match 3 rows"),
        ([1, 2, 3], np.ones((3, 2), np.float32), TEXT.slice(1), "do not match 3 rows"),
        ([1, 2, 3], np.ones((3, 2)), None, "float32 or uint8"),
        ([1, 2, 3], np.ones(3, np.float32), None, "2-d"),
        ([1, 2, 3], np.ones((3, 0), np.float32), None, "2-d"),
        ([1.5, 2, 3], np.ones((3, 2), np.float32), None, "integers or strings"),
        ([1, "a", 3], np.ones((3, 2), np.float32), None, "integers or all strings"),
        ([1, None, 3], np.ones((3, 2), np.float32), None, "row 1 is null"),
        ([1, 2, 3], np.ones((3, 2), np.float32), pa.table({"id": [1, 2, 3]}), "reserved"),
    ],
)
def test_what_does_not_fit_is_refused(
    ids: list[object], values: np.ndarray, metadata: pa.Table | None, text: str
) -> None:
    with pytest.raises(InputError, match=text):
        shard_table(ids, values, metadata)
