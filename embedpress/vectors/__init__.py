"""The dataset on disk: vectors in Parquet shards with a manifest, and plain files of vectors."""

from embedpress.vectors.batch import Batch
from embedpress.vectors.budget import parse_size, rows_within
from embedpress.vectors.check import check_codes, check_unique, check_vectors
from embedpress.vectors.dataset import Vectors, is_plain, open_vectors
from embedpress.vectors.files import atomic_path, sha256_of, write_atomic
from embedpress.vectors.manifest import (
    FORMAT_VERSION,
    Manifest,
    Shard,
    read_manifest,
    write_manifest,
)
from embedpress.vectors.shard import shard_table
from embedpress.vectors.verify import verify

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
