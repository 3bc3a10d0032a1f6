"""Archives of arrays whose directory is not that of their files."""

from __future__ import annotations

import io
import shutil
import struct
import warnings
import zipfile
from pathlib import Path

import numpy as np
import pytest
from child import answer, one_line
from damage import ANYTHING, DAMAGE, Damage, damaged
from hypothesis import given, settings

from embedpress.errors import FormatError
from embedpress.vectors import npz, open_vectors

OPEN = """
from embedpress.vectors import open_vectors
open_vectors(folder / "x.npz")
"""
ROWS = np.arange(24, dtype=np.float32).reshape(6, 4)


def npy() -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, ROWS)
    return buffer.getvalue()


def archive(path: Path, *names: str, method: int = zipfile.ZIP_STORED) -> Path:
    with zipfile.ZipFile(path, "w", method) as file, warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of two files of one name
        for name in names:
            file.writestr(name, npy())
    return path


def in_directory(path: Path, at: int, form: str, value: int, entry: int = 0) -> Path:
    """Overwrite a number in the directory's entry of a file."""
    data = bytearray(path.read_bytes())
    start = -1
    for _ in range(entry + 1):
        start = data.index(b"PK\1\2", start + 1)
    struct.pack_into(form, data, start + at, value)
    path.write_bytes(data)
    return path


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (["../x.npy"], "named as a file elsewhere"),
        (["/etc/x.npy"], "named as a file elsewhere"),
        (["a/../../x.npy", "y.npy"], "named as a file elsewhere"),
        (["..\\x.npy"], "named as a file elsewhere"),
        (["x.npy", "x.npy"], "two files of one name"),
    ],
)
def test_names_that_lead_elsewhere(tmp_path: Path, names: list[str], said: str) -> None:
    with pytest.raises(FormatError, match=said):
        open_vectors(archive(tmp_path / "x.npz", *names))


@pytest.mark.parametrize(
    ("at", "form", "value", "said"),
    [
        (8, "<H", 1, "is encrypted"),
        (20, "<I", 10**9, "lies over other files"),
        (24, "<I", 10**9, "has two sizes"),
        (42, "<I", 10**9, "lies over other files"),
    ],
)
def test_directories_that_lie(tmp_path: Path, at: int, form: str, value: int, said: str) -> None:
    path = in_directory(archive(tmp_path / "x.npz", "x.npy"), at, form, value)
    with pytest.raises(FormatError, match=said):
        open_vectors(path)


def test_files_that_share_their_bytes(tmp_path: Path) -> None:
    """As in a zip of 10 MB that stands for terabytes: many entries, one content."""
    path = archive(tmp_path / "x.npz", "a.npy", "b.npy", method=zipfile.ZIP_DEFLATED)
    in_directory(path, 42, "<I", 0, entry=1)
    with pytest.raises(FormatError, match="lies over other files"):
        open_vectors(path, column="a")


def test_a_directory_of_more_files_than_any(tmp_path: Path) -> None:
    path = tmp_path / "x.npz"
    archive(path, *(f"{n}.npy" for n in range(5000)))
    with pytest.raises(FormatError, match="holds 5000 files in a directory"):
        open_vectors(path)
    # The count is the archive's own word; the directory's size is what is read.
    entry = b"PK\1\2" + bytes(42)
    end = struct.pack("<4sHHHHIIH", b"PK\5\6", 0, 0, 1, 1, len(entry) * 2_000_000, 0, 0)
    path.write_bytes(entry * 2_000_000 + end)
    found = answer(
        'from embedpress.vectors import open_vectors\nopen_vectors(folder / "x.npz")', tmp_path
    )
    assert "holds 1 files in a directory of 92000000 bytes" in found.said
    assert found.peak < 300


def test_archives_of_over_4_gib_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(zipfile, "ZIP64_LIMIT", 10)
    path = archive(tmp_path / "x.npz", "x.npy")
    assert b"PK\6\6" in path.read_bytes()
    assert np.array_equal(open_vectors(path).read().vectors, ROWS)
    monkeypatch.setattr(npz, "_MAX_DIRECTORY", 10)
    with pytest.raises(FormatError, match="holds 1 files in a directory of"):
        open_vectors(path)


def test_text_after_the_archive(tmp_path: Path) -> None:
    path = archive(tmp_path / "x.npz", "x.npy")
    with zipfile.ZipFile(path, "a") as file:
        file.comment = b"a comment"
    with pytest.raises(FormatError, match=r"not a .npz file"):
        open_vectors(path)


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
@given(damage=DAMAGE)
@settings(max_examples=60, **ANYTHING)
def test_damage_is_answered(tmp_path: Path, method: int, damage: Damage) -> None:
    shutil.rmtree(tmp_path, ignore_errors=True)
    tmp_path.mkdir()
    path = archive(tmp_path / "x.npz", "x.npy", "labels.txt", method=method)
    path.write_bytes(damaged(path.read_bytes(), damage))
    with one_line():
        for batch in open_vectors(path, column="x").iter_batches(4):
            assert batch.vectors.shape[1] == 4
