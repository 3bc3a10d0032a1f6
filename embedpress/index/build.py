"""Build an index folder: codes laid out as they are, ids and metadata, a rerank tier."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import faiss
import numpy as np
from numpy.typing import NDArray

from embedpress.errors import MismatchError, UsageError
from embedpress.index.coarse import coarse_quantizer, keep_nprobe, train_centroids
from embedpress.index.faiss_file import rewrite_head, write_flat, write_inverted
from embedpress.index.folder import Change, Command, changing, check_free
from embedpress.index.layout import Layout, parse_factory, query_ms, size_of
from embedpress.index.manifest import IndexManifest
from embedpress.index.parts import SortedPart, assigned_parts
from embedpress.index.rerank import FORMS, Stored, stored_form, write_tier
from embedpress.index.scan import Scan, check_origin
from embedpress.index.table import TableWriter, as_table
from embedpress.index.tune import (
    AGREEMENT,
    DEPTH,
    MOST_QUERIES,
    RESTORED_AGREEMENT,
    first_hits,
    joined_hits,
    n_queries,
    tune_nprobe,
)
from embedpress.index.unfinished import Unfinished
from embedpress.onnx.compress import check_kind, inputs_fingerprint
from embedpress.onnx.compressor import OnnxCompressor
from embedpress.threads import faiss_threads
from embedpress.vectors import (
    Batch,
    Vectors,
    metric_for,
    open_vectors,
    parse_size,
    rows_within,
)
from embedpress.vectors.files import storage_errors

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]

BLOCK_ROWS = 65_536
_SAMPLE_PER_LIST, _SAMPLE, _SMALL_SAMPLE = 64, 262_144, 4_096
_SCAN_ROWS = 1 << 22


def build_index(
    source: str | Path,
    model: str | Path,
    out: str | Path,
    *,
    factory: str = "auto",
    nprobe: int | None = None,
    rerank: str = "none",
    vectors: str | Path | None = None,
    queries: str | Path | None = None,
    memory_budget: str | int = "2G",
    seed: int = 0,
    num_threads: int | None = None,
    progress: Callable[[int], None] | None = None,
) -> IndexManifest:
    """Build a FAISS index of compressed vectors.

    Codes are scanned by an ordinary product quantizer (``IndexPQ``, or ``IndexIVFPQ`` without
    residuals) whose centroids are the learnt codebooks; latents by ``IndexFlat`` or
    ``IndexIVFFlat``. Plain ``faiss.read_index`` opens the file. An index that is there stays what
    it is until the new one is whole. A build that was killed goes on with the same call; of one
    that is there already only the checksums are looked at.

    Parameters
    ----------
    source : str or Path
        A folder of codes or latents, of :func:`embedpress.compress`.
    model : str or Path
        The compressor that made them.
    out : str or Path
        The folder to write.
    factory : str
        "auto" (by the number of vectors), "Flat", "IVF<n>" or "IVF<n>_HNSW<m>".
    nprobe : int, optional
        Inverted lists that a search visits. By default the fewest that hold .99 of the first hits
        of an exhaustive scan, or .993 by queries restored from the vectors; where none do, as many
        as find nearly all that more would.
    rerank : {"none", "int8", "float16", "float32"}
        Form of the embeddings kept on disk to reorder the first hits.
    vectors : str or Path, optional
        The embeddings for the rerank tier, the same rows in the same order.
    queries : str or Path, optional
        Embeddings of sample queries, to find `nprobe` with; some of the vectors by default, none
        of which may find itself.
    memory_budget : str or int
        Bytes that the build may take, such as "2G", beside what the libraries take (some 200
        MiB). An index that is larger is opened memory-mapped.
    seed : int
        For the k-means of the inverted lists.
    num_threads : int, optional
    progress : callable, optional
        Called with numbers of rows as they are added.

    Returns
    -------
    IndexManifest

    Raises
    ------
    UsageError, InputError, FormatError
        For options or vectors that cannot be used.
    MismatchError
        If another compressor made the codes, the rerank vectors are of other rows, or another
        build was begun in the folder and not finished.
    StorageError
        If the disk refuses; what is done is kept.
    """
    if rerank not in FORMS:
        raise UsageError(f"rerank={rerank!r} must be one of {', '.join(FORMS)}")
    if rerank != "none" and vectors is None:
        raise UsageError("a rerank tier needs the embeddings: give them with --vectors EMB")
    if nprobe is not None and nprobe < 1:
        raise UsageError(f"nprobe={nprobe} must be at least 1")
    budget = parse_size(memory_budget)
    compressor = OnnxCompressor(model, num_threads=num_threads)
    compressed = open_vectors(source)
    check_origin(compressed, compressor)
    embeddings = None
    if rerank != "none" and vectors is not None:
        embeddings = rerank_vectors(vectors, compressed, compressor)
    layout = parse_factory(factory, compressed.count)
    scan = Scan(compressor, compressed.kind, compressed.dim)
    command = Command(
        "index",
        {
            "factory": layout.name,
            "nprobe": nprobe,
            "rerank": rerank,
            "memory_budget": budget,
            "seed": seed,
            "extractor": _extractor(compressed),
        },
        {
            "codes": inputs_fingerprint(compressed),
            "compressor": compressor.fingerprint,
            "embeddings": None if embeddings is None else inputs_fingerprint(embeddings),
            "queries": None if queries is None else inputs_fingerprint(open_vectors(queries)),
        },
    )
    build = _Build(
        command=command,
        compressed=compressed,
        compressor=compressor,
        scan=scan,
        layout=layout,
        nprobe=nprobe,
        rerank=rerank,
        embeddings=embeddings,
        queries=None if queries is None else scan.queries(_sample(queries, compressor)),
        budget=budget,
        seed=seed,
        progress=progress or (lambda rows: None),
    )
    check_free(Path(out))
    with (
        changing(Path(out), new=True) as change,
        storage_errors(Path(out)),
        faiss_threads(compressor.num_threads),
    ):
        return build.run(change)


@dataclass
class _Build:
    """All that a build knows; :meth:`run` walks with the data."""

    command: Command
    compressed: Vectors
    compressor: OnnxCompressor
    scan: Scan
    layout: Layout
    nprobe: int | None
    rerank: str
    embeddings: Vectors | None
    queries: Floats | None
    budget: int
    seed: int
    progress: Callable[[int], None]

    def run(self, change: Change) -> IndexManifest:
        if not change.begin(self.command) or change.stands(self.command):
            assert change.old is not None
            self.progress(self.compressed.count)
            return change.old
        own = self._own_rows()
        picked, sample = self._tables(change, own)
        path = change.path("index")
        nprobe, choice = 0, {"why": self.layout.why} if self.layout.why else {}
        if not self.layout.n_lists:
            with change.work.growing("index", path) as growth:
                flat, count = self.scan.flat(), self.compressed.count
                frame = write_flat(growth, flat, count, self._told_blocks)
        else:
            index = self._inverted(change.work, sample)
            parts = partial(self._parts, change.work, index)
            frame, sizes = write_inverted(change.work, path, index, parts, self.budget // 8)
            tuned = self._tuned(change.work, path, picked, own)
            nprobe = tuned.pop("nprobe")
            keep_nprobe(index, nprobe)
            choice |= tuned
            frame = rewrite_head(path, index, sizes)
        if self.embeddings is not None:
            paths = change.path("rerank"), change.path("rerank_scales")
            with change.work.growing("rerank", *paths) as growth:
                embeddings = self.embeddings
                blocks = partial(self._tier_blocks, embeddings)
                write_tier(growth, self.rerank, embeddings.count, embeddings.dim, blocks)
        return change.commit(
            rows=self.compressed.count,
            deleted=0,
            frame=frame,
            job=self.command.fingerprint,
            what=self.compressed.kind,
            compressor=self.compressor.fingerprint,
            metric=self.compressor.metric,
            dim=self.scan.dim,
            factory=self.layout.name,
            nprobe=nprobe,
            choice={**choice, **self._estimates(nprobe)},
            rerank=self.rerank,
            rerank_dim=self.compressor.dim if self.rerank != "none" else 0,
            extractor=_extractor(self.compressed),
        )

    @property
    def _block(self) -> int:
        """Rows of a block: the stored form, the latents, and what a scan of them takes."""
        widest = 4 * max(self.compressor.dim, self.compressed.dim, self.scan.dim)
        return rows_within(self.budget // 8, 3 * widest, at_most=BLOCK_ROWS)

    def _own_rows(self) -> Ints:
        """Rows that ask for their neighbours where no queries were given."""
        if not self.layout.n_lists or self.nprobe is not None or self.queries is not None:
            return np.empty(0, np.int64)
        n, count = n_queries(self.compressed.count), self.compressed.count
        return np.sort(np.random.default_rng(self.seed + 1).choice(count, n, replace=False))

    def _sample_rows(self) -> Ints:
        """Rows that the inverted lists are learnt from."""
        n_lists, count = self.layout.n_lists, self.compressed.count
        if not n_lists:
            return np.empty(0, np.int64)
        most = self.budget // 4 // (8 * self.scan.latent_dim)
        wanted = max(n_lists, _SMALL_SAMPLE, min(_SAMPLE_PER_LIST * n_lists, _SAMPLE, most))
        if wanted >= count:
            return np.arange(count)
        draw = np.random.default_rng(self.seed)
        return np.sort(draw.choice(count, wanted, replace=False, shuffle=False))

    def _tables(self, change: Change, own: Ints) -> list[NDArray[Any]]:
        """Write ids and metadata, and return two choices of rows: `own` and the sample."""
        work, chosen = change.work, (own, self._sample_rows())
        paths = [work.place / "own", work.place / "sample"]
        with work.growing("ids", change.path("ids"), *paths) as growth:
            if not growth.finished:
                low = 0
                with TableWriter(growth.files[0]) as table:
                    for batch in self.compressed.iter_batches(self._block):
                        table.write(as_table(batch))
                        high = low + len(batch.ids)
                        for rows, file in zip(chosen, growth.files[1:], strict=True):
                            places = rows[slice(*np.searchsorted(rows, [low, high]))]
                            file.write(batch.vectors[places - low])
                        low = high
                growth.finish(low)
        dtype, dim = "u1" if self.compressed.kind == "codes" else "f4", self.compressed.dim
        return [
            work.array(path.name, dtype, (len(c), dim))
            for path, c in zip(paths, chosen, strict=True)
        ]

    def _inverted(self, work: Unfinished, sample: NDArray[Any]) -> Any:
        scan, path = self.scan, work.place / "centroids"
        with work.growing("centroids", path) as growth:
            if not growth.finished:
                latents, n_lists = scan.latents(sample), self.layout.n_lists
                centroids = train_centroids(latents, n_lists, scan.metric, seed=self.seed)
                growth.files[0].write(centroids)
                growth.finish(n_lists)
        centroids = work.array(path.name, "f4", (self.layout.n_lists, scan.latent_dim))
        quantizer = coarse_quantizer(centroids, self.layout, scan.metric, repeat=scan.stages)
        return scan.inverted(quantizer, self.layout.n_lists)

    def _parts(self, work: Unfinished, index: Any) -> list[SortedPart]:
        return assigned_parts(
            work,
            index.nlist,
            self.scan.code_size,
            self._told_blocks,
            partial(self.scan.assign, index),
            rows=self.compressed.count,
            budget=self.budget // 4,
        )

    def _blocks(self, start: int, stop: int | None = None) -> Iterator[NDArray[np.uint8]]:
        """The stored form of the rows `start` to `stop`."""
        batches = self.compressed.iter_batches(self._block, start=start, stop=stop, columns=())
        for batch in batches:
            yield self.scan.stored(batch.vectors)

    def _told_blocks(self, start: int) -> Iterator[NDArray[np.uint8]]:
        self.progress(start)
        for block in self._blocks(start):
            yield block
            self.progress(len(block))

    def _tuned(
        self, work: Unfinished, path: Path, picked: NDArray[Any], own: Ints
    ) -> dict[str, Any]:
        """The lists to visit, as "nprobe", with the figures that it was chosen by."""
        if self.nprobe is not None:
            return {"nprobe": min(self.nprobe, self.layout.n_lists)}
        tuned = dict(work.facts("tuned") or {})
        if type(tuned.get("nprobe")) is not int:
            asked, target = self.queries, AGREEMENT
            if asked is None:
                asked, target = self.scan.restored_queries(picked), RESTORED_AGREEMENT
            else:
                own = np.full(len(asked), -1)
            truth = self._scanned(work, asked)
            index = faiss.read_index(str(path), faiss.IO_FLAG_MMAP)
            nprobe, share = tune_nprobe(index, asked, own, truth, agreement=target)
            figures = {"queries": len(asked), "depth": DEPTH, "target": target}
            tuned = {"nprobe": nprobe, **figures, "agreement": round(share, 4)}
            work.note("tuned", **tuned)
        return tuned

    def _scanned(self, work: Unfinished, asked: Floats) -> tuple[Floats, Ints]:
        """What a scan of all rows finds first, which is noted every so many rows."""
        flat, count, shape = self.scan.flat(), self.compressed.count, (len(asked), DEPTH + 1)
        path = work.place / "hits"
        with work.growing("scan", path) as growth:
            for low in range(growth.done, count, _SCAN_ROWS):
                high = min(low + _SCAN_ROWS, count)
                for part in first_hits(flat, self._blocks(low, high), asked, shape[1], low):
                    growth.files[0].write(part)
                growth.mark(high, last=high == count)
        scored = np.dtype([("scores", np.float32, shape), ("rows", np.int64, shape)])
        found = np.fromfile(path, scored)
        return joined_hits(flat, ((one["scores"], one["rows"]) for one in found))

    def _estimates(self, nprobe: int) -> dict[str, Any]:
        size = self.scan.code_size
        count, dim = self.compressed.count, self.scan.dim
        total = size_of(self.layout, count, size, dim)
        return {
            "estimated_bytes": total,
            "estimated_query_ms": round(query_ms(self.layout, count, size, dim, nprobe), 3),
            "memory_map": total > self.budget,
        }

    def _tier_blocks(self, embeddings: Vectors, start: int) -> Iterator[Stored]:
        pairs = zip(
            embeddings.iter_batches(self._block, start=start, columns=()),
            self.compressed.iter_batches(self._block, start=start, columns=()),
            strict=True,
        )
        for ours, theirs in pairs:
            same_ids(ours, theirs, embeddings, self.compressed)
            yield stored_form(tier_vectors(ours.vectors, self.compressed.metric), self.rerank)


def rerank_vectors(path: str | Path, compressed: Vectors, compressor: OnnxCompressor) -> Vectors:
    """The embeddings of a rerank tier, of as many rows as are compressed."""
    embeddings = open_vectors(path, metric=metric_for(path, compressor.metric))
    check_kind(embeddings, compressor)
    if embeddings.count != compressed.count:
        raise MismatchError(
            f"{embeddings.path} has {embeddings.count} rows, {compressed.path} has "
            f"{compressed.count}: the rerank tier takes the same rows in the same order"
        )
    return embeddings


def same_ids(ours: Batch, theirs: Batch, embeddings: Vectors, compressed: Vectors) -> None:
    """Raise `MismatchError` unless embeddings are of the rows that were compressed."""
    if not ours.ids.equals(theirs.ids):
        raise MismatchError(
            f"{embeddings.path} has other ids than {compressed.path}, or another order"
        )


def tier_vectors(embeddings: Floats, metric: str) -> Floats:
    """Embeddings as a tier keeps them: under "cosine" their lengths do not count."""
    if metric != "cosine":
        return embeddings
    # float16 holds numbers around 1 best.
    scaled: Floats = embeddings / np.linalg.norm(embeddings, axis=1, keepdims=True)
    return scaled


def _sample(path: str | Path, compressor: OnnxCompressor) -> Floats:
    """Embeddings of sample queries."""
    found = open_vectors(path, metric=metric_for(path, compressor.metric))
    check_kind(found, compressor)
    sample: Floats = found.read(MOST_QUERIES, columns=()).vectors
    return sample


def _extractor(compressed: Vectors) -> dict[str, Any]:
    """What made the embeddings: the model and its settings, to embed questions alike."""
    manifest = compressed.manifest
    if manifest is None or manifest.model is None:
        return {}
    source = manifest.config.get("source")
    return {
        **(source if isinstance(source, dict) else {}),
        "model": manifest.model,
        "revision": manifest.revision,
        "pooling": manifest.pooling,
    }
