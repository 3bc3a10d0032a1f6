"""Add vectors to an index, delete some, and compact it.

Ids are stable, rows are not: what is added comes last, what is deleted is marked and stays until
the index is compacted, which numbers the rows anew.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import faiss
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from embedpress.engine.hashed_file import HashedFile
from embedpress.errors import InputError, MismatchError, UsageError
from embedpress.index.build import rerank_vectors, same_ids, tier_vectors
from embedpress.index.faiss_file import write_flat, write_inverted
from embedpress.index.filter import filter_rows
from embedpress.index.folder import Change, Command, changing
from embedpress.index.lists import ListSource
from embedpress.index.manifest import Frame, IndexManifest
from embedpress.index.parts import assigned_parts
from embedpress.index.rerank import Stored, stored_form, write_tier
from embedpress.index.scan import Scan, check_origin
from embedpress.index.selection import write_deleted
from embedpress.index.stored import StoredIndex
from embedpress.index.table import TableWriter, as_table, joined_schema
from embedpress.index.unfinished import Unfinished
from embedpress.onnx.compress import inputs_fingerprint
from embedpress.onnx.compressor import OnnxCompressor
from embedpress.threads import faiss_threads
from embedpress.vectors import Batch, Vectors, atomic_path, open_vectors, parse_size, rows_within
from embedpress.vectors.files import storage_errors

Mask = NDArray[np.bool_]
Rows = NDArray[np.uint8]
T = TypeVar("T")

EXISTING = ("refuse", "replace", "skip")


@dataclass(frozen=True)
class Changed:
    """What a change did.

    Attributes
    ----------
    manifest : IndexManifest
        Of the index as it is now.
    added, replaced, skipped, deleted : int
        Rows; those that were replaced count as added, too.
    not_found : int
        Ids to delete that are not in the index.
    """

    manifest: IndexManifest
    added: int = 0
    replaced: int = 0
    skipped: int = 0
    deleted: int = 0
    not_found: int = 0


def add_to_index(
    source: str | Path,
    model: str | Path,
    index: str | Path,
    *,
    existing: str = "refuse",
    vectors: str | Path | None = None,
    memory_budget: str | int = "2G",
    num_threads: int | None = None,
    progress: Callable[[int], None] | None = None,
) -> Changed:
    """Add compressed vectors to an index. It is the old one until all of them are in it.

    Parameters
    ----------
    source : str or Path
        A folder of codes or latents, of :func:`embedpress.compress` and the index's compressor.
    model : str or Path
        That compressor.
    index : str or Path
        The index folder. Its lists and its nprobe stay what they are.
    existing : {"refuse", "replace", "skip"}
        What becomes of ids that the index already has: nothing is added at all, the new vectors
        take the place of the old ones, or the old ones stay. With "skip", a source that has grown
        can be given again as a whole.
    vectors : str or Path, optional
        The embeddings, the same rows in the same order, where the index has a rerank tier.
    memory_budget : str or int
    num_threads : int, optional
    progress : callable, optional
        Called with numbers of rows as they are added.

    Returns
    -------
    Changed

    Raises
    ------
    UsageError, InputError, FormatError
        For options, vectors or an index that cannot be used, or ids that are already there.
    MismatchError
        Another compressor, another kind of ids or other columns than the index has.
    """
    if existing not in EXISTING:
        raise UsageError(f"existing={existing!r} must be one of {', '.join(EXISTING)}")
    folder = Path(index)
    compressor = OnnxCompressor(model, num_threads=num_threads)
    compressed = open_vectors(source)
    check_origin(compressed, compressor)
    budget = parse_size(memory_budget)
    given = None if vectors is None else rerank_vectors(vectors, compressed, compressor)
    command = Command(
        "index --add",
        {"existing": existing, "memory_budget": budget},
        {
            "codes": inputs_fingerprint(compressed),
            "compressor": compressor.fingerprint,
            "embeddings": None if given is None else inputs_fingerprint(given),
        },
    )
    with changing(folder) as change, storage_errors(folder):
        if not change.begin(command):
            return _made_before(change)
        old = _stored(change)
        _check_same(folder, old.manifest, compressed, compressor, vectors)
        embeddings = given if old.manifest.rerank != "none" else None
        scan = Scan(compressor, compressed.kind, compressed.dim)
        widest = 4 * max(compressor.dim, compressed.dim, scan.dim)
        block = rows_within(budget // 8, 3 * widest, at_most=65_536)
        ids = _all_ids(compressed, block)
        present, rows = _rows_of(old, ids)
        if existing == "refuse" and present.any():
            first = ids[int(np.argmax(present))].as_py()
            raise InputError(
                f"{int(present.sum())} ids are already in the index, such as {first!r}: "
                "replace or skip them (--existing)"
            )
        fresh = ~present if existing == "skip" else np.ones(len(ids), bool)
        replaced = rows[present] if existing == "replace" else np.empty(0, np.int64)
        counts = {
            "added": int(fresh.sum()),
            "replaced": len(replaced),
            "skipped": int((~fresh).sum()),
        }
        if not fresh.any():
            return Changed(old.manifest, **counts)
        if change.work.facts("counts") is None:
            change.work.note("counts", **counts)
        deleted = np.concatenate([old.deleted, np.zeros(counts["added"], bool)])
        deleted[replaced] = True
        new = _Addition(
            compressed, embeddings, scan, fresh, block, budget, progress or (lambda rows: None)
        )
        with faiss_threads(compressor.num_threads):
            manifest = _rewrite(change, old, np.ones(old.rows, bool), deleted, new, budget)
        return Changed(manifest, **counts)


def delete_from_index(
    index: str | Path,
    *,
    ids: Sequence[int | str] | None = None,
    filter: str | None = None,
) -> Changed:
    """Mark vectors of an index as deleted: from now on no search finds them.

    Parameters
    ----------
    index : str or Path
    ids : sequence of int or str, optional
        Ids that are not in the index are counted and otherwise ignored.
    filter : str, optional
        Rows whose metadata fit; see :mod:`embedpress.index.filter`. With both, rows of either.

    Returns
    -------
    Changed

    Raises
    ------
    UsageError
        Neither is given, or the filter is not one.
    FormatError
        The index is damaged.
    """
    if ids is None and filter is None:
        raise UsageError("say what to delete: ids or a filter")
    folder = Path(index)
    with changing(folder) as change, storage_errors(folder):
        change.begin()
        old = _stored(change)
        table = old.table()
        chosen = np.zeros(old.rows, bool)
        missing = 0
        if filter is not None:
            chosen |= filter_rows(table, filter)
        if ids is not None:
            wanted = pc.unique(_as_ids(ids, table.schema.field("id").type))
            present, rows = _rows_of(old, wanted)
            chosen[rows[present]] = True
            missing = int((~present).sum())
        gone = int((chosen & ~old.deleted).sum())
        if not gone:
            return Changed(old.manifest, not_found=missing)
        change.keep("index", "ids", "rerank", "rerank_scales")
        manifest = _mark(change, old.manifest.frame, old.deleted | chosen)
        return Changed(manifest, deleted=gone, not_found=missing)


def compact_index(index: str | Path, *, memory_budget: str | int = "2G") -> Changed:
    """Write an index anew without its deleted rows.

    Parameters
    ----------
    index : str or Path
    memory_budget : str or int

    Returns
    -------
    Changed
    """
    folder = Path(index)
    budget = parse_size(memory_budget)
    with changing(folder) as change, storage_errors(folder):
        if not change.begin(Command("compact", {"memory_budget": budget}, {})):
            return _made_before(change)
        old = _stored(change)
        if not old.manifest.deleted:
            return Changed(old.manifest)
        keep = ~old.deleted
        counts = {"deleted": int((~keep).sum())}
        if change.work.facts("counts") is None:
            change.work.note("counts", **counts)
        deleted = np.zeros(int(keep.sum()), bool)
        manifest = _rewrite(change, old, keep, deleted, None, budget)
        return Changed(manifest, **counts)


@dataclass(frozen=True)
class _Addition:
    """Rows that come in: those of the source that `fresh` says."""

    compressed: Vectors
    embeddings: Vectors | None
    scan: Scan
    fresh: Mask
    block: int
    budget: int
    progress: Callable[[int], None]

    def batches(self, vectors: Vectors, columns: Sequence[str] | None = None) -> Iterator[Batch]:
        low = 0
        for batch in vectors.iter_batches(self.block, columns=columns):
            fresh = self.fresh[low : low + len(batch.ids)]
            low += len(batch.ids)
            mask = pa.array(fresh)
            metadata = batch.metadata.filter(mask) if batch.metadata.num_columns else batch.metadata
            yield Batch(batch.ids.filter(mask), batch.vectors[fresh], metadata)

    def tables(self) -> Iterator[pa.Table]:
        for batch in self.batches(self.compressed):
            yield as_table(batch)

    def codes(self) -> Iterator[Rows]:
        for batch in self.batches(self.compressed, ()):
            yield self.scan.stored(batch.vectors)
            self.progress(len(batch.vectors))

    def lists(self, work: Unfinished, index: Any, first_row: int) -> Sequence[ListSource]:
        return assigned_parts(
            work,
            index.nlist,
            self.scan.code_size,
            lambda done: _after(self.codes(), done, len),
            partial(self.scan.assign, index),
            rows=int(self.fresh.sum()),
            budget=self.budget // 4,
            first_row=first_row,
        )

    def tier(self) -> Iterator[NDArray[np.float32]]:
        if self.embeddings is None:
            return
        pairs = zip(
            self.batches(self.embeddings, ()), self.batches(self.compressed, ()), strict=True
        )
        for ours, theirs in pairs:
            same_ids(ours, theirs, self.embeddings, self.compressed)
            yield tier_vectors(ours.vectors, self.compressed.metric)


def _rewrite(
    change: Change,
    old: StoredIndex,
    keep: Mask,
    deleted: Mask,
    new: _Addition | None,
    budget: int,
) -> IndexManifest:
    """The old rows to keep and then the new ones, as a new index."""
    index = old.open()
    work, path = change.work, change.path("index")
    kept = int(keep.sum())
    if isinstance(index, faiss.IndexIVF):

        def sources() -> list[ListSource]:
            added = () if new is None else new.lists(work, index, kept)
            return [old.lists(index, keep), *added]

        frame, _ = write_inverted(work, path, index, sources, budget // 8)
    else:

        def codes() -> Iterator[Rows]:
            yield from old.codes(index, keep)
            yield from () if new is None else new.codes()

        with work.growing("index", path) as growth:
            blocks = lambda done: _after(codes(), done, len)  # noqa: E731
            frame = write_flat(growth, index, len(deleted), blocks)
    with work.growing("ids", change.path("ids")) as growth:
        if not growth.finished:
            _write_table(growth.files[0], old, keep, new)
            growth.finish(len(deleted))
    form, dim = old.manifest.rerank, old.manifest.rerank_dim
    if form != "none":

        def tier() -> Iterator[Stored]:
            yield from old.tier(keep)
            for vectors in () if new is None else new.tier():
                yield stored_form(vectors, form)

        paths = change.path("rerank"), change.path("rerank_scales")
        with work.growing("rerank", *paths) as growth:
            write_tier(
                growth,
                form,
                len(deleted),
                dim,
                lambda done: _after(tier(), done, lambda stored: len(stored[0])),
            )
    return _mark(change, frame, deleted)


def _write_table(file: HashedFile, old: StoredIndex, keep: Mask, new: _Addition | None) -> None:
    schema = old.schema()
    if new is not None:
        schema = joined_schema(schema, next(new.tables()).schema)
    with TableWriter(file, schema) as table:
        for part in old.tables(keep):
            table.write(part)
        for part in () if new is None else new.tables():
            table.write(part)


def _after(blocks: Iterable[T], done: int, rows: Callable[[T], int]) -> Iterator[T]:
    """The blocks that come after so many rows; these end with one of them."""
    for block in blocks:
        if done <= 0:
            yield block
        done -= rows(block)


def _mark(change: Change, frame: Frame | None, deleted: Mask) -> IndexManifest:
    if deleted.any():
        with atomic_path(change.path("deleted")) as path:
            write_deleted(path, deleted)
    return change.commit(rows=len(deleted), deleted=int(deleted.sum()), frame=frame)


def _made_before(change: Change) -> Changed:
    noted = change.work.facts("counts") or {}
    names = ("added", "replaced", "skipped", "deleted")
    counts = {name: noted[name] for name in names if type(noted.get(name)) is int}
    return Changed(_old(change), **counts)


def _old(change: Change) -> IndexManifest:
    if change.old is None:
        raise UsageError(f"{change.folder} holds no index")
    return change.old


def _stored(change: Change) -> StoredIndex:
    return StoredIndex(change.folder, _old(change))


def _check_same(
    folder: Path,
    manifest: IndexManifest,
    compressed: Vectors,
    compressor: OnnxCompressor,
    vectors: str | Path | None,
) -> None:
    manifest.check_compressor(folder, compressor.path, compressor.fingerprint)
    if manifest.what != compressed.kind:
        raise MismatchError(f"the index holds {manifest.what}, {compressed.path} {compressed.kind}")
    if manifest.what == "latents" and manifest.dim != compressed.dim:
        raise MismatchError(
            f"the index holds latents of {manifest.dim} floats, {compressed.path} of "
            f"{compressed.dim}: compress with --n-components {manifest.dim}"
        )
    if manifest.rerank != "none" and vectors is None:
        raise UsageError("the index has a rerank tier: give the embeddings with --vectors EMB")


def _all_ids(compressed: Vectors, block: int) -> pa.Array:
    return pa.concat_arrays([b.ids for b in compressed.iter_batches(block, columns=())])


def _rows_of(old: StoredIndex, ids: pa.Array) -> tuple[Mask, NDArray[np.int64]]:
    """Whether each id is in the index (and not deleted), and its row where it is."""
    held = old.table("id")["id"].combine_chunks()
    if held.type != ids.type:
        raise MismatchError(f"the index has ids of type {held.type}, not {ids.type}")
    live = np.flatnonzero(~old.deleted)
    found = pc.index_in(ids, value_set=held.take(pa.array(live)))
    present = found.is_valid().to_numpy(zero_copy_only=False)
    places = found.fill_null(0).to_numpy(zero_copy_only=False).astype(np.int64)
    return present, live[places] if len(live) else places


def _as_ids(ids: Sequence[int | str], kind: pa.DataType) -> pa.Array:
    """Ids as given, of the index's type: numbers may come as text."""
    try:
        if pa.types.is_integer(kind):
            return pa.array([int(i) for i in ids], pa.int64())
        return pa.array([str(i) for i in ids], pa.string())
    except (ValueError, OverflowError, pa.ArrowInvalid) as error:
        raise UsageError(f"the index has whole numbers as ids: {error}") from None
