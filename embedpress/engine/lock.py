"""One writer a folder, or one a share of its job."""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from embedpress.engine.leftovers import sweep
from embedpress.engine.share import Share
from embedpress.errors import StorageError
from embedpress.vectors.files import storage_errors

LOCK = "job.lock"
MERGE_LOCK = "merge.lock"
_SHARE_LOCK = re.compile(r"job-[0-9]+-of-([0-9]+)\.lock", re.ASCII)
_WHOLE = Share()


@contextmanager
def folder_lock(folder: Path, share: Share = _WHOLE) -> Iterator[None]:
    """Hold the lock of a folder; the system lets go of it however the process ends.

    All of a job excludes everybody else; its shares exclude all of the job, themselves, and
    shares of another count.

    Raises
    ------
    StorageError
        If another process holds it, or the file system has no locks.
    """
    busy = f"another process is writing to {folder}: wait for it, or choose another folder"
    with _held(folder / LOCK, busy, shared=not share.whole):
        if share.whole:
            sweep(folder, share)
            yield
            return
        mine = folder / f"job{share.suffix}.lock"
        doing = f"another process is doing share {share.index}/{share.count} of {folder}"
        with _held(mine, f"{doing}: give each process a share of its own"):
            _refuse_other_counts(folder, share)
            sweep(folder, share)
            yield


@contextmanager
def merge_lock(folder: Path) -> Iterator[None]:
    """Hold the lock under which shares become a whole; waits for whoever holds it."""
    with _held(folder / MERGE_LOCK, ""):
        yield


def _refuse_other_counts(folder: Path, share: Share) -> None:
    for path in folder.iterdir():
        found = _SHARE_LOCK.fullmatch(path.name)
        if found is not None and int(found[1]) != share.count and path.exists():
            busy = (
                f"another process does its share of {folder} of {found[1]}, not of {share.count}:"
                " give all the same number of shares"
            )
            with _held(path, busy):
                pass


@contextmanager
def _held(path: Path, busy: str, *, shared: bool = False) -> Iterator[None]:
    """Lock a file, and remove it at the end; wait for it where there is no word for busy."""
    try:
        import fcntl
    except ImportError:
        raise StorageError("jobs need the file locks of Linux or macOS") from None
    how = (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | (fcntl.LOCK_NB if busy else 0)
    held = False
    while not held:
        with storage_errors(path):
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            with storage_errors(path, "lock"):
                fcntl.flock(descriptor, how)
            # The last holder may have removed the file between our open and our lock: then ours
            # is a lock on a file that nobody else will find.
            held = _is_same(descriptor, path)
        except StorageError as error:
            if error.errno not in (errno.EWOULDBLOCK, errno.EACCES):
                raise
            raise StorageError(busy) from None
        finally:
            if not held:
                os.close(descriptor)
    try:
        yield
    finally:
        with suppress(OSError):
            if shared:
                # Whoever has the lock alone at the end clears up.
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if _is_same(descriptor, path):
                    sweep(path.parent, _WHOLE)
                    path.unlink()
            else:
                path.unlink()
        os.close(descriptor)


def _is_same(descriptor: int, path: Path) -> bool:
    try:
        there = path.stat()
    except FileNotFoundError:
        return False
    here = os.fstat(descriptor)
    return (here.st_dev, here.st_ino) == (there.st_dev, there.st_ino)
