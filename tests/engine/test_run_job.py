from __future__ import annotations

import dataclasses
import fcntl
import json
import os
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from small_job import DIM, ROWS, content, in_child, make_job, piece

from embedpress.engine import Job, Piece, run_job
from embedpress.engine.lock import folder_lock
from embedpress.errors import (
    FormatError,
    InputError,
    MismatchError,
    StorageError,
    UsageError,
)
from embedpress.vectors import Manifest, open_vectors, read_manifest, shard_table, verify


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "deep" / "out"


def test_what_is_written_is_what_the_work_gave(out: Path) -> None:
    manifest = run_job(make_job(out))
    assert read_manifest(out) == manifest
    assert verify(out) == []
    batch = open_vectors(out).read()
    tables = [piece(i).table for i in range(4)]
    assert batch.ids.to_pylist() == [i for t in tables for i in t.column("id").to_pylist()]
    assert batch.metadata.equals(pa.concat_tables(tables).select(["text"]))
    expected = [v for t in tables for v in t.column("vector").to_pylist()]
    np.testing.assert_array_equal(batch.vectors, np.array(expected, np.float32))
    assert manifest.count == 4 * ROWS
    assert manifest.counters == {"truncated": 6, "skipped": 2}
    assert manifest.model == "small"
    skipped = [json.loads(line) for line in (out / "skipped.jsonl").read_text().splitlines()]
    assert skipped == [{"row": 150, "reason": "broken"}, {"row": 350, "reason": "broken"}]
    shards = [f"part-0000{i}.parquet" for i in range(4)]
    assert sorted(content(out)) == ["manifest.json", *shards, "skipped.jsonl"]


def test_two_folders_of_one_job_are_equal(tmp_path: Path) -> None:
    run_job(make_job(tmp_path / "a"))
    time.sleep(0.01)
    run_job(make_job(tmp_path / "b"))
    assert content(tmp_path / "a") == content(tmp_path / "b")


def test_codes(out: Path) -> None:
    codes = np.arange(24, dtype=np.uint8).reshape(6, 4)
    header = Manifest("codes", 4, dtype="uint8", metric="ip")
    halves = [shard_table(range(3), codes[:3]), shard_table(range(3, 6), codes[3:])]
    run_job(Job(out, header, "", lambda done: enumerate(halves), Piece))
    batch = open_vectors(out).read()
    np.testing.assert_array_equal(batch.vectors, codes)
    assert batch.ids.to_pylist() == list(range(6))
    assert "skipped.jsonl" not in content(out)


def test_a_finished_job_returns_at_once(out: Path) -> None:
    first = run_job(make_job(out))
    before, calls, told = content(out), [], []
    assert run_job(make_job(out, calls=calls), progress=told.append) == first
    assert calls == []
    assert sum(told) == 4 * ROWS + 2
    assert content(out) == before


def test_progress_adds_up_to_the_input_rows(out: Path) -> None:
    told: list[int] = []
    run_job(make_job(out), progress=told.append)
    assert told == [ROWS, ROWS + 1, ROWS, ROWS + 1]


def failing_at(last: int, error: BaseException) -> object:
    def work(index: int) -> Piece:
        if index == last:
            raise error
        return piece(index)

    return work


@pytest.mark.parametrize("error", [RuntimeError("boom"), KeyboardInterrupt(), MemoryError()])
@pytest.mark.parametrize("at", [0, 1, 3])
def test_a_stopped_job_resumes_where_it_was(
    out: Path, tmp_path: Path, error: BaseException, at: int
) -> None:
    with pytest.raises(type(error)):
        run_job(make_job(out, work=failing_at(at, error)))
    assert "manifest.json" not in content(out)
    assert "journal.jsonl" in content(out)
    assert "job.lock" not in content(out)
    calls: list[int] = []
    told: list[int] = []
    run_job(make_job(out, calls=calls), progress=told.append)
    assert calls == list(range(at, 4))
    assert sum(told) == 4 * ROWS + 2
    run_job(make_job(tmp_path / "whole"))
    assert content(out) == content(tmp_path / "whole")


@pytest.mark.parametrize("finished", [False, True])
@pytest.mark.parametrize(
    ("options", "inputs", "text"),
    [
        ({"batch": 5}, "inputs", "batch was 2, now 5"),
        ({"more": {"deep": 1}}, "inputs", "more was not set, now {'deep': 1}"),
        ({}, "others", "the input data"),
    ],
)
def test_another_job_is_refused_by_name(
    out: Path, finished: bool, options: dict[str, object], inputs: str, text: str
) -> None:
    if finished:
        run_job(make_job(out))
    else:
        with pytest.raises(RuntimeError):
            run_job(make_job(out, work=failing_at(2, RuntimeError())))
    before = content(out)
    with pytest.raises(MismatchError, match=text):
        run_job(make_job(out, inputs=inputs, **options))
    assert content(out) == before


def test_another_model_is_refused_by_name(out: Path) -> None:
    job = make_job(out)
    run_job(job)
    header = dataclasses.replace(job.header, model="large", metric="ip")
    with pytest.raises(MismatchError, match="metric was 'cosine', now 'ip'; model was 'small'"):
        run_job(dataclasses.replace(job, header=header))


@pytest.mark.parametrize("damage", ["flip", "truncate", "remove", "link"])
@pytest.mark.parametrize("finished", [False, True])
def test_a_bad_shard_is_redone_alone(
    out: Path, tmp_path: Path, damage: str, finished: bool
) -> None:
    run_job(make_job(tmp_path / "whole"))
    if finished:
        run_job(make_job(out))
    else:
        with pytest.raises(RuntimeError):
            run_job(make_job(out, work=failing_at(3, RuntimeError())))
    path = out / "part-00001.parquet"
    data = bytearray(path.read_bytes())
    path.unlink()
    if damage == "flip":
        data[60] ^= 4
        path.write_bytes(data)
    elif damage == "truncate":
        path.write_bytes(data[:-1])
    elif damage == "link":
        (tmp_path / "elsewhere").write_bytes(data)
        path.symlink_to(tmp_path / "elsewhere")
    calls: list[int] = []
    run_job(make_job(out, calls=calls))
    assert calls == ([1] if finished else [1, 3])
    assert content(out) == content(tmp_path / "whole")
    assert not path.is_symlink()


def test_a_shard_made_again_with_other_bits_gets_a_new_checksum(out: Path) -> None:
    run_job(make_job(out))
    (out / "part-00002.parquet").unlink()

    def rounded(index: int) -> Piece:
        table = piece(index).table
        x = np.full((ROWS, DIM), 0.5, np.float32)
        return Piece(shard_table(table.column("id"), x, table.select(["text"])))

    manifest = run_job(make_job(out, work=rounded))
    assert verify(out) == []
    assert read_manifest(out) == manifest
    assert manifest.counters == {"truncated": 6, "skipped": 2}
    assert (open_vectors(out).read().vectors[2 * ROWS : 3 * ROWS] == 0.5).all()


def test_a_shard_made_again_with_other_rows_is_refused(out: Path) -> None:
    run_job(make_job(out))
    (out / "part-00002.parquet").unlink()
    with pytest.raises(MismatchError, match="came out with 2 rows, it had 6"):
        run_job(make_job(out, work=lambda i: Piece(piece(i).table.slice(0, 2))))
    with pytest.raises(MismatchError, match="no longer give part-00002"):
        run_job(make_job(out, shards=2))


def test_duplicate_ids_are_refused_over_all_shards(out: Path) -> None:
    def work(index: int) -> Piece:
        return piece(0 if index == 3 else index)

    with pytest.raises(InputError, match=r"id 'id0' comes twice .*row 0 of part-00003"):
        run_job(make_job(out, work=work))
    with pytest.raises(InputError, match="id 'id0' comes twice"):
        run_job(make_job(out, work=work))
    within = Piece(shard_table(["a", "b", "a"], np.ones((3, DIM), np.float32)))
    with pytest.raises(InputError, match=r"id 'a' comes twice .*row 2 of part-00000"):
        run_job(make_job(out.with_name("within"), work=lambda i: within))


def test_integer_ids_out_of_order_and_twice(out: Path) -> None:
    def work(index: int) -> Piece:
        table = piece(index, text_ids=False).table
        return Piece(table.take(pa.array([3, 1, 5, 0])))

    assert run_job(make_job(out, work=work)).count == 16
    same = lambda index: work(0 if index == 2 else index)  # noqa: E731
    with pytest.raises(InputError, match="id 3 comes twice"):
        run_job(make_job(out.with_name("twice"), work=same))


X = np.ones((2, DIM), np.float32)


@pytest.mark.parametrize(
    ("table", "text"),
    [
        (shard_table([1, 2], np.ones((2, DIM + 1), np.float32)), "not embeddings of dimension 3"),
        (shard_table([1, 2], np.ones((2, DIM), np.uint8)), "first columns must be"),
        (shard_table([1, 2], X * np.float32([[1], [np.nan]])), "row 1 holds NaN"),
        (shard_table([1, 2], X * np.float32([[1], [0]])), "row 1 is all zeros"),
        (pa.table({"id": [1, 2], "vector": [[1.0] * DIM] * 2}), "not embeddings of dimension"),
        (pa.table({"x": [1, 2]}), "first columns must be"),
        (shard_table([1, 2], X).set_column(0, "id", pa.array([1.5, 2])), "not int64 or string"),
    ],
)
def test_a_piece_that_does_not_fit(out: Path, table: pa.Table, text: str) -> None:
    with pytest.raises(InputError, match=text):
        run_job(make_job(out, work=lambda i: Piece(table)))


def test_pieces_of_different_columns(out: Path) -> None:
    def work(index: int) -> Piece:
        table = piece(index).table
        return Piece(table.drop_columns(["text"]) if index == 2 else table)

    with pytest.raises(InputError, match=r"part-00002.* other columns .*text: string"):
        run_job(make_job(out, work=work))


def test_a_piece_may_be_empty_but_not_all_of_them(out: Path) -> None:
    def work(index: int) -> Piece:
        found = piece(index)
        return Piece(found.table.slice(0, 0), [{"row": index}]) if index != 2 else found

    manifest = run_job(make_job(out, work=work))
    assert (manifest.count, manifest.counters["skipped"]) == (ROWS, 3)
    assert open_vectors(out).read().ids.to_pylist() == piece(2).table.column("id").to_pylist()
    with pytest.raises(InputError, match="no rows to write, all 2 were skipped"):
        run_job(make_job(out.with_name("skipped"), shards=2, work=work))
    with pytest.raises(InputError, match="no rows to write, the input is empty"):
        run_job(make_job(out.with_name("empty"), shards=0))


def test_chunks_must_be_numbered_without_gaps(out: Path) -> None:
    job = make_job(out)
    gaps = dataclasses.replace(job, chunks=lambda done: ((i, i) for i in (0, 2)))
    with pytest.raises(UsageError, match="gave shard 2 but no shard 1"):
        run_job(gaps)
    with pytest.raises(UsageError, match="shard 0 of the job came twice"):
        run_job(dataclasses.replace(job, chunks=lambda done: ((i, i) for i in (1, 0))))


def test_a_folder_of_something_else_is_left_alone(out: Path) -> None:
    out.mkdir(parents=True)
    (out / "part-00000.parquet").write_bytes(b"precious")
    with pytest.raises(UsageError, match="give an empty or a new folder"):
        run_job(make_job(out))
    assert content(out) == {"part-00000.parquet": b"precious"}
    (out / "manifest.json").write_text('{"format_version": 1, "kind": "index"}')
    with pytest.raises(FormatError, match="give another folder"):
        run_job(make_job(out))
    file = out.with_name("file")
    file.write_text("")
    with pytest.raises(UsageError, match="is a file"):
        run_job(make_job(file))
    with pytest.raises(StorageError):
        run_job(make_job(file / "inner"))


def test_a_configuration_that_is_no_json_is_refused(out: Path) -> None:
    with pytest.raises(UsageError, match="must be JSON"):
        run_job(make_job(out, path=Path("x")))
    assert not out.exists()


def test_one_writer_a_folder(out: Path) -> None:
    out.mkdir(parents=True)
    with (
        folder_lock(out),
        pytest.raises(StorageError, match="another process is writing to"),
    ):
        run_job(make_job(out))
    assert list(content(out)) == []
    run_job(make_job(out))


def test_a_lock_on_a_removed_file_is_no_lock(out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out.mkdir(parents=True)
    flock, calls = fcntl.flock, []

    def late(descriptor: int, how: int) -> None:
        # The holder before us leaves, and removes the file, between our open and our lock.
        if not calls:
            (out / "job.lock").unlink()
        calls.append(how)
        flock(descriptor, how)

    monkeypatch.setattr(fcntl, "flock", late)
    with folder_lock(out):
        assert (out / "job.lock").exists()
        with pytest.raises(StorageError, match="another process"), folder_lock(out):
            pass
    assert len(calls) == 3


def test_the_lock_holds_between_processes_and_ends_with_them(out: Path) -> None:
    out.mkdir(parents=True)
    reading, writing = os.pipe()

    def hold() -> None:
        with folder_lock(out):
            os.write(writing, b"x")
            time.sleep(30)

    child = os.fork()
    if child == 0:
        try:
            hold()
        finally:
            os._exit(1)
    try:
        assert os.read(reading, 1) == b"x"
        with pytest.raises(StorageError, match="another process"):
            run_job(make_job(out))
    finally:
        os.kill(child, 9)
        os.waitpid(child, 0)
        os.close(reading)
        os.close(writing)
    assert (out / "job.lock").exists()
    run_job(make_job(out))
    assert "job.lock" not in content(out)


def test_a_job_works_in_a_forked_process(out: Path, tmp_path: Path) -> None:
    assert in_child(lambda: run_job(make_job(out)) and None) == 0
    run_job(make_job(tmp_path / "whole"))
    assert content(out) == content(tmp_path / "whole")
