"""Parquet files of a kilobyte that stand for gigabytes, and values that Python has none for."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from child import answer

from embedpress.errors import FormatError, InputError
from embedpress.extract.texts import open_texts
from embedpress.index.table import read_table
from embedpress.vectors import growth, open_vectors
from embedpress.vectors.footer import open_door

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
    monkeypatch.setattr(growth, "MOST_BYTES", 50_000)
    monkeypatch.setattr(growth, "MAX_DENSE", 1)
    with open_door(path) as file:
        batches = list(file.batches(1000))
    assert 1 < max(batch.nbytes for batch in batches) <= 50_000
    assert pa.Table.from_batches(batches)["id"].to_pylist() == texts.to_pylist()
    monkeypatch.setattr(growth, "MAX_RATIO", 10)
    with pytest.raises(FormatError, match=r"grows to over 10 times its [0-9]+ bytes"):
        read_table(path, 1000)


def test_numbers_that_are_one_number(tmp_path: Path) -> None:
    rows = pa.ListArray.from_arrays(
        pa.array([0, 20_000_000], pa.int32()), pa.array(np.ones(20_000_000, np.float32))
    )
    pq.write_table(pa.table({"vector": rows}), tmp_path / "x.parquet", compression="zstd")
    assert (tmp_path / "x.parquet").stat().st_size < 1000
    with pytest.raises(FormatError, match=r"would grow from [0-9]+ to 80000000 bytes"):
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
    monkeypatch.setattr(growth, "MOST_BYTES", 5000)
    found = open_vectors(tmp_path / "x.parquet").read().metadata
    assert found["text"].to_pylist() == texts
    assert found.equals(rows.select(["text", "b"]))


def varint(number: int, length: int = 0) -> bytes:
    """A number as Thrift's compact protocol has it, in as many bytes as asked."""
    zigzag = 2 * number if number >= 0 else -2 * number - 1
    length = length or max(1, -(-zigzag.bit_length() // 7))
    parts = [(zigzag >> 7 * n) & 127 for n in range(length)]
    return bytes([*(part | 128 for part in parts[:-1]), parts[-1]])


LARGEST = 2**31 - 1
FORGED_PAGES = {
    "unpacked": ("would grow from [0-9]+ to 2147483647 bytes", (LARGEST, 1, 10)),
    "packed": ("lies beyond the end of its column", (80, LARGEST, 10)),
    "values": (f"pages of a column hold {LARGEST} values, its footer says 10", (80, 1, LARGEST)),
    "negative": ("header cannot be so", (-1, 1, 10)),
    "too large": ("header cannot be so", (2**32, 1, 10)),
}


def first_page(path: Path, unpacked: int, packed: int, values: int) -> bytes:
    """The file with the header of its first page written anew, over what the page holds."""
    numbers = [varint(number) for number in (unpacked, packed, values)]
    header = b"\x15\0\x15%b\x15%b\x2c\x15%b\x15\0\x15\x06\x15\x06\0\0" % tuple(numbers)
    return path.read_bytes()[:4] + header + path.read_bytes()[4 + len(header) :]


@pytest.mark.parametrize("forged", list(FORGED_PAGES))
def test_page_headers_that_lie(tmp_path: Path, forged: str) -> None:
    path = tmp_path / "x.parquet"
    rows = pa.table({"text": pa.array([f"{row:8}" for row in range(10)]), "vector": vectors(10)})
    pq.write_table(rows, path, compression="zstd", use_dictionary=False)
    assert pq.read_metadata(path).row_group(0).column(0).data_page_offset == 4
    said, numbers = FORGED_PAGES[forged]
    path.write_bytes(first_page(path, *numbers))
    found = answer(READ, tmp_path)
    assert re.search(f"^FormatError .*{said}", found.said)
    assert found.peak < 400


def test_a_page_that_is_not_as_its_footer_says(tmp_path: Path) -> None:
    path = tmp_path / "x.parquet"
    rows = pa.table({"text": ["A" * 2**27] * 2, "vector": vectors(2)})
    pq.write_table(rows, path, compression="zstd", use_dictionary=False, write_statistics=False)
    column = pq.read_metadata(path).row_group(0).column(0)
    true = varint(column.total_uncompressed_size)
    at = path.read_bytes().rindex(true)
    path.write_bytes(path.read_bytes()[:at] + varint(100, len(true)) + path.read_bytes()[at + 5 :])
    forged = pq.read_metadata(path).row_group(0).column(0)
    assert (column.total_uncompressed_size > 2**28, forged.total_uncompressed_size) == (True, 100)
    found = answer(READ, tmp_path)
    assert re.search("^FormatError .*column 'text' would grow from", found.said)
    assert found.peak < 400


def within(texts: pa.Array) -> dict[str, pa.Array]:
    struct = pa.StructArray.from_arrays([texts], ["inner"])
    lists = pa.array(np.arange(len(texts) + 1), pa.int32())
    return {
        "struct": struct,
        "list": pa.ListArray.from_arrays(lists, texts),
        "list of structs": pa.ListArray.from_arrays(lists, struct),
    }


@pytest.mark.parametrize("kind", ["struct", "list", "list of structs"])
def test_a_long_text_that_every_row_names_within(tmp_path: Path, kind: str) -> None:
    rows = {"vector": vectors(20_000), "x": within(named_often("A" * 2**20, 20_000))[kind]}
    pq.write_table(pa.table(rows), tmp_path / "x.parquet", compression="zstd", store_schema=False)
    found = answer(READ, tmp_path)
    assert "rows of column 'x' take 8589934592 bytes" in found.said
    assert found.peak < 400


def test_texts_within_that_share_their_beginnings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(growth, "MOST_BYTES", 2**26)
    monkeypatch.setattr(growth, "MAX_RATIO", 2**17)
    texts = within(pa.array([f"{'A' * 2**18}{row}" for row in range(400)]))
    encodings = {"s.inner": "DELTA_BYTE_ARRAY", "l.list.element": "DELTA_BYTE_ARRAY"}
    path = tmp_path / "x.parquet"
    rows = pa.table({"vector": vectors(400), "s": texts["struct"], "l": texts["list"]})
    pq.write_table(rows, path, compression="zstd", use_dictionary=False, column_encoding=encodings)
    with open_door(path) as file:
        assert 2**24 < max(batch.nbytes for batch in file.batches(400, ["s"])) < 2**26
        with pytest.raises(FormatError, match=r"column 'l.list.element' would grow"):
            list(file.batches(400, ["l"]))


def test_batches_are_as_short_as_long_texts_need(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts = [f"{row}" + "A" * (1000 if row % 100 == 3 else 1) for row in range(1000)]
    path = tmp_path / "x.parquet"
    rows = pa.table({"t": texts, "l": within(pa.array(texts))["list"], "vector": vectors(1000)})
    pq.write_table(rows, path, use_dictionary=False, data_page_size=500, write_batch_size=10)
    monkeypatch.setattr(growth, "MOST_BYTES", 10_000)
    monkeypatch.setattr(growth, "MAX_DENSE", 0)
    with open_door(path) as file:
        batches = list(file.batches(1000))
    assert pa.Table.from_batches(batches).equals(rows)
    assert 2 < max(map(len, batches)) < 1000
    assert max(batch.nbytes for batch in batches) <= 10_000
    monkeypatch.setattr(growth, "MOST_BYTES", 1000)
    with open_door(path) as file, pytest.raises(FormatError, match="one row may take"):
        list(file.batches(1000))


def test_footers_larger_than_any(tmp_path: Path) -> None:
    path = tmp_path / "x.parquet"
    large = {"a": "A" * 2**22}
    pq.write_table(pa.table({"vector": vectors(2)}).replace_schema_metadata(large), path)
    with pytest.raises(FormatError, match=r"its footer of [0-9]+ bytes is larger than any"):
        open_vectors(path)


def test_rows_that_no_bytes_are_there_for(tmp_path: Path) -> None:
    path = tmp_path / "x.parquet"
    pq.write_table(pa.table({"year": pa.array(np.full(20_000_000, 1999, np.int16))}), path)
    assert path.stat().st_size < 80_000
    with pytest.raises(FormatError, match=r"20000000 rows in [0-9]+ bytes, as no vectors are"):
        open_vectors(path)


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
