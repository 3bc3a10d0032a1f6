"""Arrow files that stand for far more than they hold."""

from __future__ import annotations

import json
import re
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from child import answer, one_line
from damage import ANYTHING, DAMAGE, Damage, damaged
from hypothesis import given, settings
from samples import curved, write_embeddings

from embedpress.errors import FormatError
from embedpress.extract.texts import open_texts
from embedpress.vectors import open_vectors

READ = """
from embedpress.vectors import open_vectors
for batch in open_vectors(folder / "x.arrow").iter_batches(): pass
"""
TEXTS = """
from embedpress.extract.texts import open_texts
for chunk in open_texts(folder / "x.arrow").chunks(1000): pass
"""


def vectors(rows: int, dim: int = 2) -> pa.Array:
    return pa.FixedSizeListArray.from_arrays(pa.array(np.ones(dim * rows, np.float32)), dim)


def write(path: Path, table: pa.Table, form: str = "file", packed: str | None = None) -> Path:
    options = pa.ipc.IpcWriteOptions(compression=packed)
    opener = pa.ipc.new_file if form == "file" else pa.ipc.new_stream
    with opener(path, table.schema, options=options) as writer:
        writer.write_table(table, max_chunksize=700)
    return path


@pytest.mark.parametrize("form", ["file", "stream"])
@pytest.mark.parametrize("packed", [None, "lz4", "zstd"])
def test_honest_files_are_read(tmp_path: Path, form: str, packed: str | None) -> None:
    texts = pa.array([f"text {n % 7}" for n in range(3000)])
    rows = pa.table(
        {
            "vector": curved(3000).tolist(),
            "named": texts.dictionary_encode(),
            "seen": texts.cast(pa.string_view()),
            "empty": pa.nulls(3000, pa.string()),
        }
    ).cast(
        pa.schema(
            {
                "vector": pa.list_(pa.float32()),
                "named": pa.dictionary(pa.int32(), pa.string()),
                "seen": pa.string_view(),
                "empty": pa.string(),
            }
        )
    )
    found = open_vectors(write(tmp_path / "x.arrow", rows, form, packed)).read()
    assert np.array_equal(found.vectors, curved(3000))
    assert found.metadata["named"].to_pylist() == texts.to_pylist()
    assert found.metadata["seen"].to_pylist() == texts.to_pylist()
    assert open_texts(tmp_path / "x.arrow", column="named").count == 3000


@pytest.mark.parametrize("packed", ["lz4", "zstd"])
def test_packed_numbers_that_are_one_number(tmp_path: Path, packed: str) -> None:
    rows = pa.table({"vector": vectors(600, 2**15)})
    write(tmp_path / "x.arrow", rows, packed=packed)
    assert (tmp_path / "x.arrow").stat().st_size < 400_000
    found = answer(READ, tmp_path)
    assert re.search("^FormatError .* a batch would grow from [0-9]+ to 786", found.said)
    assert found.peak < 300


@pytest.mark.parametrize("claimed", [2**31, 2**62, -2])
def test_lengths_that_are_claimed(tmp_path: Path, claimed: int) -> None:
    rows = pa.table({"vector": vectors(600)})
    path = write(tmp_path / "x.arrow", rows, packed="zstd")
    true = struct.pack("<q", 4800)
    assert path.read_bytes().count(true) == 1
    path.write_bytes(path.read_bytes().replace(true, struct.pack("<q", claimed)))
    found = answer(READ, tmp_path)
    assert re.search("^FormatError .*(batch would grow from|a length below zero)", found.said)
    assert found.peak < 300


def named_often(text: str, rows: int) -> dict[str, pa.Array]:
    views = np.zeros((rows, 4), "<i4")
    views[:, 0] = len(text)
    views[:, 1] = int.from_bytes(text[:4].encode(), "little")
    buffers = [None, pa.py_buffer(views.tobytes()), pa.py_buffer(text.encode())]
    numbered = pa.DictionaryArray.from_arrays(pa.array(np.zeros(rows, np.int32)), [text])
    return {
        "numbered": numbered,
        "viewed": pa.Array.from_buffers(pa.string_view(), rows, buffers),
        "within": pa.StructArray.from_arrays([numbered], ["inner"]),
    }


@pytest.mark.parametrize("kind", ["numbered", "viewed", "within"])
@pytest.mark.parametrize("read", [READ, TEXTS])
def test_a_long_text_that_every_row_names(tmp_path: Path, kind: str, read: str) -> None:
    texts = named_often("A" * 2**24, 700)[kind]
    rows = pa.table({"text": texts, "vector": vectors(700)})
    write(tmp_path / "x.arrow", rows)
    found = answer(read, tmp_path)
    if kind == "within" and read == TEXTS:  # columns of structs are left out of texts
        assert found.said.startswith("InputError")
    else:
        assert "rows of column 'text' take 1174" in found.said
    assert found.peak < 400


@pytest.mark.parametrize(
    "kind", [pa.list_view(pa.int64()), pa.run_end_encoded(pa.int32(), pa.string())]
)
def test_columns_that_overlap_or_repeat_are_not_read(tmp_path: Path, kind: Any) -> None:
    values: dict[Any, Any] = {
        pa.list_view(pa.int64()): pa.ListViewArray.from_arrays([0, 0], [2, 2], [1, 2]),
    }
    runs = pa.RunEndEncodedArray.from_arrays(pa.array([2], pa.int32()), ["A"])
    rows = pa.table({"vector": vectors(2), "odd": values.get(kind, runs)})
    write(tmp_path / "x.arrow", rows)
    with pytest.raises(FormatError, match="which is not read: cast it to a plain one"):
        open_vectors(tmp_path / "x.arrow").read()


def test_a_directory_behind_the_batches_is_not_followed(tmp_path: Path) -> None:
    rows = pa.table({"vector": curved(900).tolist()}).cast(
        pa.schema({"vector": pa.list_(pa.float32())})
    )
    data = write(tmp_path / "x.arrow", rows).read_bytes()
    size = int.from_bytes(data[-10:-6], "little")
    (tmp_path / "x.arrow").write_bytes(data[: -10 - size] + b"\xff" * size + data[-10:])
    assert np.array_equal(open_vectors(tmp_path / "x.arrow").read().vectors, curved(900))


def test_days_that_no_calendar_has(tmp_path: Path) -> None:
    rows = {"text": ["a", "b"], "vector": vectors(2), "day": pa.array([1, 2**31 - 1], pa.date32())}
    write(tmp_path / "x.arrow", pa.table(rows))
    for read in (lambda path: open_vectors(path).read(), open_texts):
        with pytest.raises(FormatError, match="not a readable Arrow file"):
            read(tmp_path / "x.arrow")


@pytest.mark.parametrize("form", ["struct", "list", "map"])
def test_names_within_that_are_no_text(tmp_path: Path, form: str) -> None:
    inner: Any = pa.array([{"inner": 1}] * 3)
    if form == "list":
        inner = pa.ListArray.from_arrays([0, 1, 2, 3], inner)
    elif form == "map":
        inner = pa.MapArray.from_arrays([0, 1, 2, 3], ["a", "b", "c"], inner)
    path = write(tmp_path / "x.arrow", pa.table({"vector": vectors(3), "x": inner}))
    path.write_bytes(path.read_bytes().replace(b"inner", b"\xe2nner"))
    with pytest.raises(FormatError, match="codec can't decode byte 0xe2"):
        open_vectors(path)


def test_more_rows_than_bytes(tmp_path: Path) -> None:
    path = tmp_path / "x.arrow"
    rows = pa.table({"nothing": pa.nulls(10**9)})
    with pa.ipc.new_file(path, rows.schema) as writer:
        writer.write_table(rows)
    with pytest.raises(FormatError, match=r"1000000000 rows in [0-9]+ bytes, as no vectors are"):
        open_vectors(path)


def test_a_saved_dataset_stays_in_its_folder(tmp_path: Path) -> None:
    folder = tmp_path / "saved"
    folder.mkdir()
    write(folder / "a.arrow", pa.table({"vector": vectors(3)}), "stream")
    state: dict[str, Any] = {"_data_files": [{"filename": "a.arrow"}]}
    (folder / "state.json").write_text(json.dumps(state))
    assert open_vectors(folder).count == 3
    (folder / "state.json").write_text(json.dumps({"_data_files": state["_data_files"] * 2}))
    with pytest.raises(FormatError, match=r"names no .arrow files of its folder"):
        open_vectors(folder)
    (folder / "state.json").write_text(json.dumps(state))
    (folder / "a.arrow").rename(tmp_path / "a.arrow")
    (folder / "a.arrow").symlink_to(tmp_path / "a.arrow")
    for read in (open_vectors, open_texts):
        with pytest.raises(FormatError, match="a link that leads out of its folder"):
            read(folder)


def test_shards_of_a_dataset_are_looked_at(tmp_path: Path) -> None:
    pytest.importorskip("datasets")
    import pyarrow.parquet as pq

    from embedpress.vectors import sha256_of

    write_embeddings(tmp_path / "emb", curved(250))
    file = tmp_path / "emb" / "part-00000.parquet"
    text = named_often("A" * 2**23, 250)["numbered"]
    rows = pq.read_table(file).append_column("text", text)
    pq.write_table(rows, file, store_schema=False)
    manifest = json.loads((tmp_path / "emb" / "manifest.json").read_text())
    manifest["shards"][0] |= {"bytes": file.stat().st_size, "sha256": sha256_of(file)}
    (tmp_path / "emb" / "manifest.json").write_text(json.dumps(manifest))
    code = "from embedpress.vectors.hf_datasets import to_dataset\nto_dataset(folder / 'emb')"
    assert "250 rows of column 'text' take 2097152000" in answer(code, tmp_path).said


@pytest.mark.parametrize("form", ["file", "stream"])
@pytest.mark.parametrize("packed", [None, "zstd"])
@given(damage=DAMAGE)
@settings(max_examples=50, **ANYTHING)
def test_damage_is_answered(tmp_path: Path, form: str, packed: str | None, damage: Damage) -> None:
    texts = pa.array(["a", "b", None] * 20).dictionary_encode()
    rows = pa.table({"id": range(60), "vector": vectors(60), "text": texts})
    path = write(tmp_path / "x.arrow", rows, form, packed)
    path.write_bytes(damaged(path.read_bytes(), damage))
    with one_line():
        for batch in open_vectors(path).iter_batches(7):
            assert batch.vectors.shape[1] == 2
