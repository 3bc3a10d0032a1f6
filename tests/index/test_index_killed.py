"""A change killed at any instant leaves the old index whole, and can be made again."""

from __future__ import annotations

import random
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from engine.small_job import content, in_child, kill_at
from faults import full
from index_truth import IDS
from samples import curved, write_embeddings

from embedpress.index import build, unfinished
from embedpress.index.build import build_index
from embedpress.index.change import add_to_index, compact_index, delete_from_index
from embedpress.index.search import open_index
from embedpress.info import describe
from embedpress.onnx.compress import compress
from embedpress.onnx.compressor import load


@pytest.fixture(scope="module")
def old(built: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An index with some rows deleted."""
    folder = tmp_path_factory.mktemp("old") / "index"
    shutil.copytree(built("codes", "IVF12", "int8"), folder)
    delete_from_index(folder, ids=IDS[:40])
    return folder


@pytest.fixture(scope="module")
def more(saved: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Embeddings and codes to add, some of ids that are there."""
    home = tmp_path_factory.mktemp("more")
    ids = [f"id {i}" for i in range(480, 540)]
    write_embeddings(home / "x", curved(60, seed=5), ids=ids)
    compress(home / "x", saved(), home / "codes", num_threads=1)
    return home


@pytest.mark.parametrize("change", ["add", "delete", "compact", "build"])
@pytest.mark.parametrize("stride", [9, pytest.param(1, marks=[full, pytest.mark.timeout(1200)])])
def test_killed_at_every_step(
    old: Path,
    more: Path,
    saved: Callable[..., Path],
    queries: np.ndarray,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    change: str,
    stride: int,
) -> None:
    monkeypatch.setattr(unfinished, "STEP", 2_000)
    compressor = load(saved(), num_threads=1)
    options: dict[str, Any] = {"vectors": more / "x", "num_threads": 1}
    # One that is read in many parts.
    options |= {"memory_budget": 40_000}
    bodies: dict[str, Callable[[Path], Any]] = {
        "add": lambda out: add_to_index(
            more / "codes", saved(), out, existing="replace", **options
        ),
        "delete": lambda out: delete_from_index(out, filter="year > 2005"),
        "compact": lambda out: compact_index(out, memory_budget=40_000),
        "build": lambda out: build_index(
            more / "codes", saved(), out, factory="IVF4", rerank="int8", **options
        ),
    }
    body = bodies[change]

    def answers(folder: Path) -> tuple[Any, ...]:
        index = open_index(folder, compressor)
        hits = index.search(queries, 20)
        return index.manifest.deleted, index.ids(hits.rows), hits.scores.tolist()

    before = answers(old)
    whole = Path(shutil.copytree(old, tmp_path / "whole"))
    body(whole)
    after = answers(whole)
    assert before != after
    step = 0
    committed = False
    while True:
        out = Path(shutil.copytree(old, tmp_path / str(step)))
        status = in_child(lambda out=out: body(out), kill_at(step, out))
        found = answers(out)
        # The old one until the manifest is replaced, the new one from then on.
        committed = committed or found == after
        assert found == (after if committed else before), f"killed at step {step}"
        assert describe(out)["bad_files"] == []
        if status == 0:
            break
        assert status == -signal.SIGKILL
        # A build that is there is not made again; another change would be.
        if step % 10 == 0 and (change == "build" or not committed):
            body(out)
            assert content(out) == content(whole)
        shutil.rmtree(out)
        step += stride
    assert committed
    assert content(out) == content(whole)
    assert step > 10


@pytest.mark.parametrize("stride", [29, pytest.param(1, marks=[full, pytest.mark.timeout(1200)])])
def test_a_new_index_killed_at_every_step(
    compressed: Callable[..., Path],
    embedded: Callable[..., Path],
    saved: Callable[..., Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    stride: int,
) -> None:
    monkeypatch.setattr(unfinished, "STEP", 4_000)
    monkeypatch.setattr(build, "_SCAN_ROWS", 300)

    def body(out: Path) -> None:
        build_index(
            compressed(), saved(), out, factory="IVF4", rerank="int8", vectors=embedded(),
            memory_budget=60_000, num_threads=1,
        )  # fmt: skip

    whole, step = tmp_path / "whole", 0
    body(whole)
    while in_child(lambda out=(out := tmp_path / str(step)): body(out), kill_at(step, out)):
        body(out)
        assert content(out) == content(whole), f"killed at step {step}"
        shutil.rmtree(out)
        step += stride
    assert content(out) == content(whole)
    assert step > 60


def test_a_new_index_killed_again_and_again(
    compressed: Callable[..., Path],
    saved: Callable[..., Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(unfinished, "STEP", 4_000)

    def body(out: Path) -> None:
        build_index(compressed(), saved(), out, factory="IVF4", memory_budget=60_000, num_threads=1)

    body(tmp_path / "whole")
    chance, out = random.Random(0), tmp_path / "out"
    killed = 0
    # Fewer steps than the whole takes: it gets to its end only by what was kept.
    while in_child(lambda: body(out), kill_at(chance.randrange(25, 60), out)):
        killed += 1
        assert killed < 100
    assert killed > 2
    assert content(out) == content(tmp_path / "whole")


def test_searches_during_changes_see_one_index_or_another(
    old: Path, more: Path, saved: Callable[..., Path], queries: np.ndarray, tmp_path: Path
) -> None:
    import threading

    out = Path(shutil.copytree(old, tmp_path / "index"))
    seen: set[int] = set()
    failed: list[BaseException] = []
    done = threading.Event()

    def search() -> None:
        while not done.is_set():
            try:
                index = open_index(out, saved(), num_threads=1)
                ids = index.ids(index.search(queries[:2], 600, nprobe=12).rows)
                # All of what one index holds: never a part, never a mix of two.
                counts = {len([i for i in line if i is not None]) for line in ids}
                assert counts == {len(index)}
                seen.add(len(index))
            except BaseException as error:
                failed.append(error)
                return

    reader = threading.Thread(target=search)
    reader.start()
    for number in range(6):
        delete_from_index(out, ids=[f"id {40 + number}"])
        add_to_index(
            more / "codes",
            saved(),
            out,
            existing="replace",
            vectors=more / "x",
            num_threads=1,
        )
        compact_index(out)
    done.set()
    reader.join()
    assert not failed
    assert len(seen) > 2
