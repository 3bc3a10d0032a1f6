"""A job shared out among processes ends as the folder of one that was not."""

from __future__ import annotations

import shutil
import signal
import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from small_job import ROWS, content, in_child, kill_at, make_job

from embedpress.engine import RunOptions, run_job
from embedpress.engine.lock import folder_lock
from embedpress.engine.share import Share, parse_share
from embedpress.errors import InputError, MismatchError, StorageError, UsageError
from embedpress.vectors import open_vectors

SHARDS = 5


def share(index: int, count: int) -> RunOptions:
    return RunOptions(shard=f"{index}/{count}")


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    folder = tmp_path_factory.mktemp("whole")
    run_job(make_job(folder, SHARDS))
    return content(folder)


@given(st.integers(1, 50), st.integers(0, 200))
def test_each_shard_is_in_one_share(count: int, shard: int) -> None:
    assert sum(Share(index, count).holds(shard) for index in range(count)) == 1


@pytest.mark.parametrize("text", ["4/4", "1/0", "0/0", "-1/4", "1", "1/2/3", "a/b", "", "1.0/2"])
def test_a_share_that_is_none(text: str) -> None:
    with pytest.raises(UsageError, match="shard"):
        parse_share(text)


def test_options_that_make_no_sense() -> None:
    with pytest.raises(UsageError, match="engine 'slurm' is not one of local, ray"):
        RunOptions(engine="slurm")
    with pytest.raises(UsageError, match="give --engine ray"):
        RunOptions(ray_address="auto")


@pytest.mark.parametrize("count", [1, 2, 3, 7])
def test_shares_one_after_the_other(tmp_path: Path, whole: dict[str, bytes], count: int) -> None:
    told: list[int] = []
    for index in reversed(range(count)):
        calls: list[int] = []
        job = make_job(tmp_path, SHARDS, calls=calls)
        manifest = run_job(job, options=share(index, count), progress=told.append)
        assert calls == list(range(index, SHARDS, count))
        if index:
            assert manifest.count == ROWS * len(calls)
            with pytest.raises(InputError, match="is not finished"):
                open_vectors(tmp_path)
    assert manifest.count == ROWS * SHARDS
    assert sum(told) == SHARDS * ROWS + 2
    assert content(tmp_path) == whole


def test_shares_at_the_same_time(tmp_path: Path, whole: dict[str, bytes]) -> None:
    for trial in range(5):
        out = tmp_path / str(trial)
        statuses: list[int] = []

        def run(index: int, out: Path = out, statuses: list[int] = statuses) -> None:
            job = make_job(out, SHARDS)
            statuses.append(in_child(lambda: run_job(job, options=share(index, 3))))

        threads = [threading.Thread(target=run, args=(index,)) for index in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert statuses == [0, 0, 0]
        assert content(out) == whole


def test_shares_in_folders_of_their_own_are_joined(tmp_path: Path, whole: dict[str, bytes]) -> None:
    joined = tmp_path / "joined"
    joined.mkdir()
    for index in range(3):
        run_job(make_job(tmp_path / str(index), SHARDS), options=share(index, 3))
        for file in (tmp_path / str(index)).iterdir():
            shutil.copy(file, joined)
    damaged = joined / "part-00003.parquet"
    damaged.write_bytes(damaged.read_bytes()[:-1])
    calls: list[int] = []
    run_job(make_job(joined, SHARDS, calls=calls))
    assert calls == [3]
    assert content(joined) == whole


def test_the_last_share_makes_good_what_another_disk_spoilt(
    tmp_path: Path, whole: dict[str, bytes]
) -> None:
    run_job(make_job(tmp_path, SHARDS), options=share(0, 2))
    (tmp_path / "part-00002.parquet").write_bytes(b"spoilt")
    calls: list[int] = []
    run_job(make_job(tmp_path, SHARDS, calls=calls), options=share(1, 2))
    assert calls == [1, 3, 2]
    assert content(tmp_path) == whole


def test_another_number_of_shares_goes_on(tmp_path: Path, whole: dict[str, bytes]) -> None:
    run_job(make_job(tmp_path, SHARDS), options=share(0, 4))
    for index, expected in ((1, [1, 3]), (0, [2])):
        calls: list[int] = []
        run_job(make_job(tmp_path, SHARDS, calls=calls), options=share(index, 2))
        assert calls == expected
    assert content(tmp_path) == whole


def test_a_killed_share_goes_on(tmp_path: Path, whole: dict[str, bytes]) -> None:
    steps = 0
    while True:
        out = tmp_path / str(steps)
        run_job(make_job(out, SHARDS), options=share(1, 2))
        job = make_job(out, SHARDS)
        status = in_child(lambda job=job: run_job(job, options=share(0, 2)), kill_at(steps, out))
        if status == 0:
            break
        assert status == -signal.SIGKILL
        # Either the same share, or one process for all that is left.
        run_job(make_job(out, SHARDS), options=share(0, 2) if steps % 2 else RunOptions())
        assert content(out) == whole, f"killed at step {steps}"
        steps += 3
    assert content(out) == whole
    assert steps > 40


def test_a_finished_folder_is_repaired_by_the_share_concerned(
    tmp_path: Path, whole: dict[str, bytes]
) -> None:
    run_job(make_job(tmp_path, SHARDS))
    (tmp_path / "part-00003.parquet").unlink()
    for index, expected in ((0, []), (1, [3])):
        calls: list[int] = []
        run_job(make_job(tmp_path, SHARDS, calls=calls), options=share(index, 2))
        assert calls == expected
    assert content(tmp_path) == whole


def test_a_share_of_another_job_is_refused(tmp_path: Path) -> None:
    run_job(make_job(tmp_path, SHARDS), options=share(0, 2))
    before = content(tmp_path)
    with pytest.raises(MismatchError, match="batch was 2, now 3"):
        run_job(make_job(tmp_path, SHARDS, batch=3), options=share(1, 2))
    assert content(tmp_path) == before


def test_who_excludes_whom(tmp_path: Path) -> None:
    with folder_lock(tmp_path, Share(0, 3)), folder_lock(tmp_path, Share(2, 3)):
        with pytest.raises(StorageError, match="another process is doing share 2/3"):
            run_job(make_job(tmp_path, SHARDS), options=share(2, 3))
        with pytest.raises(StorageError, match=r"its share of .* of 3, not of 2"):
            run_job(make_job(tmp_path, SHARDS), options=share(1, 2))
        with pytest.raises(StorageError, match="another process is writing to"):
            run_job(make_job(tmp_path, SHARDS))
    with (
        folder_lock(tmp_path),
        pytest.raises(StorageError, match="another process is writing to"),
    ):
        run_job(make_job(tmp_path, SHARDS), options=share(1, 2))
    assert content(tmp_path) == {}


def test_a_job_that_does_not_know_its_shards_cannot_be_shared(tmp_path: Path) -> None:
    import dataclasses

    job = dataclasses.replace(make_job(tmp_path, SHARDS), shards=None)
    with pytest.raises(UsageError, match="cannot be shared out"):
        run_job(job, options=share(0, 2))
