"""Build an index folder: codes added as they are, ids and metadata, a rerank tier."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from embedpress.errors import FormatError, InputError, MismatchError, UsageError
from embedpress.index.centroids import (
    faiss_metric,
    latents_of,
    set_centroids,
    stages_of,
)
from embedpress.index.factory import Layout, parse_factory
from embedpress.index.rerank import FORMS, SCALES, VECTORS, write_rerank
from embedpress.onnx.compress import check_kind, metric_for
from embedpress.onnx.runtime import OnnxCompressor
from embedpress.threads import faiss_threads
from embedpress.vectors import (
    Vectors,
    atomic_path,
    open_vectors,
    parse_size,
    rows_within,
    sha256_of,
    write_atomic,
)
from embedpress.vectors.files import remove, storage_errors

Floats = NDArray[np.float32]
FORMAT_VERSION = 1
INDEX, IDS, MANIFEST = "index.faiss", "ids.parquet", "manifest.json"


@dataclass(frozen=True)
class IndexManifest:
    """What an index folder says of itself (manifest.json)."""

    kind: str
    format_version: int
    what: str
    compressor: str
    metric: str
    dim: int
    count: int
    factory: str
    nprobe: int
    rerank: str
    rerank_dim: int
    bytes_per_vector: float
    extractor: dict[str, Any]
    sha256: dict[str, str]


def build_index(
    source: str | Path,
    model: str | Path,
    out: str | Path,
    *,
    factory: str = "auto",
    rerank: str = "none",
    vectors: str | Path | None = None,
    memory_budget: str | int = "2G",
    seed: int = 0,
    num_threads: int | None = None,
    progress: Callable[[int], None] | None = None,
) -> IndexManifest:
    """Build a FAISS index of compressed vectors.

    Codes are scanned by an ordinary product quantizer (``IndexPQ``, or ``IndexIVFPQ`` without
    residuals) whose centroids are the learnt codebooks; latents by ``IndexFlat`` or
    ``IndexIVFFlat``. Plain ``faiss.read_index`` opens the file.

    Parameters
    ----------
    source : str or Path
        A folder of codes or latents, of :func:`embedpress.compress`.
    model : str or Path
        The compressor that made them.
    out : str or Path
        The folder to write; an index that is there is replaced file by file.
    factory : str
        "auto", "Flat" or "IVF<n>".
    rerank : {"none", "int8", "float16", "float32"}
        Form of the embeddings kept on disk to reorder the first hits.
    vectors : str or Path, optional
        The embeddings for the rerank tier, the same rows in the same order.
    memory_budget : str or int
        Bytes that blocks in flight may take, such as "2G"; the index itself comes on top.
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
    budget = parse_size(memory_budget)
    compressor = OnnxCompressor(model, num_threads=num_threads)
    compressed = open_vectors(source)
    _check_origin(compressed, compressor)
    embeddings = None
    if rerank != "none" and vectors is not None:
        embeddings = _rerank_vectors(vectors, compressed, compressor)
    layout = parse_factory(factory, compressed.count)
    books = compressor.codebooks() if compressed.kind == "codes" else None
    block = rows_within(budget // 4, 4 * max(compressor.dim, compressed.dim) * 2, at_most=65_536)
    folder = Path(out)
    _check_free(folder)
    with storage_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
    # The manifest goes first and comes last: a folder without one is not an index.
    for name in (MANIFEST, VECTORS, SCALES):
        remove(folder / name)
    with faiss_threads(compressor.num_threads):
        index = _empty_index(compressed, compressor, layout, books, seed)
        with atomic_path(folder / IDS) as ids_path:
            _fill(index, compressed, compressor, books, ids_path, block, progress)
    _write_index(index, folder / INDEX)
    files = [INDEX, IDS]
    if embeddings is not None:
        blocks = _rerank_blocks(embeddings, compressed, block)
        files += write_rerank(folder, rerank, embeddings.count, embeddings.dim, blocks)
    per_vector = (folder / INDEX).stat().st_size / compressed.count
    manifest = IndexManifest(
        kind="index",
        format_version=FORMAT_VERSION,
        what=compressed.kind,
        compressor=compressor.fingerprint,
        metric=compressor.metric,
        dim=index.d,
        count=compressed.count,
        factory=layout.name,
        nprobe=layout.nprobe,
        rerank=rerank,
        rerank_dim=compressor.dim if rerank != "none" else 0,
        bytes_per_vector=round(per_vector, 3),
        extractor=_extractor(compressed),
        sha256={name: sha256_of(folder / name) for name in files},
    )
    write_atomic(folder / MANIFEST, json.dumps(asdict(manifest), indent=1, sort_keys=True) + "\n")
    return manifest


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


def _check_origin(compressed: Vectors, compressor: OnnxCompressor) -> None:
    if compressed.kind not in ("codes", "latents") or compressed.manifest is None:
        raise InputError(f"{compressed.path} holds {compressed.kind}: compress them first")
    made_by = compressed.manifest.config.get("compressor")
    if made_by != compressor.fingerprint:
        raise MismatchError(
            f"{compressed.path} was compressed by another compressor (fingerprint {made_by}) "
            f"than {compressor.path} ({compressor.fingerprint}): compress again or use that one"
        )
    codes = compressed.kind == "codes"
    size = compressor.code_size if codes else compressor.n_components
    if compressed.dim != size:
        raise FormatError(
            f"{compressed.path} has {compressed.dim} values a row, its compressor gives {size}"
        )


def _check_free(folder: Path) -> None:
    """Refuse to write an index over anything but an index."""
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"{folder} is a file: give a folder to write to")
    others = ("config.json", "journal.jsonl")
    held = {name for name in (INDEX, IDS, MANIFEST, *others) if (folder / name).exists()}
    if held.intersection(others) or held == {MANIFEST}:
        raise UsageError(f"{folder} holds vectors or a compressor: give a folder of its own")


def _empty_index(
    compressed: Vectors,
    compressor: OnnxCompressor,
    layout: Layout,
    books: Floats | None,
    seed: int,
) -> Any:
    metric = faiss_metric(compressor.metric)
    inverted: Any
    if books is None:
        flat = faiss.IndexFlat(compressed.dim, metric)
        if not layout.n_lists:
            return flat
        lists = _coarse(compressed, layout, metric, seed, latents=lambda x: x, repeat=1)
        inverted = faiss.IndexIVFFlat(lists, compressed.dim, layout.n_lists, metric)
    else:
        stages = stages_of(compressor)
        code_size, _, width = books.shape
        if not layout.n_lists:
            scan = faiss.IndexPQ(code_size * width, code_size, 8, metric)
            set_centroids(scan.pq, books)
            scan.is_trained = True
            return scan
        lists = _coarse(
            compressed,
            layout,
            metric,
            seed,
            latents=lambda codes: latents_of(codes, books, stages),
            repeat=stages,
        )
        inverted = faiss.IndexIVFPQ(lists, code_size * width, layout.n_lists, code_size, 8, metric)
        inverted.by_residual = False
        set_centroids(inverted.pq, books)
    # FAISS frees the coarse quantizer with the index only when told that it is its own.
    lists.this.disown()
    inverted.own_fields = True
    inverted.is_trained = True
    inverted.nprobe = layout.nprobe
    return inverted


def _coarse(
    compressed: Vectors,
    layout: Layout,
    metric: int,
    seed: int,
    *,
    latents: Callable[[NDArray[Any]], Floats],
    repeat: int,
) -> Any:
    """The coarse quantizer: k-means centres of a sample's latents."""
    limit = min(compressed.count, max(256 * layout.n_lists, layout.n_lists))
    sample = latents(compressed.read(min(limit, 262_144), seed=seed, columns=()).vectors)
    kmeans = faiss.Kmeans(
        sample.shape[1],
        layout.n_lists,
        niter=10,
        seed=seed,
        spherical=metric == faiss.METRIC_INNER_PRODUCT,
        min_points_per_centroid=1,
    )
    kmeans.train(sample)
    # A query is laid out once a stage; so are the centres it is compared with.
    centres = np.tile(np.asarray(kmeans.centroids, np.float32), (1, repeat))
    lists = faiss.IndexFlat(centres.shape[1], metric)
    lists.add(np.ascontiguousarray(centres))
    return lists


def _fill(
    index: Any,
    compressed: Vectors,
    compressor: OnnxCompressor,
    books: Floats | None,
    ids_path: Path,
    block: int,
    progress: Callable[[int], None] | None,
) -> None:
    writer: pq.ParquetWriter | None = None
    low = 0
    try:
        for batch in compressed.iter_batches(block):
            _add(index, batch.vectors, low, books, stages_of(compressor))
            table = pa.table({"id": batch.ids})
            for name in batch.metadata.column_names:
                table = table.append_column(name, batch.metadata[name])
            if writer is None:
                writer = pq.ParquetWriter(ids_path, table.schema, compression="zstd")
            writer.write_table(table)
            low += len(batch.ids)
            if progress is not None:
                progress(len(batch.ids))
    finally:
        if writer is not None:
            writer.close()


def _add(index: Any, values: NDArray[Any], low: int, books: Floats | None, stages: int) -> None:
    if books is None:
        index.add(values)
    elif isinstance(index, faiss.IndexPQ):
        index.add_sa_codes(values)
    else:
        z = latents_of(values, books, stages)
        lists = index.quantizer.search(np.tile(z, (1, stages)), 1)[1][:, 0]
        rows = np.arange(low, low + len(values), dtype=np.int64)
        order = np.argsort(lists, kind="stable")
        starts = np.searchsorted(lists[order], np.arange(index.nlist + 1))
        for number in range(index.nlist):
            part = order[starts[number] : starts[number + 1]]
            if len(part):
                ids, codes = rows[part], np.ascontiguousarray(values[part])
                index.invlists.add_entries(
                    number, len(part), faiss.swig_ptr(ids), faiss.swig_ptr(codes)
                )
        index.ntotal += len(values)


def _rerank_vectors(path: str | Path, compressed: Vectors, compressor: OnnxCompressor) -> Vectors:
    embeddings = open_vectors(path, metric=metric_for(path, compressor))
    check_kind(embeddings, compressor)
    if embeddings.count != compressed.count:
        raise MismatchError(
            f"{embeddings.path} has {embeddings.count} rows, {compressed.path} has "
            f"{compressed.count}: the rerank tier takes the same rows in the same order"
        )
    return embeddings


def _rerank_blocks(embeddings: Vectors, compressed: Vectors, rows: int) -> Iterator[Floats]:
    pairs = zip(
        embeddings.iter_batches(rows, columns=()),
        compressed.iter_batches(rows, columns=()),
        strict=True,
    )
    for ours, theirs in pairs:
        if not ours.ids.equals(theirs.ids):
            raise MismatchError(
                f"{embeddings.path} has other ids than {compressed.path}, or another order"
            )
        if compressed.metric == "cosine":
            # Their lengths do not count, and float16 holds those around 1 best.
            yield ours.vectors / np.linalg.norm(ours.vectors, axis=1, keepdims=True)
        else:
            yield ours.vectors


def _write_index(index: Any, path: Path) -> None:
    with atomic_path(path) as temporary:
        try:
            faiss.write_index(index, str(temporary))
        except RuntimeError as error:
            raise OSError(str(error).splitlines()[0]) from error
