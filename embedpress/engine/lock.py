"""One writer a folder."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from embedpress.errors import StorageError
from embedpress.vectors.files import storage_errors

LOCK = "job.lock"


@contextmanager
def folder_lock(folder: Path) -> Iterator[None]:
    """Hold the lock of a folder; the system lets go of it however the process ends.

    Raises
    ------
    StorageError
        If another process holds it, or the file system has no locks.
    """
    try:
        import fcntl
    except ImportError:
        raise StorageError("jobs need the file locks of Linux or macOS") from None
    path = folder / LOCK
    held = False
    while not held:
        with storage_errors(path):
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            with storage_errors(path, "lock"):
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # The last holder may have removed the file between our open and our lock: then ours
            # is a lock on a file that nobody else will find.
            held = _is_same(descriptor, path)
        except StorageError as error:
            if error.errno not in (errno.EWOULDBLOCK, errno.EACCES):
                raise
            raise StorageError(
                f"another process is writing to {folder}: wait for it, or choose another folder"
            ) from None
        finally:
            if not held:
                os.close(descriptor)
    try:
        yield
    finally:
        with suppress(OSError):
            path.unlink()
        os.close(descriptor)


def _is_same(descriptor: int, path: Path) -> bool:
    try:
        there = path.stat()
    except FileNotFoundError:
        return False
    here = os.fstat(descriptor)
    return (here.st_dev, here.st_ino) == (there.st_dev, there.st_ino)
