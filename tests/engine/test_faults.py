"""The real command killed, damaged and out of disk: no vector lost, repeated or changed."""

from __future__ import annotations

import json
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from faults import (
    ENVIRONMENT,
    KILLED,
    MAIN,
    Command,
    content,
    full,
    killed_at_event,
    killed_at_random,
    spoil,
    two_at_once,
)
from samples import curved, write_embeddings

from embedpress.onnx.runtime import load
from embedpress.vectors import open_vectors

ROWS, ROWS_PER_SHARD = 3000, 400


@pytest.fixture(scope="module")
def command(saved: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Command:
    work = tmp_path_factory.mktemp("faults")
    x = curved(ROWS, seed=11)
    metadata = {"label": [f"label {i % 7}" for i in range(ROWS)]}
    ids = [f"id{i}" for i in range(ROWS)]
    source = write_embeddings(work / "x", x, ids=ids, metadata=metadata, rows_per_shard=1100)
    command = Command(
        ["compress", str(source), "-m", str(saved()), "--rows-per-shard", str(ROWS_PER_SHARD),
         "--num-threads", "1", "--json"]
    )  # fmt: skip
    assert command.run(work / "whole").returncode == 0
    batch = open_vectors(work / "whole").read()
    assert batch.ids.to_pylist() == ids
    np.testing.assert_array_equal(batch.vectors, load(saved(), num_threads=1).encode(x))
    command.whole.update(content(work / "whole"))
    assert len(command.whole) == 1 + -(-ROWS // ROWS_PER_SHARD)
    return command


def test_killed_at_a_few_random_instants(command: Command, tmp_path: Path) -> None:
    assert any(killed_at_random(command, tmp_path / str(seed), seed) for seed in range(3))


@full
@pytest.mark.timeout(1200)
def test_killed_at_thirty_random_instants(command: Command, tmp_path: Path) -> None:
    cut = [killed_at_random(command, tmp_path / str(seed), seed) for seed in range(30)]
    assert sum(cut) > 15


@full
@pytest.mark.timeout(600)
def test_stopped_by_ctrl_c(command: Command, tmp_path: Path) -> None:
    cut = [
        killed_at_random(command, tmp_path / str(seed), seed, signal.SIGINT)
        for seed in range(100, 108)
    ]
    assert any(cut)


@pytest.mark.parametrize("event", [33])
def test_killed_at_some_writes(command: Command, tmp_path: Path, event: int) -> None:
    assert killed_at_event(command, tmp_path / "out", event)


@full
@pytest.mark.timeout(3000)
def test_killed_at_every_write_and_rename(command: Command, tmp_path: Path) -> None:
    event = 0
    while killed_at_event(command, tmp_path / str(event), event):
        shutil.rmtree(tmp_path / str(event))
        event += 1
    assert event > 60


@full
@pytest.mark.timeout(1200)
def test_killed_again_and_again_until_it_is_done(command: Command, tmp_path: Path) -> None:
    chance = random.Random(3)
    out = tmp_path / "out"
    for _ in range(60):
        event = chance.randrange(4, 40)
        if command.run(out, str(event), str(out), code=KILLED).returncode == 0:
            break
    assert content(out) == command.whole


@pytest.mark.parametrize(
    "trials", [pytest.param(1), pytest.param(24, marks=[full, pytest.mark.timeout(1200)])]
)
def test_a_spoilt_shard_is_named_and_made_again_alone(
    command: Command, tmp_path: Path, trials: int
) -> None:
    chance = random.Random(trials)
    out = tmp_path / "out"
    command.finish(out)
    shards = sorted(out.glob("part-*"))
    for _ in range(trials):
        bad = chance.choice(shards)
        before = {path: path.stat().st_ino for path in shards if path != bad}
        spoil(bad, chance)
        told = subprocess.run(
            [sys.executable, "-c", MAIN, "info", str(out), "--verify", "--json"],
            capture_output=True, text=True, env=ENVIRONMENT,
        )  # fmt: skip
        assert told.returncode == 1
        assert json.loads(told.stdout.splitlines()[-1])["bad_files"] == [bad.name]
        command.finish(out)
        assert {path: path.stat().st_ino for path in before} == before


@pytest.mark.parametrize(
    "kib",
    [pytest.param(18), *(pytest.param(n, marks=full) for n in range(4, 40, 4))],
)
def test_a_full_disk(command: Command, small_disk: Callable[[int], Path], kib: int) -> None:
    out = small_disk(kib) / "out"
    done = command.run(out)
    assert done.returncode == 1
    assert "disk is full: free some space and run the same command again" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert not list(out.glob(".*.tmp"))
    kept = {path.name: path.stat().st_ino for path in out.glob("part-*")}
    small_disk(4096)
    command.finish(out)
    assert {name: (out / name).stat().st_ino for name in kept} == kept


def test_two_processes_on_one_folder(command: Command, tmp_path: Path) -> None:
    two_at_once(command, tmp_path / "out")


@full
@pytest.mark.timeout(600)
def test_shares_by_the_command_killed_and_finished(command: Command, tmp_path: Path) -> None:
    out = tmp_path / "out"
    chance = random.Random(5)

    def share(index: int) -> subprocess.Popen[str]:
        line = [*command.line(out), "--shard", f"{index}/3"]
        return subprocess.Popen(
            line, env=ENVIRONMENT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
        )

    processes = [share(index) for index in range(3)]
    while not out.exists():
        time.sleep(0.002)
    time.sleep(chance.uniform(0, 0.3))
    processes[1].kill()
    for process in processes:
        process.communicate(timeout=120)
    assert [processes[0].returncode, processes[2].returncode] == [0, 0]
    last = share(1)
    assert last.wait(120) == 0
    assert content(out) == command.whole
