"""A batch of rows, and how batches are cut and joined."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from embedpress.vectors.shard import ID


@dataclass(frozen=True)
class Batch:
    """Some rows: ids (int64 or string), values of shape (n, dim), metadata of n rows.

    `vectors` is float32, C-contiguous and writable; for codes it is uint8.
    """

    ids: pa.Array
    vectors: npt.NDArray[Any]
    metadata: pa.Table


def cut(batch: Batch, low: int, high: int | None) -> Batch:
    n = len(batch.ids) if high is None else high
    return Batch(
        batch.ids.slice(low, n - low),
        batch.vectors[low:n],
        batch.metadata.slice(low, n - low),
    )


def join(parts: Iterable[Batch], rows: int) -> Batch:
    batches = iter(parts)
    first = next(batches)
    if len(first.ids) == rows:
        return first
    vectors = np.empty((rows, first.vectors.shape[1]), first.vectors.dtype)
    ids, metadata, low = [], [], 0
    for batch in chain([first], batches):
        high = low + len(batch.ids)
        vectors[low:high] = batch.vectors
        ids.append(batch.ids)
        metadata.append(batch.metadata)
        low = high
    joined = pa.concat_arrays(ids)
    return Batch(joined, vectors, as_metadata(pa.concat_tables(metadata), joined))


def as_metadata(metadata: pa.Table | None, ids: pa.Array) -> pa.Table:
    # A table without columns still has rows, but only when it is cut from one that has columns.
    if metadata is None or metadata.num_columns == 0:
        return pa.table({ID: ids}).select([])
    return metadata
