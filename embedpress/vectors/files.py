"""Files that are either whole or not there."""

from __future__ import annotations

import errno
import hashlib
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from embedpress.errors import EmbedpressError, FormatError, StorageError, UsageError

_REASONS = {
    errno.ENOSPC: "the disk is full: free some space and run the same command again",
    errno.EDQUOT: "the disk quota is used up: free some space and run the same command again",
    errno.EFBIG: "the file is larger than this disk or account allows",
    errno.EROFS: "the disk is read-only: choose another folder",
    errno.EACCES: "permission denied: choose another folder or change its permissions",
    errno.EPERM: "permission denied: choose another folder or change its permissions",
    errno.ENOENT: "it is not there",
    errno.EIO: "the disk failed (input/output error)",
}


@contextmanager
def storage_errors(path: str | os.PathLike[str], doing: str = "write") -> Iterator[None]:
    """Turn an `OSError` of the body into a one-line :class:`StorageError` about `path`."""
    try:
        yield
    except EmbedpressError:
        raise
    except OSError as error:
        reason = _REASONS.get(error.errno or 0, error.strerror or str(error) or "it was refused")
        raised = StorageError(f"cannot {doing} {os.fspath(path)}: {reason}")
        raised.errno = error.errno
        raise raised from error


def check_no_file(folder: Path) -> None:
    """Raise :class:`UsageError` where a file stands in the place of a folder to write to."""
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"{folder} is a file: give a folder to write to")


def check_own(path: Path) -> None:
    """Raise :class:`FormatError` where the file of a folder is a link that leads out of it."""
    if path.is_symlink() and path.resolve().parent != path.parent.resolve():
        raise FormatError(f"{path} is a link that leads out of its folder")


@contextmanager
def atomic_path(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Write a file under a temporary name and move it into place when all went well.

    Parameters
    ----------
    path
        The file to make or to replace; its folder must exist.

    Yields
    ------
    Path
        The temporary name, in the same folder, for the body to create and fill. When the body
        ends, the file is synced to disk and renamed; when it raises, the file is removed and
        what was at `path` before is still there.

    Raises
    ------
    StorageError
        If the disk refuses.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        with storage_errors(path):
            yield temporary
            _sync(temporary)
            os.replace(temporary, path)  # noqa: PTH105 (the same call on every Python)
            _sync_folder(path.parent)
    except BaseException:
        with suppress(OSError):
            temporary.unlink()
        raise


def write_atomic(path: str | os.PathLike[str], data: bytes | memoryview | str) -> None:
    """Write a whole file at once: afterwards it is the old one or the new one, never a part.

    Parameters
    ----------
    path
        The file to make or to replace; its folder must exist.
    data
        The content; text is written as UTF-8.

    Raises
    ------
    StorageError
        If the disk refuses.
    """
    content = data.encode() if isinstance(data, str) else data
    with atomic_path(path) as temporary, temporary.open("xb") as file:
        file.write(content)


def remove(path: str | os.PathLike[str]) -> None:
    """Remove a file, if it is there, and make the removal last."""
    path = Path(path)
    with storage_errors(path, "remove"), suppress(FileNotFoundError):
        path.unlink()
        _sync_folder(path.parent)


def sha256_of(path: str | os.PathLike[str]) -> str:
    """Return the SHA-256 of a file's bytes as 64 hexadecimal digits.

    Raises
    ------
    StorageError
        If the file cannot be read.
    """
    digest = hashlib.sha256()
    with storage_errors(path, "read"), Path(path).open("rb") as file:
        while block := file.read(2**20):
            digest.update(block)
    return digest.hexdigest()


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _sync_folder(folder: Path) -> None:
    # A rename lasts through a power cut only when its folder is synced too. Some file systems
    # cannot sync a folder: there the rename is as safe as it can be.
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except OSError:
        return
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP, errno.EBADF, errno.EACCES):
            raise
    finally:
        os.close(descriptor)
