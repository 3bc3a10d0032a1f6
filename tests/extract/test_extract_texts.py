from __future__ import annotations

import gzip
import json
import tempfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from embedpress.errors import FormatError, InputError, UsageError
from embedpress.extract import rows, texts
from embedpress.extract.texts import TextChunk, open_texts


def write(path: Path, content: str | bytes) -> Path:
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def all_of(path: Path, rows: int = 1000, **options: str) -> TextChunk:
    chunks = [chunk for _, chunk in open_texts(path, **options).chunks(rows)]
    return TextChunk(
        pa.concat_arrays([chunk.ids for chunk in chunks]),
        [text for chunk in chunks for text in chunk.texts],
        pa.concat_tables([chunk.metadata for chunk in chunks]),
        sum(chunk.blank for chunk in chunks),
    )


def test_txt_skips_blank_lines_and_numbers_by_line(tmp_path: Path) -> None:
    path = write(tmp_path / "a.txt", "\ufefffirst\r\n\n  \n  second\u2028line \n日本 😀\n\n")
    found = all_of(path)
    assert found.texts == ["first", "  second\u2028line ", "日本 😀"]
    assert found.ids.to_pylist() == [0, 3, 4]
    assert found.ids.type == pa.int64()
    assert found.metadata.num_columns == 0
    assert found.blank == open_texts(path).blank == 3
    assert open_texts(path).count == 3


def test_a_last_line_without_end_counts(tmp_path: Path) -> None:
    assert all_of(write(tmp_path / "a.txt", "one\ntwo")).texts == ["one", "two"]


def test_jsonl_keeps_other_columns_with_their_types(tmp_path: Path) -> None:
    records = [
        {"text": "a", "n": 1, "x": 1, "ok": True, "s": "é", "mixed": 1, "deep": {"k": [1]}},
        {"text": "", "n": -(2**63), "x": 0.5, "ok": False, "s": "", "mixed": "two"},
        {"text": "c", "big": 2**63, "n": None, "id": "kept", "mixed": None},
    ]
    path = write(tmp_path / "a.jsonl", "\n".join(map(json.dumps, records)))
    table = all_of(path, rows=2).metadata
    assert table.schema == pa.schema(
        [
            ("n", pa.int64()),
            ("x", pa.float64()),
            ("ok", pa.bool_()),
            ("s", pa.string()),
            ("mixed", pa.string()),
            ("deep", pa.string()),
            ("big", pa.string()),
            ("id_", pa.string()),
        ]
    )
    assert table.to_pylist() == [
        {"n": 1, "x": 1.0, "ok": True, "s": "é", "mixed": "1", "deep": '{"k": [1]}'}
        | {"big": None, "id_": None},
        {"n": -(2**63), "x": 0.5, "ok": False, "s": "", "mixed": "two", "deep": None}
        | {"big": None, "id_": None},
        {"n": None, "x": None, "ok": None, "s": None, "mixed": None, "deep": None}
        | {"big": "9223372036854775808", "id_": "kept"},
    ]


def test_csv_recognises_numbers_only_where_nothing_is_lost(tmp_path: Path) -> None:
    path = write(
        tmp_path / "a.csv",
        'text,n,x,zip,huge,note\n"a, ""b""\nc",1,1.5,007,1e999,\nd,-2,3,12,2,nan\n',
    )
    found = all_of(path)
    assert found.texts == ['a, "b"\nc', "d"]
    assert found.metadata.to_pylist() == [
        {"n": 1, "x": 1.5, "zip": "007", "huge": "1e999", "note": ""},
        {"n": -2, "x": 3.0, "zip": "12", "huge": "2", "note": "nan"},
    ]
    assert found.metadata.schema.field("n").type == pa.int64()
    assert found.metadata.schema.field("x").type == pa.float64()


def test_csv_takes_fields_longer_than_the_modules_limit(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", "text\n" + "x" * 200_000 + "\n")
    assert len(all_of(path).texts[0]) == 200_000


def test_parquet_and_a_folder_of_it(tmp_path: Path) -> None:
    folder = tmp_path / "shards"
    folder.mkdir()
    for name, first in (("b", 2), ("a", 0)):
        columns = {
            "body": pa.array([f"t{first}", f"t{first + 1}"]).dictionary_encode(),
            "id": pa.array([first, first + 1], pa.uint8()),
            "vector": pa.array([[1.0], [2.0]]),
            "text": pa.array(["other", None]),
        }
        pq.write_table(pa.table(columns), folder / f"{name}.parquet")
    found = all_of(folder, column="body", id_column="id")
    assert found.texts == ["t0", "t1", "t2", "t3"]
    assert found.ids == pa.array([0, 1, 2, 3])
    assert found.metadata.to_pylist()[:2] == [{"text_": "other"}, {"text_": None}]
    assert all_of(folder, column="body").ids.to_pylist() == [0, 1, 2, 3]


@pytest.mark.parametrize("suffix", [".txt", ".jsonl", ".csv"])
def test_gzipped_is_the_same(suffix: str, tmp_path: Path) -> None:
    content = {".txt": "a\nb\n", ".jsonl": '{"text":"a"}\n{"text":"b"}\n', ".csv": "text\na\nb\n"}
    plain = write(tmp_path / f"a{suffix}", content[suffix])
    packed = write(tmp_path / f"a{suffix}.gz", gzip.compress(content[suffix].encode()))
    assert all_of(packed).texts == all_of(plain).texts == ["a", "b"]
    write(packed, packed.read_bytes()[:-9])
    with pytest.raises(FormatError, match="gzip"):
        open_texts(packed)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([3, 1], pa.array([3, 1])),
        (["b", "a"], pa.array(["b", "a"])),
        ([1, "x"], pa.array(["1", "x"])),
        ([2**70, 5], pa.array([str(2**70), "5"])),
    ],
)
def test_ids_are_integers_or_strings(values: list[object], expected: pa.Array, tmp_path: Path):
    lines = (json.dumps({"key": value, "text": "t"}) for value in values)
    path = write(tmp_path / "a.jsonl", "\n".join(lines))
    assert all_of(path, id_column="key").ids == expected


def test_csv_ids_with_leading_zeros_stay_strings(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", "key,text\n007,a\n7,b\n")
    assert all_of(path, id_column="key").ids.to_pylist() == ["007", "7"]
    path = write(tmp_path / "a.csv", "key,text\n6,a\n7,b\n")
    assert all_of(path, id_column="key").ids == pa.array([6, 7])


@pytest.mark.parametrize(
    ("name", "content", "error", "message"),
    [
        ("a.txt", b"good\nbad \xe9\n", FormatError, r"a\.txt, line 2: not UTF-8 \(byte 0xe9 at c"),
        ("a.txt", b"\xff\xfea\x00", FormatError, "line 1: not UTF-8"),
        ("a.txt", "\n \n", InputError, "no texts"),
        ("a.csv", "", InputError, "no texts"),
        ("a.csv", "text\n", InputError, "no texts"),
        ("a.jsonl", '{"text": "a"}\n\n{"text": \n', FormatError, r"a\.jsonl, line 3: not JSON"),
        ("a.jsonl", '{"text": "a"}\n["a"]\n', FormatError, r'line 2: not a JSON object but \["a"'),
        ("a.jsonl", '{"text": "\\ud800"}\n', FormatError, "line 1: not JSON .* half a"),
        ("a.jsonl", '{"text": ' + "[" * 100_000, FormatError, "line 1: not JSON"),
        ("a.jsonl", '{"text": "a"}\n{"txt": "b"}\n', InputError, r"line 2: no column 'text'; it"),
        ("a.jsonl", '{"text": null}\n', InputError, "line 1: the text in column 'text' is missing"),
        ("a.jsonl", '{"text": 3}\n', InputError, r"line 1: .* is not a string \(3\)"),
        ("a.csv", "text,a\nx,1\ny\n", FormatError, "line 3: 1 fields where the header has 2"),
        ("a.csv", "text,text\nx,1\n", FormatError, "column 'text' is named twice"),
        ("a.csv", 'text\n"x\n', FormatError, "line 2: not CSV"),
        ("a.csv", "body\nx\n", InputError, "line 2: no column 'text'"),
        ("a.parquet", b"PAR1 nonsense", FormatError, "not a readable Parquet"),
    ],
)
def test_bad_files_are_named_with_the_line(
    name: str, content: str | bytes, error: type[Exception], message: str, tmp_path: Path
) -> None:
    with pytest.raises(error, match=message) as caught:
        open_texts(write(tmp_path / name, content))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (['{"key":1,"text":"a"}', '{"key":2,"text":"b"}', '{"key":1,"text":"c"}'], "row 2 "),
        (['{"key":1,"text":"a"}', '{"key":"1","text":"b"}'], "'1'"),
        (['{"key":null,"text":"a"}'], "line 1: the id in column 'key' is missing"),
        (['{"key":"","text":"a"}'], "line 1: the id in column 'key' is missing"),
        (['{"key":1.5,"text":"a"}'], "line 1: id 1.5 is neither"),
        (['{"key":true,"text":"a"}'], "line 1: id True is neither"),
        (['{"text":"a"}'], "line 1: no id column 'key'"),
    ],
)
def test_bad_ids_are_refused(lines: list[str], message: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=message):
        open_texts(write(tmp_path / "a.jsonl", "\n".join(lines)), id_column="key")


def test_duplicates_are_found_across_blocks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(texts, "_ID_BLOCK", 2)
    lines = [json.dumps({"key": f"k{n % 5}", "text": "t"}) for n in range(6)]
    with pytest.raises(InputError, match=r"'k0' of row 5"):
        open_texts(write(tmp_path / "a.jsonl", "\n".join(lines)), id_column="key")


def test_a_file_without_line_ends_does_not_fill_the_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rows, "MAX_LINE_BYTES", 10)
    assert all_of(write(tmp_path / "a.txt", "x" * 9 + "\n")).texts == ["x" * 9]
    with pytest.raises(FormatError, match="line 2: longer than 10 bytes"):
        open_texts(write(tmp_path / "a.txt", "x\n" + "x" * 100))


def test_too_many_columns_are_refused(tmp_path: Path) -> None:
    lines = [json.dumps({"text": "t", f"c{n}": 1}) for n in range(texts.MAX_COLUMNS + 1)]
    with pytest.raises(InputError, match="line 1001: over 1000 columns"):
        open_texts(write(tmp_path / "a.jsonl", "\n".join(lines)))


def test_bad_paths_and_options(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no such file"):
        open_texts(tmp_path / "none.txt")
    with pytest.raises(UsageError, match="texts are read from"):
        open_texts(write(tmp_path / "a.pdf", "x"))
    with pytest.raises(UsageError, match=r"no \.parquet files"):
        open_texts(tmp_path)
    with pytest.raises(UsageError, match="has no id column"):
        open_texts(write(tmp_path / "a.txt", "x"), id_column="key")


def test_the_sum_is_of_the_contents(tmp_path: Path) -> None:
    first = open_texts(write(tmp_path / "a.txt", "x\n")).sha256
    assert open_texts(write(tmp_path / "b.txt", "x\n")).sha256 == first
    assert open_texts(write(tmp_path / "b.txt", "y\n")).sha256 != first


@given(
    texts_and_blanks=st.lists(st.sampled_from(["", " ", "a", "b c", "é"]), min_size=1),
    size=st.integers(1, 7),
    data=st.data(),
)
def test_chunks_are_the_file_cut_at_fixed_places(
    texts_and_blanks: list[str], size: int, data: st.DataObject
) -> None:
    expected = [(n, t) for n, t in enumerate(texts_and_blanks) if t.strip()]
    with tempfile.TemporaryDirectory() as folder:
        path = write(Path(folder, "a.txt"), "\n".join(texts_and_blanks) + "\n")
        if not expected:
            with pytest.raises(InputError):
                open_texts(path)
            return
        opened = open_texts(path)
        chunks = dict(opened.chunks(size))
        count = -(-len(expected) // size)
        assert list(chunks) == list(range(count))
        found = [
            pair
            for chunk in chunks.values()
            for pair in zip(chunk.ids.to_pylist(), chunk.texts, strict=True)
        ]
        assert found == expected
        assert all(len(chunk.texts) == size for chunk in list(chunks.values())[:-1])
        assert sum(chunk.blank for chunk in chunks.values()) == opened.blank
        done = frozenset(data.draw(st.sets(st.integers(0, count - 1))))
        rest = dict(opened.chunks(size, done))
        assert set(rest) == set(chunks) - done
        for index, chunk in rest.items():
            assert chunk == chunks[index]


def test_a_chunk_that_the_memory_does_not_hold(tmp_path: Path) -> None:
    lines = ["short"] * 10 + ["x" * 10_000] * 10
    found = open_texts(write(tmp_path / "a.txt", "\n".join(lines)))
    assert len(list(found.chunks(5, most_bytes=60_000))) == 4
    chunks = found.chunks(10, most_bytes=60_000)
    assert next(chunks)[0] == 0
    with pytest.raises(UsageError, match=r"does not hold 10 rows at once \(row 6 of shard 1 is"):
        next(chunks)
