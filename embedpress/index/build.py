"""Build an index folder: codes laid out as they are, ids and metadata, a rerank tier."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import faiss
import numpy as np
from numpy.typing import NDArray

from embedpress.errors import MismatchError, UsageError
from embedpress.index.coarse import coarse_quantizer
from embedpress.index.faiss_file import rewrite_head, write_flat, write_inverted
from embedpress.index.folder import Change, changing, check_free
from embedpress.index.layout import Layout, parse_factory, query_ms, size_of
from embedpress.index.lists import PartWriter, total_sizes
from embedpress.index.manifest import Frame, IndexManifest
from embedpress.index.rerank import FORMS, RerankWriter
from embedpress.index.scan import Scan, check_origin
from embedpress.index.table import TableWriter, as_table
from embedpress.index.tune import (
    AGREEMENT,
    DEPTH,
    MOST_QUERIES,
    exhaustive_hits,
    n_queries,
    tune_nprobe,
)
from embedpress.onnx.compress import check_kind
from embedpress.onnx.compressor import OnnxCompressor
from embedpress.threads import faiss_threads
from embedpress.vectors import (
    Batch,
    Vectors,
    atomic_path,
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
    it is until the new one is whole.

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
        of an exhaustive scan.
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
        If another compressor made the codes, or the rerank vectors are of other rows.
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
    build = _Build(
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
        own, asked = self._own_rows(), self.queries
        nprobe, choice = 0, {"why": self.layout.why} if self.layout.why else {}
        picked: list[NDArray[Any]] = []
        rows = self._rows(change, own, picked)
        with closing(rows) as blocks, atomic_path(change.path("index")) as path:
            if not self.layout.n_lists:
                frame = write_flat(path, self.scan.flat(), self.compressed.count, blocks)
            else:
                index = self._inverted()
                frame, sizes = self._write_lists(change, path, index, blocks)
                if asked is None:
                    asked = self.scan.restored_queries(np.concatenate(picked))
                else:
                    own = np.full(len(asked), -1)
                nprobe, choice = self._tuned(path, asked, own, choice)
                index.nprobe = nprobe
                frame = rewrite_head(path, frame, index, sizes)
        if self.embeddings is not None:
            write_tier(
                change, self.rerank, self._embedding_blocks(self.embeddings), self.embeddings
            )
        return change.commit(
            rows=self.compressed.count,
            deleted=0,
            frame=frame,
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

    def _rows(
        self, change: Change, own: Ints, picked: list[NDArray[Any]]
    ) -> Generator[NDArray[np.uint8], None, None]:
        """The stored form of all rows; ids and metadata are written on the way."""
        low = 0
        with atomic_path(change.path("ids")) as path, TableWriter(path) as table:
            for batch in self.compressed.iter_batches(self._block):
                table.write(as_table(batch))
                places = own[slice(*np.searchsorted(own, [low, low + len(batch.ids)]))]
                picked.append(batch.vectors[places - low])
                yield self.scan.stored(batch.vectors)
                low += len(batch.ids)
                self.progress(len(batch.ids))

    def _inverted(self) -> Any:
        most = self.budget // 4 // (8 * self.scan.latent_dim)
        n_lists = self.layout.n_lists
        wanted = max(n_lists, _SMALL_SAMPLE, min(_SAMPLE_PER_LIST * n_lists, _SAMPLE, most))
        sample = self.compressed.read(
            min(wanted, self.compressed.count), seed=self.seed, columns=()
        ).vectors
        quantizer = coarse_quantizer(
            self.scan.latents(sample),
            self.layout,
            self.scan.metric,
            repeat=self.scan.stages,
            seed=self.seed,
        )
        return self.scan.inverted(quantizer, n_lists)

    def _write_lists(
        self, change: Change, path: Path, index: Any, blocks: Iterator[NDArray[np.uint8]]
    ) -> tuple[Frame, Ints]:
        with change.parts() as folder:
            writer = PartWriter(index.nlist, self.budget // 4, folder)
            low = 0
            for block in blocks:
                rows = np.arange(low, low + len(block))
                writer.add(self.scan.assign(index, block), block, rows)
                low += len(block)
            parts = writer.finish()
            return write_inverted(path, index, parts, self.budget // 8), total_sizes(parts)

    def _tuned(
        self, path: Path, asked: Floats, own: Ints, choice: dict[str, Any]
    ) -> tuple[int, dict[str, Any]]:
        if self.nprobe is not None:
            return min(self.nprobe, self.layout.n_lists), choice
        blocks = (
            self.scan.stored(batch.vectors)
            for batch in self.compressed.iter_batches(self._block, columns=())
        )
        truth = exhaustive_hits(self.scan.flat(), blocks, asked, own, DEPTH)
        index = faiss.read_index(str(path), faiss.IO_FLAG_MMAP)
        nprobe, share = tune_nprobe(index, asked, own, truth)
        figures = {"queries": len(asked), "depth": DEPTH, "target": AGREEMENT}
        return nprobe, {**choice, **figures, "agreement": round(share, 4)}

    def _estimates(self, nprobe: int) -> dict[str, Any]:
        size = self.scan.code_size
        count, dim = self.compressed.count, self.scan.dim
        total = size_of(self.layout, count, size, dim)
        return {
            "estimated_bytes": total,
            "estimated_query_ms": round(query_ms(self.layout, count, size, dim, nprobe), 3),
            "memory_map": total > self.budget,
        }

    def _embedding_blocks(self, embeddings: Vectors) -> Iterator[Floats]:
        pairs = zip(
            embeddings.iter_batches(self._block, columns=()),
            self.compressed.iter_batches(self._block, columns=()),
            strict=True,
        )
        for ours, theirs in pairs:
            same_ids(ours, theirs, embeddings, self.compressed)
            yield tier_vectors(ours.vectors, self.compressed.metric)


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


def write_tier(change: Change, form: str, blocks: Iterator[Floats], embeddings: Vectors) -> None:
    """Write a rerank tier of embeddings."""
    rows, dim = embeddings.count, embeddings.dim
    with (
        atomic_path(change.path("rerank")) as path,
        atomic_path(change.path("rerank_scales")) as scales,
        RerankWriter(path, scales, form, rows, dim) as tier,
    ):
        for block in blocks:
            tier.write(block)


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
