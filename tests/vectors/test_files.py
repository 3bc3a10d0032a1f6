from __future__ import annotations

import errno
import hashlib
import os
import stat
from pathlib import Path

import pytest

from embedpress.errors import StorageError
from embedpress.vectors import atomic_path, sha256_of, write_atomic


def test_a_file_is_made_and_replaced(tmp_path: Path) -> None:
    path = tmp_path / "a.bin"
    write_atomic(path, b"one")
    write_atomic(path, "zwö")
    assert path.read_bytes() == "zwö".encode()
    assert [p.name for p in tmp_path.iterdir()] == ["a.bin"]


def test_permissions_are_those_of_any_new_file(tmp_path: Path) -> None:
    (tmp_path / "plain").touch()
    write_atomic(tmp_path / "atomic", b"")
    modes = {stat.S_IMODE((tmp_path / name).stat().st_mode) for name in ("plain", "atomic")}
    assert len(modes) == 1


@pytest.mark.parametrize("error", [RuntimeError("x"), KeyboardInterrupt()])
def test_when_the_body_fails_the_old_file_stays(tmp_path: Path, error: BaseException) -> None:
    path = tmp_path / "a"
    write_atomic(path, b"old")

    def fail() -> None:
        with atomic_path(path) as temporary:
            temporary.write_bytes(b"half")
            raise error

    with pytest.raises(type(error)):
        fail()
    assert path.read_bytes() == b"old"
    assert len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize("function", ["fsync", "replace", "open"])
def test_a_full_disk_is_one_clear_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, function: str
) -> None:
    path = tmp_path / "a"
    write_atomic(path, b"old")

    def full(*args: object, **kwargs: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, function, full)
    with pytest.raises(StorageError, match="a: the disk is full: free some space") as caught:
        write_atomic(path, b"new")
    monkeypatch.undo()
    assert caught.value.errno == errno.ENOSPC
    assert path.read_bytes() == b"old"
    assert len(list(tmp_path.iterdir())) == 1


def test_a_missing_folder_is_a_storage_error(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="not there"):
        write_atomic(tmp_path / "no" / "a", b"")
    with pytest.raises(StorageError, match="cannot read"):
        sha256_of(tmp_path / "no")


def test_sha256(tmp_path: Path) -> None:
    data = os.urandom(2**20 + 17)
    (tmp_path / "a").write_bytes(data)
    assert sha256_of(tmp_path / "a") == hashlib.sha256(data).hexdigest()
