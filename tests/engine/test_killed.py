"""A job killed at any instant and resumed leaves the folder of one that was not."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from small_job import content, in_child, kill_at, make_job, piece

from embedpress.engine import Piece, run_job
from embedpress.errors import FormatError


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    folder = tmp_path_factory.mktemp("whole")
    run_job(make_job(folder, shards=3))
    return content(folder)


def test_killed_at_every_step(tmp_path: Path, whole: dict[str, bytes]) -> None:
    steps = 0
    while True:
        out = tmp_path / str(steps)
        status = in_child(lambda out=out: run_job(make_job(out, shards=3)), kill_at(steps, out))
        if status == 0:
            break
        assert status == -signal.SIGKILL
        run_job(make_job(out, shards=3))
        assert content(out) == whole, f"killed at step {steps}"
        steps += 1
    assert content(out) == whole
    assert steps > 40


def test_killed_again_and_again(tmp_path: Path, whole: dict[str, bytes]) -> None:
    chance = random.Random(0)
    for trial in range(3):
        out = tmp_path / str(trial)
        for _ in range(100):
            kill = kill_at(chance.randrange(60), out)
            if in_child(lambda out=out: run_job(make_job(out, shards=3)), kill) == 0:
                break
        assert content(out) == whole


def test_killed_while_repairing(tmp_path: Path, whole: dict[str, bytes]) -> None:
    for step in range(100):
        out = tmp_path / str(step)
        run_job(make_job(out, shards=3))
        (out / "part-00001.parquet").write_bytes(b"damaged")
        status = in_child(lambda out=out: run_job(make_job(out, shards=3)), kill_at(step, out))
        if status == 0:
            break
        assert status == -signal.SIGKILL
        run_job(make_job(out, shards=3))
        assert content(out) == whole
    assert step > 5


SCRIPT = """
import signal, sys, time
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from small_job import make_job, piece
from embedpress.engine import run_job

def slow(index):
    time.sleep(0.01)
    return piece(index)

# A shell that runs the tests in the background has its children ignore Ctrl-C.
signal.signal(signal.SIGINT, signal.default_int_handler)
print("ready", flush=True)
run_job(make_job(Path(sys.argv[1]), shards=20, work=slow))
"""


@pytest.mark.parametrize("sent", [signal.SIGKILL, signal.SIGINT])
def test_signals_from_outside(tmp_path: Path, sent: signal.Signals) -> None:
    chance = random.Random(int(sent))
    out = tmp_path / "out"
    killed = 0
    for _ in range(2):
        command = [sys.executable, "-c", SCRIPT, str(out), str(Path(__file__).parent)]
        with subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        ) as process:
            assert process.stdout is not None
            process.stdout.readline()
            time.sleep(chance.uniform(0, 0.15))
            process.send_signal(sent)
            killed += process.wait(timeout=30) != 0
    assert killed
    run_job(make_job(out, shards=20))
    run_job(make_job(tmp_path / "whole", shards=20))
    assert content(out) == content(tmp_path / "whole")


def test_a_torn_journal_loses_nothing_else(tmp_path: Path, whole: dict[str, bytes]) -> None:
    out = tmp_path / "out"

    def work(index: int) -> Piece:
        if index == 2:
            raise RuntimeError
        return piece(index)

    def begin(folder: Path) -> None:
        with pytest.raises(RuntimeError):
            run_job(make_job(folder, shards=3, work=work))

    begin(out)
    journal = (out / "journal.jsonl").read_bytes()
    header, first, second, rest = journal.split(b"\n")
    assert rest == b""
    for length in range(len(header) + 1, len(journal) + 1, 23):
        begin_at = tmp_path / str(length)
        begin(begin_at)
        (begin_at / "journal.jsonl").write_bytes(journal[:length])
        calls: list[int] = []
        run_job(make_job(begin_at, shards=3, calls=calls))
        lines = journal[:length].split(b"\n")
        assert calls == [i for i, line in enumerate([first, second]) if line not in lines] + [2]
        assert content(begin_at) == whole


def test_what_follows_a_torn_line_is_not_lost(tmp_path: Path, whole: dict[str, bytes]) -> None:
    def stop_at(last: int, calls: list[int]) -> None:
        def work(index: int) -> Piece:
            if index == last:
                raise RuntimeError
            return piece(index)

        with pytest.raises(RuntimeError):
            run_job(make_job(tmp_path, shards=3, work=work, calls=calls))

    calls: list[int] = []
    stop_at(1, calls)
    path = tmp_path / "journal.jsonl"
    path.write_bytes(path.read_bytes() + b'{"index": 1, "sha')
    stop_at(2, calls)
    run_job(make_job(tmp_path, shards=3, calls=calls))
    assert calls == [0, 1, 1, 2, 2]
    assert content(tmp_path) == whole


@pytest.mark.parametrize(
    "line",
    [
        b"\xff\xfe",
        b"null",
        b"[" * 5000,
        b'{"index": 0}',
        b'{"index": 1, "skipped": [], "counters": {}, "shard": {"name": "../x.parquet",'
        b' "rows": 1, "bytes": 1, "sha256": "' + b"a" * 64 + b'"}}',
    ],
)
def test_a_journal_line_that_is_none_is_passed_over(
    tmp_path: Path, whole: dict[str, bytes], line: bytes
) -> None:
    out = tmp_path / "out"
    assert in_child(lambda: run_job(make_job(out, shards=3)), kill_at(40, out)) < 0
    path = out / "journal.jsonl"
    path.write_bytes(path.read_bytes() + line + b"\n")
    run_job(make_job(out, shards=3))
    assert content(out) == whole


@pytest.mark.parametrize("header", [b"", b"{", b"[]", b"{}", b'{"identity": 5}'])
def test_a_journal_without_header_is_not_guessed_at(tmp_path: Path, header: bytes) -> None:
    (tmp_path / "journal.jsonl").write_bytes(header + b"\n")
    with pytest.raises(FormatError, match=r"journal\.jsonl is corrupt: delete its folder"):
        run_job(make_job(tmp_path))
