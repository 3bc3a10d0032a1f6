"""Whether the shards of a folder are still those that its manifest names."""

from __future__ import annotations

import os

from embedpress.errors import FormatError
from embedpress.vectors.files import sha256_of, storage_errors
from embedpress.vectors.manifest import Shard, read_manifest, shard_path


def verify(folder: str | os.PathLike[str]) -> list[str]:
    """Compare every shard of a folder with its manifest.

    Parameters
    ----------
    folder
        A folder with a manifest.json.

    Returns
    -------
    list of str
        Names of the shards that are missing or whose size or SHA-256 is another; empty when
        all hold.

    Raises
    ------
    FormatError
        If the manifest itself is not valid.
    """
    return [s.name for s in read_manifest(folder).shards if not shard_holds(folder, s)]


def shard_holds(folder: str | os.PathLike[str], shard: Shard) -> bool:
    """Say whether a shard is there and has the size and the SHA-256 that it should have."""
    try:
        path = shard_path(folder, shard)
    except FormatError:
        return False
    with storage_errors(path, "read"):
        size = path.stat().st_size
    return size == shard.bytes and sha256_of(path) == shard.sha256
