"""What a build or a change that was stopped has done is not done again, and never mixed."""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from faults import content, spoil
from index_truth import IDS
from samples import curved, write_embeddings

from embedpress.errors import FormatError, MismatchError
from embedpress.index import build, unfinished
from embedpress.index.build import build_index
from embedpress.index.change import add_to_index, compact_index, delete_from_index
from embedpress.index.scan import Scan
from embedpress.index.unfinished import JOURNAL, UNFINISHED, Unfinished, read_unfinished
from embedpress.onnx.compress import compress

Build = Callable[..., Any]


@pytest.fixture
def built_at(
    compressed: Callable[..., Path],
    saved: Callable[..., Path],
    embedded: Callable[..., Path],
    monkeypatch: pytest.MonkeyPatch,
) -> Build:
    """Builds an index in many small steps."""
    monkeypatch.setattr(unfinished, "STEP", 1_500)
    monkeypatch.setattr(build, "_SCAN_ROWS", 150)

    def run(out: Path, factory: str = "IVF12", **options: Any) -> Any:
        chosen = {"rerank": "int8", "vectors": embedded(), "num_threads": 1}
        chosen |= {"memory_budget": 20_000}
        return build_index(compressed(), saved(), out, factory=factory, **{**chosen, **options})

    return run


def stopped(build: Build, out: Path, name: str, after: int, **options: Any) -> None:
    """Stop a build when it has noted a stage for so many times."""
    add = Unfinished.add

    def counted(self: Unfinished, mark: unfinished.Mark) -> None:
        add(self, mark)
        if sum(mark.stage == name for mark in self.marks) == after:
            raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Unfinished, "add", counted)
        with pytest.raises(KeyboardInterrupt):
            build(out, **options)


def stages(out: Path) -> dict[str, int]:
    """How often each stage is noted."""
    found = read_unfinished(out)
    assert found is not None
    names = [mark.stage for mark in found[1]]
    return {name: names.count(name) for name in dict.fromkeys(names)}


def test_stages_of_a_build(built_at: Build, tmp_path: Path) -> None:
    stopped(built_at, tmp_path, "rerank", 9)
    found = stages(tmp_path)
    assert list(found) == ["ids", "centroids", "parts", "index", "scan", "tuned", "rerank"]
    assert found["parts"] > 5
    assert found["index"] > 3
    assert found["scan"] == 4


def test_what_was_noted_is_not_done_again(
    built_at: Build, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assigned: list[int] = []
    trained: list[int] = []
    assign, train = Scan.assign, build.train_centroids

    def counted(self: Scan, index: Any, stored: np.ndarray) -> Any:
        assigned.append(len(stored))
        return assign(self, index, stored)

    def learnt(sample: np.ndarray, *options: Any, **more: Any) -> Any:
        trained.append(len(sample))
        return train(sample, *options, **more)

    monkeypatch.setattr(Scan, "assign", counted)
    monkeypatch.setattr(build, "train_centroids", learnt)
    stopped(built_at, tmp_path / "out", "parts", 4)
    before = sum(assigned)
    progress: list[int] = []
    built_at(tmp_path / "out", progress=progress.append)
    assert trained == [500]
    # At most a block was assigned and not yet in a part.
    assert 500 <= sum(assigned) <= 500 + before / 4 + 64
    assert sum(progress) == 500
    assert progress[0] > 0
    stopped(built_at, tmp_path / "late", "index", 2)
    assigned.clear()
    built_at(tmp_path / "late")
    assert not assigned
    built_at(tmp_path / "whole")
    for name in ("out", "late"):
        assert content(tmp_path / name) == content(tmp_path / "whole")


@pytest.mark.parametrize(
    ("factory", "stage", "times"),
    [
        ("Flat", "ids", 1),
        ("Flat", "index", 3),
        ("Flat", "rerank", 3),
        ("IVF12_HNSW8", "centroids", 1),
        ("IVF12_HNSW8", "parts", 3),
        ("IVF12_HNSW8", "index", 3),
        ("IVF12_HNSW8", "scan", 2),
        ("IVF12_HNSW8", "rerank", 3),
    ],
)
def test_what_is_spoilt_is_made_again(
    built_at: Build, tmp_path: Path, factory: str, stage: str, times: int
) -> None:
    built_at(tmp_path / "whole", factory)
    chance = random.Random(stage)
    begun = tmp_path / "begun"
    stopped(built_at, begun, stage, times, factory=factory)
    files = [path for path in begun.rglob("*") if path.is_file() and path.name != JOURNAL]
    files = [path for path in files if path.stat().st_size]
    assert files
    for number, path in enumerate(sorted(files)):
        out = Path(shutil.copytree(begun, tmp_path / str(number)))
        spoil(out / path.relative_to(begun), chance)
        built_at(out, factory)
        assert content(out) == content(tmp_path / "whole"), path.name
    out = Path(shutil.copytree(begun, tmp_path / "lines"))
    journal = out / UNFINISHED / JOURNAL
    journal.write_bytes(journal.read_bytes()[:-7] + b'\n[1]\n{"stage": 3}\n{"half')
    built_at(out, factory)
    assert content(out) == content(tmp_path / "whole")


@pytest.mark.parametrize(
    ("changed", "text"),
    [
        ({"seed": 3}, "seed was 0, now 3"),
        ({"factory": "IVF9"}, "factory was 'IVF12', now 'IVF9'"),
        ({"rerank": "float16", "nprobe": 2}, "nprobe was None, now 2; rerank was 'int8', now"),
        ({"memory_budget": "1M"}, "memory_budget was 20000, now 1048576"),
        ({"vectors": "others"}, "the embeddings"),
        ({"queries": "others"}, "the queries"),
        ({"source": "others"}, "the codes"),
    ],
)
def test_another_build_is_refused(
    built_at: Build,
    saved: Callable[..., Path],
    tmp_path: Path,
    changed: dict[str, Any],
    text: str,
) -> None:
    out, others = tmp_path / "out", tmp_path / "others"
    stopped(built_at, out, "parts", 2)
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    write_embeddings(others, curved(500, seed=9), ids=IDS)
    options = {name: others if value == "others" else value for name, value in changed.items()}
    if "source" in options:
        compress(others, saved(), tmp_path / "codes", num_threads=1)
        options = {}

        def run(out: Path) -> Any:
            return build_index(
                tmp_path / "codes", saved(), out, factory="IVF12", memory_budget=20_000,
                rerank="int8", vectors=tmp_path / "others", num_threads=1,
            )  # fmt: skip
    else:

        def run(out: Path) -> Any:
            return built_at(out, **options)

    with pytest.raises(MismatchError, match=text) as caught:
        run(out)
    assert f"delete {out / UNFINISHED} to start anew" in str(caught.value)
    assert {path: path.read_bytes() for path in out.rglob("*") if path.is_file()} == before
    shutil.rmtree(out / UNFINISHED)
    run(out)
    run(tmp_path / "whole")
    assert content(out) == content(tmp_path / "whole")


def test_other_changes_wait_for_an_unfinished_one(
    built_at: Build, compressed: Callable[..., Path], saved: Callable[..., Path], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    built_at(out, rerank="none")
    delete_from_index(out, ids=IDS[:5])

    def compacted(out: Path) -> Any:
        return compact_index(out, memory_budget=20_000)

    stopped(compacted, out, "index", 1)
    for run in (
        lambda: delete_from_index(out, ids=IDS[5:9]),
        lambda: add_to_index(compressed(), saved(), out, existing="replace", num_threads=1),
        lambda: built_at(out, rerank="none"),
    ):
        with pytest.raises(MismatchError, match="holds an unfinished `embedpress compact`: run it"):
            run()
    assert compacted(out).deleted == 5
    assert not (out / UNFINISHED).exists()
    assert delete_from_index(out, ids=IDS[5:9]).deleted == 4


def test_a_journal_that_is_none_is_not_guessed_at(built_at: Build, tmp_path: Path) -> None:
    stopped(built_at, tmp_path, "parts", 2)
    (tmp_path / UNFINISHED / JOURNAL).write_bytes(b"{}\n")
    with pytest.raises(FormatError, match=r"journal\.jsonl is corrupt: delete its folder"):
        built_at(tmp_path)
