"""What killed runs leave in a folder."""

from __future__ import annotations

import re
from pathlib import Path

from embedpress.engine.share import Share
from embedpress.vectors.files import storage_errors

_TEMPORARY = re.compile(r"\.(?:part-(\d+)\.parquet|[\w-]+\.jsonl?)\.[0-9a-f]{8}\.tmp", re.ASCII)
_LOCK = re.compile(r"job-\d+-of-\d+\.lock|merge\.lock", re.ASCII)


def sweep(folder: Path, share: Share) -> None:
    """Remove half-written files of a share; of the whole job, the locks of its shares as well.

    Only for the one who holds the lock of `share`: nobody else can be at work on them.
    """
    with storage_errors(folder):
        for path in folder.iterdir():
            found = _TEMPORARY.fullmatch(path.name)
            if share.whole:
                gone = found is not None or _LOCK.fullmatch(path.name) is not None
            else:
                gone = found is not None and found[1] is not None and share.holds(int(found[1]))
            if gone:
                path.unlink(missing_ok=True)
