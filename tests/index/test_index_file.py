"""FAISS's files, written a block at a time."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import pytest

from embedpress.errors import FormatError
from embedpress.index.build import build_index
from embedpress.index.faiss_file import (
    check_frame,
    read_rows,
    rewrite_head,
    write_flat,
    write_inverted,
)
from embedpress.index.lists import ListsOfFile, total_sizes
from embedpress.index.manifest import Frame
from embedpress.index.parts import PartWriter
from embedpress.index.unfinished import Unfinished

N, D, CODE = 300, 8, 4
RNG = np.random.default_rng(0)
X = RNG.normal(size=(N, D)).astype(np.float32)
CODES = RNG.integers(0, 256, (N, CODE), dtype=np.uint8)


def trained_pq(index: Any) -> Any:
    books = RNG.normal(size=(CODE, 256, D // CODE)).astype(np.float32)
    faiss.copy_array_to_vector(books.ravel(), index.pq.centroids)
    index.is_trained = True
    return index


def flat_pq() -> Any:
    return trained_pq(faiss.IndexPQ(D, CODE, 8, faiss.METRIC_INNER_PRODUCT))


def inverted(n_lists: int, kind: str, coarse: str = "flat") -> Any:
    metric = faiss.METRIC_L2
    lists = faiss.IndexFlat(D, metric) if coarse == "flat" else faiss.IndexHNSWFlat(D, 8, metric)
    lists.add(X[:n_lists])
    if kind == "float":
        index = faiss.IndexIVFFlat(lists, D, n_lists, metric)
    else:
        index = trained_pq(faiss.IndexIVFPQ(lists, D, n_lists, CODE, 8, metric))
        index.by_residual = False
    lists.this.disown()
    index.own_fields = True
    index.is_trained = True
    return index


def flat_file(path: Path, index: Any, blocks: list[np.ndarray]) -> Frame:
    with Unfinished(path.parent, {}).growing("index", path) as growth:
        return write_flat(growth, index, N, lambda done: blocks)


@pytest.mark.parametrize("blocks", [1, 3, 300])
@pytest.mark.parametrize("kind", ["codes", "float"])
def test_a_flat_file_is_that_of_faiss(tmp_path: Path, kind: str, blocks: int) -> None:
    stored = CODES if kind == "codes" else X.view(np.uint8)
    index = flat_pq() if kind == "codes" else faiss.IndexFlat(D, faiss.METRIC_L2)
    frame = flat_file(tmp_path / "ours", index, np.array_split(stored, blocks))
    index.add_sa_codes(stored)
    faiss.write_index(index, str(tmp_path / "theirs"))
    assert (tmp_path / "ours").read_bytes() == (tmp_path / "theirs").read_bytes()
    found = list(read_rows(tmp_path / "ours", frame, stored.shape[1], 70))
    assert [len(block) for block in found] == [70, 70, 70, 70, 20]
    assert np.array_equal(np.concatenate(found), stored)


@pytest.mark.parametrize("coarse", ["flat", "graph"])
@pytest.mark.parametrize("kind", ["codes", "float"])
@pytest.mark.parametrize("filled", [3, 200])
@pytest.mark.parametrize("budget", [10**6, 2_000])
def test_an_inverted_file_is_that_of_faiss(
    tmp_path: Path, kind: str, coarse: str, filled: int, budget: int
) -> None:
    # Few filled lists are written in another way than many.
    n_lists = 250
    stored = CODES if kind == "codes" else X.view(np.uint8)
    lists = RNG.integers(0, filled, N)
    index = inverted(n_lists, kind, coarse)
    work = Unfinished(tmp_path, {})
    with work.growing("parts", tmp_path / "parts") as growth:
        writer = PartWriter(growth, n_lists, stored.shape[1], budget)
        for low in range(0, N, 37):
            cut = slice(low, low + 37)
            writer.add(lists[cut], stored[cut], np.arange(N)[cut])
        parts = writer.finish()
    assert (len(parts) > 3) == (budget < 10**6)
    assert (total_sizes(parts) == np.bincount(lists, minlength=n_lists)).all()
    frame, sizes = write_inverted(work, tmp_path / "ours", index, lambda: parts, budget)
    assert (sizes == total_sizes(parts)).all()
    index.nprobe = 17
    frame = rewrite_head(tmp_path / "ours", index, sizes)
    check_frame(tmp_path / "ours", frame)
    for row in range(N):
        ids, code = np.array([row]), np.ascontiguousarray(stored[row])
        index.invlists.add_entries(int(lists[row]), 1, faiss.swig_ptr(ids), faiss.swig_ptr(code))
    index.ntotal = N
    faiss.write_index(index, str(tmp_path / "theirs"))
    assert (tmp_path / "ours").read_bytes() == (tmp_path / "theirs").read_bytes()


@pytest.mark.parametrize("leave_out", [False, True])
def test_lists_of_a_file_are_merged_with_others(tmp_path: Path, leave_out: bool) -> None:
    def assigned(work: Unfinished, rows: np.ndarray) -> Any:
        with work.growing("parts", work.folder / "parts") as growth:
            writer = PartWriter(growth, 9, CODE, 10**6)
            writer.add(rows % 7, CODES[rows], rows)
            return writer.finish()[0]

    index = inverted(9, "codes")
    first, second = np.arange(200), np.arange(200, 300)
    works = []
    for name in "ab":
        (tmp_path / name).mkdir()
        works.append(Unfinished(tmp_path / name, {}))
    one = assigned(works[0], first)
    frame, _ = write_inverted(works[0], tmp_path / "one", index, lambda: [one], 900)
    kept = first % 3 != 0 if leave_out else np.ones(200, bool)
    renumbered = np.where(kept, first, -1) if leave_out else None
    old = ListsOfFile(tmp_path / "one", frame.start, one.sizes, CODE, renumbered)
    two = assigned(works[1], second)
    write_inverted(works[1], tmp_path / "two", index, lambda: [old, two], 900)
    found = faiss.read_index(str(tmp_path / "two"))
    held = np.concatenate([first[kept], second])
    assert found.ntotal == len(held)
    for number in range(9):
        size = found.invlists.list_size(number)
        rows = faiss.rev_swig_ptr(found.invlists.get_ids(number), size) if size else []
        assert np.array_equal(rows, held[held % 7 == number])
        if size:
            codes = faiss.rev_swig_ptr(found.invlists.get_codes(number), size * CODE)
            assert np.array_equal(codes.reshape(size, CODE), CODES[rows])


@pytest.mark.parametrize("kind", ["codes", "float"])
def test_a_frame_is_all_but_the_vectors(tmp_path: Path, kind: str) -> None:
    index = flat_pq() if kind == "codes" else faiss.IndexFlat(D, faiss.METRIC_L2)
    stored = CODES if kind == "codes" else X.view(np.uint8)
    path = tmp_path / "index"
    frame = flat_file(path, index, [stored])
    sound = path.read_bytes()
    assert sound[frame.start : frame.start + frame.size] == stored.tobytes()

    def changed(data: bytes) -> bool:
        path.write_bytes(data)
        try:
            check_frame(path, frame)
        except FormatError:
            return True
        return False

    for at in (0, 40, frame.start - 1, frame.start, frame.start + frame.size - 1, len(sound) - 1):
        spoilt = bytearray(sound)
        spoilt[at] ^= 1
        inside = frame.start <= at < frame.start + frame.size
        assert changed(bytes(spoilt)) != inside
    for data in (sound[:-1], sound + b"\0", sound[: frame.start], b""):
        assert changed(data)
    assert not changed(sound)
    path.write_bytes(sound[: frame.start + 5])
    with pytest.raises(FormatError, match="ends too early"):
        list(read_rows(path, frame, stored.shape[1], 70))


def test_a_build_in_many_parts_is_that_in_one(
    compressed: Callable[..., Path],
    saved: Callable[..., Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    spilt: list[int] = []
    finish = PartWriter.finish

    def counted(self: PartWriter) -> Any:
        parts = finish(self)
        spilt.append(len(parts))
        return parts

    monkeypatch.setattr(PartWriter, "finish", counted)
    for budget in ("1G", 40_000):
        build_index(
            compressed(), saved(), tmp_path / str(budget), factory="IVF12", memory_budget=budget
        )
    assert spilt[0] == 1 < spilt[1]
    one, many = (tmp_path / name / "index.faiss" for name in ("1G", "40000"))
    assert one.read_bytes() == many.read_bytes()
