"""A dataset of vectors on disk, read in checked batches of bounded size."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from embedpress.errors import (
    FormatError,
    InputError,
    MismatchError,
    StorageError,
    UsageError,
    one_line,
)
from embedpress.vectors.arrow import open_arrow, saved_files
from embedpress.vectors.batch import Batch, as_metadata, cut, join
from embedpress.vectors.check import (
    METRICS,
    as_matrix,
    check_metric,
    first_problem,
    to_float32,
)
from embedpress.vectors.files import storage_errors
from embedpress.vectors.ids import UniqueIds, first_repeat
from embedpress.vectors.manifest import MANIFEST, Manifest, is_journal, read_manifest
from embedpress.vectors.parquet import open_shards
from embedpress.vectors.readers import open_file
from embedpress.vectors.source import Block, Source

_BLOCK = 8192


class Vectors:
    """Embeddings, latents or codes on disk; made by :func:`open_vectors`.

    Attributes
    ----------
    path
        Where they are.
    kind
        "embeddings", "latents" or "codes".
    dim
        Floats a row; for codes, bytes a row.
    count
        Rows.
    metric
        "cosine", "ip" or "l2".
    manifest
        What the folder says about itself; None for a plain file.
    metadata_columns
        Names of the columns besides ids and vectors.
    """

    def __init__(
        self, path: Path, source: Source, metric: str, manifest: Manifest | None = None
    ) -> None:
        self.path = path
        self.kind = source.kind
        self.dim = source.dim
        self.count = source.count
        self.metric = metric
        self.manifest = manifest
        self.metadata_columns = list(source.metadata_columns)
        self._source = source

    def __len__(self) -> int:
        return self.count

    def __repr__(self) -> str:
        return f"<Vectors {self.path}: {self.count} {self.kind}, dim {self.dim}, {self.metric}>"

    def iter_batches(
        self,
        rows: int = _BLOCK,
        *,
        start: int = 0,
        stop: int | None = None,
        columns: Sequence[str] | None = None,
    ) -> Iterator[Batch]:
        """Read rows `start` to `stop` in order.

        Parameters
        ----------
        rows
            Rows of a batch; only the last one may have fewer.
        start, stop
            Rows to read, counted from 0; up to the last one by default.
        columns
            Metadata columns to bring along; all by default, ``()`` for none.

        Yields
        ------
        Batch
            Checked: finite numbers, no zero vectors under "cosine", no id twice.

        Raises
        ------
        InputError
            Naming the first row that cannot be used, and the file.
        FormatError
            If a file turns out to be corrupt.
        """
        names = self._columns(columns)
        stop = self.count if stop is None else stop
        if rows < 1 or not 0 <= start <= stop <= self.count:
            raise UsageError(f"cannot read rows {start}..{stop} of {self.count} by {rows}")
        return self._batches(rows, start, stop, names)

    def read(
        self, limit: int | None = None, *, seed: int = 0, columns: Sequence[str] | None = None
    ) -> Batch:
        """Read everything, or a sample, into memory.

        Parameters
        ----------
        limit
            At most so many rows, drawn without replacement and kept in order.
        seed
            Seed of the draw.
        columns
            Metadata columns to bring along; all by default, ``()`` for none.

        Returns
        -------
        Batch
            The checked rows; of a sample, only the rows drawn are checked.

        Raises
        ------
        InputError
            If a row cannot be used, or the rows do not fit in memory.
        """
        names = self._columns(columns)
        if limit is not None and limit < 1:
            raise UsageError(f"a sample needs at least one row, not {limit}")
        n = self.count if limit is None else min(limit, self.count)
        chosen = None
        if n < self.count:
            draw = np.random.default_rng(seed)
            chosen = np.sort(draw.choice(self.count, n, replace=False, shuffle=False))
        try:
            batch = join(self._checked(0, self.count, _BLOCK, names, chosen), n)
        except MemoryError:
            raise InputError(f"{self.path}: {n} rows do not fit in memory, read fewer") from None
        repeat = first_repeat(batch.ids)
        if repeat is not None:
            row = repeat[1] if chosen is None else int(chosen[repeat[1]])
            raise self._twice(row, batch.ids[repeat[1]].as_py())
        return batch

    def _columns(self, columns: Sequence[str] | None) -> list[str]:
        names = self.metadata_columns if columns is None else list(columns)
        for name in names:
            if name not in self.metadata_columns:
                held = ", ".join(self.metadata_columns) or "none"
                raise UsageError(f"{self.path} has no metadata column {name!r} (it has {held})")
        return names

    def _twice(self, row: int, value: Any) -> InputError:
        return InputError(f"{self.path}: id {value!r} of row {row} is that of an earlier row too")

    def _batches(self, rows: int, start: int, stop: int, names: list[str]) -> Iterator[Batch]:
        unique = UniqueIds()
        parts: list[Batch] = []
        low, held = start, 0
        for part in self._checked(start, stop, rows, names):
            # Blocks end where row groups and shards do; batches do not.
            while held + len(part.ids) >= rows:
                parts.append(cut(part, 0, rows - held))
                part = cut(part, rows - held, None)
                yield self._unique(join(parts, rows), unique, start, low)
                low, held, parts = low + rows, 0, []
            if len(part.ids):
                parts.append(part)
                held += len(part.ids)
        if held:
            yield self._unique(join(parts, held), unique, start, low)

    def _unique(self, batch: Batch, unique: UniqueIds, start: int, low: int) -> Batch:
        found = unique.add(batch.ids, lambda: self._source.ids(start, low))
        if found is not None:
            raise self._twice(low + found[0], found[1])
        return batch

    def _checked(
        self,
        start: int,
        stop: int,
        rows: int,
        names: list[str],
        chosen: npt.NDArray[np.int64] | None = None,
    ) -> Iterator[Batch]:
        low = start
        for block in self._blocks(start, stop, rows, names):
            high = low + len(block.values)
            at = np.arange(low, high)
            values, ids, metadata = block.values, block.ids, block.metadata
            if chosen is not None:
                at = chosen[slice(*np.searchsorted(chosen, [low, high]))]
                take = at - low
                values = values[take]
                ids = None if ids is None else ids.take(pa.array(take))
                metadata = None if metadata is None else metadata.take(pa.array(take))
            if ids is None:
                ids = pa.array(at)
            if len(at):
                yield Batch(ids, self._numbers(values, at), as_metadata(metadata, ids))
            low = high
        if low != stop:
            raise FormatError(f"{self.path} ends at row {low}, {stop} were expected")

    def _numbers(self, values: npt.NDArray[Any], at: npt.NDArray[np.int64]) -> npt.NDArray[Any]:
        if self.kind == "codes":
            return np.array(values)
        floats = to_float32(as_matrix(values, dim=self.dim, what=str(self.path)))
        # Latents and codes may be zero: the rule is about what comes in from outside.
        metric = self.metric if self.kind == "embeddings" else None
        problem = first_problem(values, floats, metric)
        if problem is not None:
            raise InputError(f"{self.path}: row {at[problem[0]]} {problem[1]}")
        return floats if floats.flags.writeable else floats.copy()

    def _blocks(self, start: int, stop: int, rows: int, names: list[str]) -> Iterator[Block]:
        try:
            yield from self._source.blocks(start, stop, max(1, min(rows, stop - start)), names)
        except (FormatError, StorageError):
            raise
        except InputError as error:
            raise InputError(f"{self.path}: {error}") from None
        except Exception as error:
            # What a parser raises on a corrupt file is no closed list.
            text = one_line(error)
            raise FormatError(f"{self.path} cannot be read, is it corrupt? {text}") from error


def is_plain(path: str | os.PathLike[str]) -> bool:
    """Whether vectors do not say for which metric they are: those of others' files and folders."""
    return not Path(path).is_dir() or saved_files(Path(path)) is not None


def metric_for(path: str | os.PathLike[str], metric: str) -> str | None:
    """What to open vectors with, where those that say nothing of their metric go by this one."""
    return metric if is_plain(path) else None


def open_vectors(
    path: str | os.PathLike[str], *, metric: str | None = None, column: str | None = None
) -> Vectors:
    """Open vectors on disk, without reading them.

    Parameters
    ----------
    path
        A folder with a manifest.json, a folder that ``datasets.Dataset.save_to_disk`` wrote, or
        a .npy, .npz, .fvecs, .parquet, .arrow or .safetensors file.
    metric
        "cosine", "ip" or "l2"; a folder's own by default, "cosine" where nothing says it.
    column
        The column, array or tensor to read, where a plain file or a dataset holds several.

    Returns
    -------
    Vectors

    Raises
    ------
    UsageError
        If there is nothing of the kind at `path`, or an option makes no sense for it.
    InputError
        If the content cannot be vectors: wrong shape, dtype, empty.
    FormatError
        If a file is not what its name, its header or the manifest says.
    MismatchError
        If `metric` is another than the folder's.
    """
    path = Path(path)
    if metric is not None:
        check_metric(metric)
    try:
        folder = path.is_dir()
        if not folder and not path.is_file():
            raise UsageError(f"{path} does not exist: give a folder or a file of vectors")
    except (OSError, ValueError) as error:
        raise UsageError(f"{path} cannot be a path: {error}") from None
    if not folder:
        with storage_errors(path, "read"), path.open("rb"):
            pass
        return Vectors(path, open_file(path, column), metric or METRICS[0])
    saved = saved_files(path)
    if saved is not None:
        return Vectors(path, open_arrow(saved, column, path), metric or METRICS[0])
    if column is not None:
        raise UsageError(f"{path} is a folder with columns of its own: leave the column out")
    if not (path / MANIFEST).exists() and any(is_journal(file.name) for file in path.iterdir()):
        raise InputError(f"{path} is not finished: run the command that writes it once more")
    manifest = read_manifest(path)
    if metric is not None and metric != manifest.metric:
        raise MismatchError(
            f"{path} was made for the metric {manifest.metric!r}, not {metric!r}: leave it out"
        )
    return Vectors(path, open_shards(path, manifest), manifest.metric, manifest)
