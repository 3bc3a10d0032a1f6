"""What every analysis of a folder shares: reading floats, showing rows, writing tables."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from embedpress.errors import InputError
from embedpress.vectors import Batch, Vectors, atomic_path, open_vectors
from embedpress.vectors.files import check_no_file

SHOWN = ("text", "path", "label")
"""Metadata columns by which a person knows a row."""


def open_floats(source: str | Path) -> Vectors:
    """Open latents or embeddings.

    Raises
    ------
    InputError
        Codes.
    """
    vectors = open_vectors(source)
    if vectors.kind == "codes":
        raise InputError(f"{source} holds codes: give latents (compress --what latents)")
    return vectors


def make_folder(out: str | Path) -> Path:
    """The folder to write to, made where it is missing.

    Raises
    ------
    UsageError
        It is a file.
    """
    folder = Path(out)
    check_no_file(folder)
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def records(batch: Batch, rows: NDArray[Any]) -> list[dict[str, Any]]:
    """Rows as dictionaries of id and the words that show them."""
    shown = [name for name in SHOWN if name in batch.metadata.column_names]
    taken = batch.metadata.select(shown).take(pa.array(rows)).to_pylist() if shown else None
    ids = batch.ids.take(pa.array(rows)).to_pylist()
    return [{"id": one, **(taken[i] if taken is not None else {})} for i, one in enumerate(ids)]


def write_table(path: Path, columns: dict[str, Any]) -> None:
    """Write columns as Parquet, whole or not at all."""
    with atomic_path(path) as temporary:
        pq.write_table(pa.table(columns), temporary, compression="zstd")
