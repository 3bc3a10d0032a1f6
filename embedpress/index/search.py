"""Open an index folder and search it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import ArrayLike, NDArray

from embedpress.errors import FormatError, InputError, MismatchError, UsageError
from embedpress.index.build import FORMAT_VERSION, IDS, INDEX, MANIFEST, IndexManifest
from embedpress.index.centroids import faiss_metric
from embedpress.index.filter import filter_rows
from embedpress.index.rerank import RerankTier
from embedpress.onnx.runtime import OnnxCompressor
from embedpress.threads import check_threads, faiss_threads
from embedpress.vectors import check_vectors, sha256_of
from embedpress.vectors.document import read_document

Floats = NDArray[np.float32]
LARGEST_K = 10_000


@dataclass(frozen=True)
class Hits:
    """What a search found, a line a query.

    Attributes
    ----------
    rows : ndarray of shape (n_queries, k), int64
        Rows of the index, best first; -1 where there were fewer than `k`.
    scores : ndarray of shape (n_queries, k), float32
        Larger is nearer, but for "l2": squared distances. Infinitely far where the row is -1.
    """

    rows: NDArray[np.int64]
    scores: Floats


class SearchIndex:
    """An index folder, opened with the compressor that belongs to it.

    Parameters
    ----------
    path : str or Path
        An index folder.
    compressor : OnnxCompressor, str or Path
        The compressor whose codes are in it.
    memory_map : bool
        Read the vectors from disk as they are needed, where FAISS can; the index file's
        checksum is then not compared first.
    num_threads : int, optional
        Threads of a search.

    Raises
    ------
    UsageError, FormatError
        No such folder, or one that is not a whole index.
    MismatchError
        The compressor is not the one that made the codes.
    """

    faiss: Any

    def __init__(
        self,
        path: str | Path,
        compressor: OnnxCompressor | str | Path,
        *,
        memory_map: bool = False,
        num_threads: int | None = None,
    ) -> None:
        self.path = Path(path)
        self.manifest = read_index_manifest(self.path)
        if not isinstance(compressor, OnnxCompressor):
            compressor = OnnxCompressor(compressor, num_threads=num_threads)
        if compressor.fingerprint != self.manifest.compressor:
            raise MismatchError(
                f"the index at {self.path} holds codes of another compressor (fingerprint "
                f"{self.manifest.compressor}) than {compressor.path} "
                f"({compressor.fingerprint}): search it with that one"
            )
        self.compressor = compressor
        self.num_threads = compressor.num_threads if num_threads is None else num_threads
        check_threads(self.num_threads)
        # FAISS can crash on a damaged file, or ask for absurd amounts of memory.
        _check_sums(self.path, self.manifest, (IDS,) if memory_map else (IDS, INDEX))
        self.faiss = _read_faiss(self.path / INDEX, self.manifest, memory_map)
        self.table = _read_table(self.path / IDS, self.manifest.count)
        self.rerank_tier: RerankTier | None = None
        if self.manifest.rerank != "none":
            self.rerank_tier = RerankTier(
                self.path, self.manifest.rerank, self.manifest.count, self.manifest.rerank_dim
            )

    def __len__(self) -> int:
        return self.manifest.count

    def search(
        self,
        queries: ArrayLike,
        k: int = 10,
        *,
        filter: str | None = None,
        nprobe: int | None = None,
        oversample: int = 10,
        rerank: bool | None = None,
    ) -> Hits:
        """Nearest vectors of query embeddings.

        Parameters
        ----------
        queries : array-like of shape (n_queries, d)
            Embeddings of the extractor's kind; the query encoder maps them.
        k : int
            Hits a query.
        filter : str, optional
            Keep only rows whose metadata fit; see :mod:`embedpress.index.filter`.
        nprobe : int, optional
            Inverted lists to visit, by default what the index was built with.
        oversample : int
            With a rerank tier, the first ``oversample * k`` hits are reordered by it.
        rerank : bool, optional
            By default, whether there is a rerank tier.

        Returns
        -------
        Hits
        """
        if not 1 <= k <= LARGEST_K:
            raise UsageError(f"k={k} must lie between 1 and {LARGEST_K}")
        if nprobe is not None and nprobe < 1:
            raise UsageError(f"nprobe={nprobe} must be at least 1")
        if oversample < 1:
            raise UsageError(f"oversample={oversample} must be at least 1")
        rerank = self.rerank_tier is not None if rerank is None else rerank
        if rerank and self.rerank_tier is None:
            raise UsageError(f"the index at {self.path} has no rerank tier: build it with one")
        x = check_vectors(queries, dim=self.compressor.dim, metric=self.compressor.metric)
        mapped = (
            self.compressor.encode_queries(x)
            if self.manifest.what == "codes"
            else self.compressor.transform_queries(x)
        )
        if mapped.shape[1] != self.faiss.d:
            raise FormatError(
                f"{self.path} has {self.faiss.d} dimensions, its compressor asks with "
                f"{mapped.shape[1]}"
            )
        kept = None if filter is None else filter_rows(self.table, filter)
        wanted = min(len(self), k * oversample if rerank else k)
        scores, rows = self._scan(mapped, wanted, kept, nprobe)
        if rerank:
            rows, scores = self._reorder(x, rows)
        return Hits(*_padded(rows, scores, k, self.manifest.metric))

    def ids(self, rows: NDArray[np.int64]) -> list[list[int | str | None]]:
        """Ids of index rows (n_queries, k), None for -1."""
        column = self.table["id"]
        return [[column[int(r)].as_py() if r >= 0 else None for r in line] for line in rows]

    def records(self, hits: Hits) -> list[list[dict[str, Any]]]:
        """The hits of each query as dictionaries: id, score and metadata."""
        found = []
        for line, scores in zip(hits.rows, hits.scores, strict=True):
            real = line >= 0
            taken = self.table.take(pa.array(line[real])).to_pylist()
            # The search's own score stands over metadata of that name.
            found.append(
                [
                    {"id": record["id"], "score": 0.0} | record | {"score": float(score)}
                    for record, score in zip(taken, scores[real], strict=True)
                ]
            )
        return found

    def _scan(
        self, queries: Floats, k: int, kept: NDArray[np.bool_] | None, nprobe: int | None
    ) -> tuple[Floats, NDArray[np.int64]]:
        with faiss_threads(self.num_threads):
            if isinstance(self.faiss, faiss.IndexIVF):
                options: dict[str, Any] = {"nprobe": nprobe or self.faiss.nprobe}
                if kept is not None:
                    bits: Any = np.packbits(kept, bitorder="little")
                    selector: Any = faiss.IDSelectorBitmap
                    options["sel"] = selector(bits)
                parameters: Any = faiss.SearchParametersIVF
                scores, rows = self.faiss.search(queries, k, params=parameters(**options))
            elif kept is None:
                scores, rows = self.faiss.search(queries, k)
            else:
                scores, rows = self._scan_kept(queries, k, np.flatnonzero(kept))
        return scores, rows

    def _scan_kept(
        self, queries: Floats, k: int, kept: NDArray[np.int64]
    ) -> tuple[Floats, NDArray[np.int64]]:
        """Scan only some rows: FAISS's IndexPQ takes no selector, so they are copied out."""
        if not len(kept):
            empty = np.full((len(queries), k), -1, np.int64)
            return np.zeros(empty.shape, np.float32), empty
        part = _empty_like(self.faiss)
        codes = faiss.vector_to_array(self.faiss.codes).reshape(len(self), -1)
        part.add_sa_codes(np.ascontiguousarray(codes[kept]))
        scores, rows = part.search(queries, min(k, len(kept)))
        return scores, np.where(rows >= 0, kept[rows], -1)

    def _reorder(
        self, queries: Floats, rows: NDArray[np.int64]
    ) -> tuple[NDArray[np.int64], Floats]:
        metric = self.manifest.metric
        if metric == "cosine":
            queries = queries / np.linalg.norm(queries, axis=1, keepdims=True)
        worst = np.float32(np.inf if metric == "l2" else -np.inf)
        scores = np.full(rows.shape, worst, np.float32)
        tier = self.rerank_tier
        for i, line in enumerate(rows):
            real = np.flatnonzero(line >= 0)
            if tier is not None and len(real):
                scores[i, real] = tier.rescore(queries[i], line[real], metric)
        order = np.argsort(scores if metric == "l2" else -scores, axis=1, kind="stable")
        return np.take_along_axis(rows, order, 1), np.take_along_axis(scores, order, 1)


def open_index(
    path: str | Path,
    compressor: OnnxCompressor | str | Path,
    *,
    memory_map: bool = False,
    num_threads: int | None = None,
) -> SearchIndex:
    """Open an index folder with its compressor; see :class:`SearchIndex`."""
    return SearchIndex(path, compressor, memory_map=memory_map, num_threads=num_threads)


def read_index_manifest(folder: Path) -> IndexManifest:
    """manifest.json of an index folder, checked.

    Raises
    ------
    UsageError
        No such folder.
    FormatError
        Not an index, or with fields that cannot be.
    """
    file = folder / MANIFEST
    data = read_document(folder, MANIFEST, kind="index", version=FORMAT_VERSION)
    if set(data) != set(IndexManifest.__dataclass_fields__):
        raise FormatError(f"{file} lacks or adds fields: build the index again")
    if not isinstance(data["extractor"], dict) or not isinstance(data["sha256"], dict):
        raise FormatError(f"{file}: extractor and sha256 must be objects")
    sizes = ("dim", "count", "nprobe", "rerank_dim")
    if any(type(data[name]) is not int or data[name] < 0 for name in sizes):
        raise FormatError(f"{file}: a size in it is not a whole number")
    known = {
        "what": ("codes", "latents"),
        "metric": ("cosine", "ip", "l2"),
        "rerank": ("none", "int8", "float16", "float32"),
    }
    for name, values in known.items():
        if data[name] not in values:
            raise FormatError(f"{file}: {name} is {data[name]!r}, not one of {', '.join(values)}")
    if type(data["bytes_per_vector"]) not in (int, float):
        raise FormatError(f"{file}: bytes_per_vector is not a number")
    texts = [data["compressor"], data["factory"], *data["sha256"].values()]
    if not all(isinstance(text, str) for text in texts):
        raise FormatError(f"{file}: a field in it is not text")
    return IndexManifest(**data)


def _check_sums(folder: Path, manifest: IndexManifest, names: Sequence[str]) -> None:
    for name in names:
        if not (folder / name).is_file():
            raise FormatError(f"{folder} is not a whole index: it has no {name}")
        if manifest.sha256.get(name) != sha256_of(folder / name):
            raise FormatError(f"{folder / name} was changed since it was built: build it again")


def _read_faiss(path: Path, manifest: IndexManifest, memory_map: bool) -> Any:
    try:
        index: Any = faiss.read_index(str(path), faiss.IO_FLAG_MMAP if memory_map else 0)
    except Exception as error:  # FAISS raises RuntimeError, and MemoryError on absurd sizes
        first = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise FormatError(f"{path} is not an index FAISS can read: {first}") from None
    if not isinstance(index, faiss.IndexPQ | faiss.IndexIVF | faiss.IndexFlat):
        raise FormatError(f"{path} is a {type(index).__name__}, which embedpress does not build")
    if (index.ntotal, index.d) != (manifest.count, manifest.dim):
        raise FormatError(
            f"{path} holds {index.ntotal} vectors of {index.d} dimensions, its manifest says "
            f"{manifest.count} of {manifest.dim}"
        )
    if index.metric_type != faiss_metric(manifest.metric):
        raise FormatError(f"{path} compares by another metric than its manifest says")
    return index


def _read_table(path: Path, count: int) -> pa.Table:
    try:
        table = pq.read_table(path)
    except Exception as error:  # what a parser raises is no closed list
        first = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise FormatError(f"{path} cannot be read: {first}") from None
    if table.num_rows != count or table.column_names[:1] != ["id"]:
        raise InputError(f"{path} has {table.num_rows} ids for {count} vectors: build it again")
    return table.combine_chunks()


def _empty_like(index: Any) -> Any:
    if isinstance(index, faiss.IndexPQ):
        part = faiss.IndexPQ(index.d, index.pq.M, index.pq.nbits, index.metric_type)
        part.pq.centroids = index.pq.centroids
        part.is_trained = True
        return part
    return faiss.IndexFlat(index.d, index.metric_type)


def _padded(
    rows: NDArray[np.int64], scores: Floats, k: int, metric: str
) -> tuple[NDArray[np.int64], Floats]:
    rows, scores = rows[:, :k], scores[:, :k]
    missing = max(0, k - rows.shape[1])
    rows = np.pad(rows, ((0, 0), (0, missing)), constant_values=-1)
    worst = np.float32(np.inf if metric == "l2" else -np.inf)
    scores = np.where(rows >= 0, np.pad(scores, ((0, 0), (0, missing))), worst)
    return rows, scores
