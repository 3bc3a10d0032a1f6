"""Folders that were made before, and folders that change while they are opened."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from embedpress.errors import FormatError
from embedpress.index import search
from embedpress.index.build import build_index
from embedpress.index.change import delete_from_index
from embedpress.index.manifest import file_name, read_index_manifest
from embedpress.index.search import open_index
from embedpress.info import describe


def as_version_1(folder: Path) -> None:
    """The manifest as the first format had it."""
    manifest = json.loads((folder / "manifest.json").read_text())
    for name in ("generation", "deleted", "choice", "files", "frame", "job"):
        del manifest[name]
    (folder / "manifest.json").write_text(json.dumps({**manifest, "format_version": 1}))


def as_version_2(folder: Path) -> None:
    manifest = json.loads((folder / "manifest.json").read_text())
    del manifest["job"]
    (folder / "manifest.json").write_text(json.dumps({**manifest, "format_version": 2}))


@pytest.mark.parametrize("rerank", ["none", "int8"])
def test_an_index_of_the_first_format_opens(
    built: Callable[..., Path],
    saved: Callable[..., Path],
    queries: np.ndarray,
    tmp_path: Path,
    rerank: str,
) -> None:
    folder = built("codes", "IVF12", rerank)
    old = Path(shutil.copytree(folder, tmp_path / "old"))
    as_version_1(old)
    for mapped in (False, True):
        found = open_index(old, saved(), memory_map=mapped).search(queries, 7)
        assert np.array_equal(found.rows, open_index(folder, saved()).search(queries, 7).rows)
    now = read_index_manifest(folder)
    assert read_index_manifest(old) == replace(now, format_version=1, choice={}, frame=None, job="")
    assert describe(old)["bad_files"] == []
    # It says nothing of what FAISS parses: all of it is compared, mapped or not.
    data = bytearray((old / "index.faiss").read_bytes())
    data[-9] ^= 1
    (old / "index.faiss").write_bytes(data)
    with pytest.raises(FormatError, match="was changed since it was built"):
        open_index(old, saved(), memory_map=True)


def test_an_index_of_the_second_format_opens_and_is_changed(
    built: Callable[..., Path], saved: Callable[..., Path], tmp_path: Path
) -> None:
    folder = built("codes", "IVF12")
    old = Path(shutil.copytree(folder, tmp_path / "old"))
    as_version_2(old)
    now = read_index_manifest(folder)
    assert read_index_manifest(old) == replace(now, format_version=2, job="")
    delete_from_index(old, ids=["id 3"])
    changed = read_index_manifest(old)
    assert (changed.format_version, changed.generation, changed.job) == (3, 2, "")
    assert len(open_index(old, saved())) == now.count - 1


def test_names_of_files() -> None:
    assert file_name("index", 1) == "index.faiss"
    assert file_name("ids", 1) == "ids.parquet"
    assert file_name("rerank_scales", 12) == "rerank_scales.12.npy"


def test_an_index_that_changes_while_it_is_opened(
    compressed: Callable[..., Path],
    saved: Callable[..., Path],
    queries: np.ndarray,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    out = tmp_path / "index"
    build_index(compressed(), saved(), out)
    changes = iter([1, 2])
    read = search.read_index_manifest

    def slow(folder: Path) -> search.IndexManifest:
        manifest = read(folder)
        if seed := next(changes, 0):
            build_index(compressed(), saved(), out, seed=seed)
        return manifest

    monkeypatch.setattr(search, "read_index_manifest", slow)
    index = open_index(out, saved())
    assert index.manifest.generation == 3
    before = index.search(queries, 5)
    # What was opened goes on, mapped files too, when the folder is gone.
    mapped = open_index(out, saved(), memory_map=True)
    shutil.rmtree(out)
    for opened in (index, mapped):
        assert np.array_equal(opened.search(queries, 5).rows, before.rows)


def test_a_file_that_is_gone_for_good(
    built: Callable[..., Path], saved: Callable[..., Path], tmp_path: Path
) -> None:
    copy = Path(shutil.copytree(built(), tmp_path / "copy"))
    (copy / "index.faiss").unlink()
    for mapped in (False, True):
        with pytest.raises(FormatError, match=r"is not a whole index: it has no index\.faiss"):
            open_index(copy, saved(), memory_map=mapped)
