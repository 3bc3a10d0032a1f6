"""Near-duplicates of a dataset on disk, of any size, within a memory budget."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from embedpress.analyze.duplicates import check_threshold, group_pairs
from embedpress.analyze.files import SHOWN, make_folder, records
from embedpress.errors import MismatchError, UsageError
from embedpress.evaluate.exact import Floats, Ids
from embedpress.onnx.compressor import OnnxCompressor
from embedpress.vectors import (
    Vectors,
    atomic_path,
    open_vectors,
    parse_size,
    rows_within,
    write_atomic,
)

READ_ROWS = 8192
SHOWN_GROUPS, SHOWN_MEMBERS = 20, 5


def duplicates_folder(
    source: str | Path,
    out: str | Path,
    *,
    threshold: float | None = None,
    model: str | Path | None = None,
    memory_budget: str | int = "2G",
    num_threads: int | None = None,
) -> dict[str, Any]:
    """Find near-duplicates and write duplicates.parquet and duplicates.json.

    Parameters
    ----------
    source : str or Path
        Embeddings, latents, or codes.
    out : str or Path
        The folder to write.
    threshold : float, optional
        See :func:`embedpress.analyze.duplicates.find_duplicates`.
    model : str or Path, optional
        The compressor folder that codes are decoded with.
    memory_budget : str or int
        Memory for vectors; with less, they are read more often.
    num_threads : int, optional

    Returns
    -------
    dict
        ``n_groups``, ``n_members`` (rows in any), ``n_redundant`` (rows that could go with one
        kept of each group), ``n_pairs``, and the largest ``groups``. In duplicates.parquet the
        first row of each group has ``keep`` true.

    Raises
    ------
    UsageError, InputError, FormatError, MismatchError
        Options, vectors or a compressor that cannot be used.
    StorageError
        If the disk refuses.
    """
    vectors = open_vectors(source)
    limit = check_threshold(threshold, vectors.metric)
    decoder = _decoder(vectors, model, num_threads)
    dim = vectors.dim if decoder is None else decoder.dim
    budget = parse_size(memory_budget)
    # Held twice: as rows and in FAISS's index.
    at_once = rows_within(budget, 2 * 4 * dim, at_most=vectors.count)
    folder = make_folder(out)

    def blocks(start: int, stop: int) -> Iterator[Floats]:
        for batch in vectors.iter_batches(READ_ROWS, start=start, stop=stop, columns=()):
            yield batch.vectors if decoder is None else decoder.decode(batch.vectors)

    found = group_pairs(
        blocks,
        vectors.count,
        limit,
        metric=vectors.metric,
        at_once=at_once,
        num_threads=num_threads,
    )
    result: dict[str, Any] = {
        "duplicates": str(folder / "duplicates.parquet"),
        "count": vectors.count,
        "threshold": limit,
        "metric": vectors.metric,
        "n_groups": len(found.sizes),
        "n_members": int(found.sizes.sum()),
        "n_redundant": int(found.sizes.sum()) - len(found.sizes),
        "n_pairs": found.n_pairs,
    }
    with atomic_path(folder / "duplicates.parquet") as path:
        result["groups"] = _write(path, vectors, found.groups, found.sizes)
    write_atomic(folder / "duplicates.json", json.dumps(result, indent=1) + "\n")
    return result


def _decoder(
    vectors: Vectors, model: str | Path | None, num_threads: int | None
) -> OnnxCompressor | None:
    if vectors.kind != "codes":
        if model is not None:
            raise UsageError(f"{vectors.path} holds {vectors.kind}: leave --model out")
        return None
    if model is None:
        raise UsageError(f"{vectors.path} holds codes: name the compressor with --model")
    compressor = OnnxCompressor(model, num_threads=num_threads)
    made_by = vectors.manifest.config.get("compressor") if vectors.manifest else None
    if made_by != compressor.fingerprint:
        raise MismatchError(f"{vectors.path} was not compressed by {model}: give the one it was")
    return compressor


def _write(path: Path, vectors: Vectors, groups: Ids, sizes: Ids) -> list[dict[str, Any]]:
    """Write the members; return the largest groups with the first of their members."""
    shown: list[list[dict[str, Any]]] = [[] for _ in sizes[:SHOWN_GROUPS]]
    seen = np.zeros(len(sizes), bool)
    columns = [name for name in SHOWN if name in vectors.metadata_columns]
    writer: pq.ParquetWriter | None = None
    start = 0
    try:
        for batch in vectors.iter_batches(READ_ROWS, columns=columns):
            own = groups[start : start + len(batch.ids)]
            start += len(batch.ids)
            rows = np.flatnonzero(own >= 0)
            members = own[rows]
            first = np.zeros(len(rows), bool)
            first[np.unique(members, return_index=True)[1]] = True
            first &= ~seen[members]
            seen[members] = True
            ids = batch.ids.take(pa.array(rows))
            table = pa.table({"id": ids, "group": members, "keep": first})
            writer = writer or pq.ParquetWriter(path, table.schema, compression="zstd")
            writer.write_table(table)
            for group in np.unique(members[members < len(shown)]):
                room = SHOWN_MEMBERS - len(shown[group])
                if room > 0:
                    shown[group] += records(batch, rows[members == group][:room])
    finally:
        if writer is not None:
            writer.close()
    return [
        {"group": group, "size": int(sizes[group]), "members": members}
        for group, members in enumerate(shown)
    ]
