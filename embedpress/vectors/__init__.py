"""The dataset on disk: vectors in Parquet shards with a manifest, and plain files of vectors.

Names are loaded on first use, so that the runtime's checks of arrays bring in no pyarrow.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from embedpress.vectors.batch import Batch
    from embedpress.vectors.budget import parse_size, rows_within
    from embedpress.vectors.check import check_codes, check_vectors
    from embedpress.vectors.dataset import Vectors, is_plain, metric_for, open_vectors
    from embedpress.vectors.files import atomic_path, sha256_of, write_atomic
    from embedpress.vectors.ids import check_unique
    from embedpress.vectors.manifest import (
        FORMAT_VERSION,
        Manifest,
        Shard,
        read_manifest,
        write_manifest,
    )
    from embedpress.vectors.shard import shard_table
    from embedpress.vectors.verification import verify

_MODULES = {
    "batch": ("Batch",),
    "budget": ("parse_size", "rows_within"),
    "check": ("check_codes", "check_vectors"),
    "dataset": ("Vectors", "is_plain", "metric_for", "open_vectors"),
    "files": ("atomic_path", "sha256_of", "write_atomic"),
    "ids": ("check_unique",),
    "manifest": ("FORMAT_VERSION", "Manifest", "Shard", "read_manifest", "write_manifest"),
    "shard": ("shard_table",),
    "verification": ("verify",),
}
_HOMES = {name: module for module, names in _MODULES.items() for name in names}

__all__ = [
    "FORMAT_VERSION",
    "Batch",
    "Manifest",
    "Shard",
    "Vectors",
    "atomic_path",
    "check_codes",
    "check_unique",
    "check_vectors",
    "is_plain",
    "metric_for",
    "open_vectors",
    "parse_size",
    "read_manifest",
    "rows_within",
    "sha256_of",
    "shard_table",
    "verify",
    "write_atomic",
    "write_manifest",
]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
