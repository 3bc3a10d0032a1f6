"""Parquet files of a kilobyte that stand for gigabytes, and values that Python has none for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from child import answer

from embedpress.errors import FormatError, InputError
from embedpress.extract.texts import open_texts
from embedpress.index import table
from embedpress.index.table import read_table
from embedpress.vectors import footer, open_vectors

READ = """
from embedpress.vectors import open_vectors
for batch in open_vectors(folder / "x.parquet").iter_batches(): pass
"""


def vectors(rows: int) -> pa.Array:
    return pa.FixedSizeListArray.from_arrays(pa.array(np.ones(2 * rows, np.float32)), 2)


def named_often(text: str, rows: int) -> pa.Array:
    """One text, stored once and named by every row."""
    return pa.DictionaryArray.from_arrays(pa.array(np.zeros(rows, np.int32)), pa.array([text]))


@pytest.mark.parametrize("stored", [True, False])
def test_a_long_text_that_every_row_names(tmp_path: Path, stored: bool) -> None:
    rows = pa.table({"vector": vectors(20_000), "text": named_often("A" * 2**20, 20_000)})
    path = tmp_path / "x.parquet"
    pq.write_table(rows, path, compression="zstd", store_schema=stored)
    assert path.stat().st_size < 4000
    found = answer(READ, tmp_path)
    assert found.said.startswith("FormatError")
    assert "rows of column 'text' take 8589934592 bytes" in found.said
    assert found.peak < 400


def test_texts_that_share_their_beginnings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    texts = pa.array([f"{'A' * 1000}{row}" for row in range(1000)])
    pq.write_table(
        pa.table({"id": texts}),
        tmp_path / "ids.parquet",
        compression="zstd",
        use_dictionary=False,
        column_encoding={"id": "DELTA_BYTE_ARRAY"},
    )
    path = tmp_path / "ids.parquet"
    monkeypatch.setattr(footer, "MOST_BYTES", 50_000)
    with footer.open_door(path) as file:
        batches = list(file.batches(1000))
    assert 1 < max(batch.nbytes for batch in batches) <= 50_000
    assert pa.Table.from_batches(batches)["id"].to_pylist() == texts.to_pylist()
    monkeypatch.setattr(table, "MOST_BYTES", 50_000)
    monkeypatch.setattr(table, "_MAX_RATIO", 10)
    with pytest.raises(InputError, match="would fill the memory"):
        read_table(path, 1000)


def test_numbers_that_are_one_number(tmp_path: Path) -> None:
    rows = pa.ListArray.from_arrays(
        pa.array([0, 40_000_000], pa.int32()), pa.array(np.ones(40_000_000, np.float32))
    )
    pq.write_table(pa.table({"vector": rows}), tmp_path / "x.parquet", compression="zstd")
    assert (tmp_path / "x.parquet").stat().st_size < 1000
    with pytest.raises(FormatError, match=r"would grow from [0-9]+ to 160000000 bytes"):
        open_vectors(tmp_path / "x.parquet")


def test_a_column_of_one_value_is_no_bomb(tmp_path: Path) -> None:
    rows = pa.table(
        {
            "vector": vectors(30_000),
            "text": named_often("a kind word", 30_000),
            "year": pa.array(np.full(30_000, 1999)),
        }
    )
    pq.write_table(rows, tmp_path / "x.parquet", compression="zstd", store_schema=False)
    batch = open_vectors(tmp_path / "x.parquet").read()
    assert set(batch.metadata["text"].to_pylist()) == {"a kind word"}
    assert batch.metadata.schema.types == [pa.string(), pa.int64()]


def test_texts_read_by_their_numbers_are_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts = [None if row % 7 == 0 else f"text {row % 13}" for row in range(500)]
    rows = pa.table({"vector": vectors(500), "text": pa.array(texts), "b": [b"\xff"] * 500})
    pq.write_table(rows, tmp_path / "x.parquet")
    monkeypatch.setattr(footer, "MOST_BYTES", 5000)
    found = open_vectors(tmp_path / "x.parquet").read().metadata
    assert found["text"].to_pylist() == texts
    assert found.equals(rows.select(["text", "b"]))


def odd_values() -> dict[str, pa.Array]:
    wrong = np.arange(4, dtype=np.int32).tobytes()
    return {
        "date": pa.array([1, 2**31 - 1, 0], pa.date32()),
        "milliseconds": pa.array([1, 2**61, 0], pa.date64()),
        "time": pa.array([1, 2**62, 0], pa.timestamp("us")),
        "zone": pa.array([1, 2, 0], pa.timestamp("us", tz="Nowhere/None")),
        "span": pa.array([1, 2**62, 0], pa.duration("us")),
        "not UTF-8": pa.Array.from_buffers(
            pa.string(), 3, [None, pa.py_buffer(wrong), pa.py_buffer(b"\xff\xfe\xfd")]
        ),
    }


@pytest.mark.parametrize("name", list(odd_values()))
def test_values_that_python_has_none_for(tmp_path: Path, name: str) -> None:
    odd = odd_values()[name]
    rows = pa.table({"id": ["a", "b", "c"], "text": ["x", "y", "z"], "vector": vectors(3)})
    path = tmp_path / "x.parquet"
    pq.write_table(rows.append_column("odd", odd), path)
    for read in (lambda: open_vectors(path).read(), lambda: open_texts(path)):
        with pytest.raises(InputError):
            read()
    pq.write_table(pa.table({"id": ["a", "b", "c"], "odd": odd}), path)
    with pytest.raises(FormatError):
        read_table(path, 3)


@pytest.mark.parametrize("kind", [pa.float32(), pa.list_(pa.int64()), pa.null(), pa.binary()])
def test_ids_of_other_kinds(tmp_path: Path, kind: Any) -> None:
    pq.write_table(pa.table({"id": pa.nulls(3, kind)}), tmp_path / "ids.parquet")
    with pytest.raises(InputError, match="they must be integers or strings"):
        read_table(tmp_path / "ids.parquet", 3)
