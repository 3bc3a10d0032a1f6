"""The real `embedpress index` killed, damaged and out of disk: the same bytes in the end.

That it may be killed at every write and rename is shown by `test_index_killed.py`.
"""

from __future__ import annotations

import random
import signal
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from faults import (
    KILLED,
    Command,
    content,
    full,
    killed_at_event,
    killed_at_random,
    spoil,
    two_at_once,
)
from samples import curved, write_embeddings

from embedpress.index.search import open_index
from embedpress.index.unfinished import JOURNAL, UNFINISHED
from embedpress.onnx.compress import compress

ROWS, MORE = 3000, 500
# Notes come often, and parts are small.
SETTING = "import embedpress.index.unfinished as notes; notes.STEP = 20_000;"
BUDGET = "200K"


def made(model: Path, work: Path, name: str, low: int, rows: int) -> list[str]:
    """Codes and embeddings of some rows, as arguments of the command."""
    ids = [f"id{i}" for i in range(low, low + rows)]
    metadata = {"label": [f"label {i % 7}" for i in range(rows)]}
    write_embeddings(work / name, curved(rows, seed=low), ids=ids, metadata=metadata)
    compress(work / name, model, work / f"{name}-codes", num_threads=1)
    return [
        "index", str(work / f"{name}-codes"), "-m", str(model), "--vectors", str(work / name),
        "--memory-budget", BUDGET, "--num-threads", "1", "--json",
    ]  # fmt: skip


@pytest.fixture(scope="module")
def build(saved: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Command:
    work = tmp_path_factory.mktemp("build")
    words = made(saved(), work, "x", 0, ROWS)
    command = Command([*words, "--factory", "IVF16", "--rerank", "int8"], setting=SETTING)
    done = command.run(work / "whole")
    assert done.returncode == 0, done.stderr
    command.whole.update(content(work / "whole"))
    assert len(command.whole) == 5
    return command


@pytest.fixture(scope="module")
def add(
    build: Command, saved: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory
) -> Command:
    work = tmp_path_factory.mktemp("add")
    old = work / "old"
    build.finish(old)
    words = made(saved(), work, "more", ROWS - 100, MORE)
    # With "skip" the command may be given again when all was done.
    words += ["--add", "--existing", "skip"]
    command = Command(words, before=old, setting=SETTING)
    done = command.run(work / "whole")
    assert done.returncode == 0, done.stderr
    command.whole.update(content(work / "whole"))
    return command


def begun(folder: Path) -> bool:
    return (folder / UNFINISHED / JOURNAL).exists()


def random_kill(
    command: Command, folder: Path, seed: int, sent: signal.Signals = signal.SIGKILL
) -> bool:
    return killed_at_random(command, folder, seed, sent, began=begun, within=0.3)


@pytest.mark.parametrize("name", ["build", "add"])
@pytest.mark.parametrize(
    "times", [pytest.param(1), pytest.param(30, marks=[full, pytest.mark.timeout(1200)])]
)
def test_killed_at_random_instants(
    name: str, times: int, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    command = request.getfixturevalue(name)
    cut = [random_kill(command, tmp_path / str(seed), seed) for seed in range(times)]
    assert sum(cut) >= times // 2


@full
@pytest.mark.timeout(600)
def test_stopped_by_ctrl_c(build: Command, tmp_path: Path) -> None:
    cut = [random_kill(build, tmp_path / str(n), n, signal.SIGINT) for n in range(8)]
    assert any(cut)


@pytest.mark.parametrize("event", [41])
def test_killed_at_some_writes(build: Command, tmp_path: Path, event: int) -> None:
    assert killed_at_event(build, tmp_path / "out", event)


def test_searches_while_an_addition_is_killed(
    add: Command, saved: Callable[..., Path], tmp_path: Path
) -> None:
    queries = curved(5, seed=1)
    out = tmp_path / "out"
    for event in (40, 60):
        assert add.run(out, str(event), str(out), code=KILLED).returncode == -signal.SIGKILL
        index = open_index(out, saved(), num_threads=1)
        hits = index.search(queries, 5000, nprobe=16).rows
        # The old index or the new one: never a part, never a mix.
        assert set((hits >= 0).sum(axis=1).tolist()) == {len(index)} == {ROWS}
    add.finish(out)
    assert len(open_index(out, saved(), num_threads=1)) == ROWS + MORE - 100


@pytest.mark.parametrize(
    "trials", [pytest.param(1), pytest.param(24, marks=[full, pytest.mark.timeout(1200)])]
)
def test_what_is_spoilt_is_made_again(build: Command, tmp_path: Path, trials: int) -> None:
    chance = random.Random(trials)
    for trial in range(trials):
        out = tmp_path / str(trial)
        event = chance.randrange(20, 60)
        assert build.run(out, str(event), str(out), code=KILLED).returncode != 0
        files = [path for path in out.rglob("*") if path.is_file() and path.stat().st_size]
        files = [path for path in files if path.name not in (JOURNAL, "job.lock")]
        for path in chance.sample(sorted(files), chance.randint(1, len(files))):
            spoil(path, chance)
        build.finish(out)


def test_a_finished_index_is_looked_at_and_mended(build: Command, tmp_path: Path) -> None:
    out = tmp_path / "out"
    build.finish(out)
    before = {path: path.stat().st_ino for path in out.iterdir()}
    build.finish(out)
    assert {path: path.stat().st_ino for path in out.iterdir()} == before
    spoil(out / "index.faiss", random.Random(0))
    assert build.run(out).returncode == 0
    assert (out / "index.2.faiss").read_bytes() == build.whole["index.faiss"]


@pytest.mark.parametrize(
    "kib", [pytest.param(150), *(pytest.param(n, marks=full) for n in range(8, 280, 24))]
)
def test_a_full_disk(build: Command, small_disk: Callable[[int], Path], kib: int) -> None:
    out = small_disk(kib) / "out"
    done = build.run(out)
    assert done.returncode == 1
    assert "disk is full: free some space and run the same command again" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    small_disk(8192)
    build.finish(out)


def test_two_processes_on_one_folder(build: Command, tmp_path: Path) -> None:
    two_at_once(build, tmp_path / "out")
    assert np.frombuffer(build.whole["rerank.npy"], np.uint8).size > ROWS
