"""Open an index folder and search it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property, lru_cache, partial
from pathlib import Path
from typing import Any, NamedTuple

import faiss
import numpy as np
import pyarrow as pa
from numpy.typing import ArrayLike, NDArray

from embedpress.errors import FormatError, StorageError, UsageError
from embedpress.index.candidates import OVERSAMPLE, reranked_scores
from embedpress.index.coarse import visiting
from embedpress.index.faiss_door import read_index
from embedpress.index.faiss_file import check_frame
from embedpress.index.filter import filter_rows
from embedpress.index.hits import Hits, RangeHits, best_first, padded
from embedpress.index.manifest import IndexManifest, read_index_manifest
from embedpress.index.rerank import RerankTier
from embedpress.index.scan import faiss_metric, query_form
from embedpress.index.selection import Selection, read_deleted
from embedpress.index.table import read_table, values_of
from embedpress.onnx.compressor import OnnxCompressor
from embedpress.threads import check_threads, faiss_threads
from embedpress.vectors import check_vectors, sha256_of
from embedpress.vectors.files import check_own

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]
Codes = NDArray[np.uint8]

LARGEST_K = 10_000
_OVERSAMPLE = 10
"""Hits for one that is wanted which a rerank tier looks at."""
_FILTERS = 32
"""Filters whose rows are remembered, a bit a row each."""
_RANGE_BYTES = 256 << 20
_ATTEMPTS = 5


class _Reranker(NamedTuple):
    """Scores (n_queries, n) of embeddings' candidate rows and their scores in the scan, by default
    of so many times `k`."""

    scores: Callable[[Floats, Ints, Floats], Floats]
    oversample: int


class SearchIndex:
    """An index folder, opened with the compressor that belongs to it.

    What is opened stays what it is, whatever becomes of the folder.

    Parameters
    ----------
    path : str or Path
        An index folder.
    compressor : OnnxCompressor, str or Path
        The compressor whose codes are in it.
    memory_map : bool, optional
        Read the vectors from disk as they are needed. By default, where the index was larger than
        its memory budget.
    verify : bool
        Compare the vectors with their checksum. False is for opening a memory-mapped index in
        an instant: then only what FAISS parses is compared, and damaged vectors are found wrongly
        or not at all, but do no other harm. A folder of format version 1 is always compared.
    num_threads : int, optional
        Threads of a search.

    Attributes
    ----------
    live : ndarray of shape (rows,), bool, or None
        Which rows are not deleted; None where none is.

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
        memory_map: bool | None = None,
        verify: bool | None = None,
        num_threads: int | None = None,
    ) -> None:
        self.path = Path(path)
        manifest = read_index_manifest(self.path)
        if not isinstance(compressor, OnnxCompressor):
            compressor = OnnxCompressor(compressor, num_threads=num_threads)
        self.compressor = compressor
        self.num_threads = compressor.num_threads if num_threads is None else num_threads
        check_threads(self.num_threads)
        for attempt in range(_ATTEMPTS):
            try:
                self._open(manifest, memory_map, verify)
                break
            except (FormatError, StorageError):
                # The index may have changed meanwhile, and its old files be gone.
                before, manifest = manifest, read_index_manifest(self.path)
                if manifest == before or attempt == _ATTEMPTS - 1:
                    raise

    def _open(self, manifest: IndexManifest, memory_map: bool | None, verify: bool | None) -> None:
        manifest.check_compressor(self.path, self.compressor.path, self.compressor.fingerprint)
        mapped = manifest.choice.get("memory_map") is True if memory_map is None else memory_map
        verify = not mapped if verify is None else verify
        files = {role: self.path / name for role, name in manifest.files.items()}
        # FAISS can crash on a damaged file, or ask for absurd amounts of memory.
        whole = [role for role in ("ids", "deleted") if role in files]
        _check_sums(self.path, manifest, [*whole, "index"] if verify else whole)
        if not verify:
            self._check_frame(files["index"], manifest)
        self.manifest = manifest
        self.faiss = _read_faiss(files["index"], manifest, mapped)
        self.table = read_table(files["ids"], manifest.rows)
        self.live: NDArray[np.bool_] | None = None
        if manifest.deleted:
            self.live = ~read_deleted(files["deleted"], manifest.rows, manifest.deleted)
        # Bound to the table rather than to this object, which then goes when nobody holds it.
        self._select = lru_cache(_FILTERS)(partial(_selection, self.table, self.live))
        self.rerank_tier: RerankTier | None = None
        if manifest.rerank != "none":
            if manifest.rerank_dim != self.compressor.dim:
                raise FormatError(
                    f"{self.path}: its rerank tier has {manifest.rerank_dim} dimensions, its"
                    f" compressor's embeddings {self.compressor.dim}: build it again"
                )
            self.rerank_tier = RerankTier(
                files["rerank"],
                files["rerank_scales"],
                manifest.rerank,
                manifest.rows,
                manifest.rerank_dim,
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
        oversample: int | None = None,
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
            Inverted lists to visit. By default what the index was built with, and more for
            queries that found fewer than `k` rows in them.
        oversample : int, optional
            The first ``oversample * k`` hits are reordered: by the rerank tier, by default ten
            times as many, without one by the compressor's reranker, by default five times.
        rerank : bool, optional
            By default, whether there is one of these. Without, a search is as fast as FAISS's.

        Returns
        -------
        Hits
        """
        if not 1 <= k <= LARGEST_K:
            raise UsageError(f"k={k} must lie between 1 and {LARGEST_K}")
        if oversample is not None and oversample < 1:
            raise UsageError(f"oversample={oversample} must be at least 1")
        reranker = self._reranker(rerank)
        embeddings, asked = self._asked(queries, nprobe)
        selection = self._select(filter)
        factor = 1 if reranker is None else oversample or reranker.oversample
        wanted = min(self.manifest.rows, k * factor)
        if wanted == 0 or (selection is not None and selection.count == 0):
            rows = np.empty((len(asked), 0), np.int64)
            return padded(rows, rows.astype(np.float32), k, self.manifest.metric)
        with faiss_threads(self.num_threads):
            scores, rows = self._scan(asked, wanted, selection, nprobe)
        if reranker is not None:
            scores = reranker.scores(embeddings, rows, scores)
            order = best_first(scores, self.manifest.metric)
            rows, scores = np.take_along_axis(rows, order, 1), np.take_along_axis(scores, order, 1)
        return padded(rows, scores, k, self.manifest.metric)

    def range_search(
        self,
        queries: ArrayLike,
        radius: float,
        *,
        filter: str | None = None,
        nprobe: int | None = None,
        limit: int = LARGEST_K,
        rerank: bool | None = None,
    ) -> RangeHits:
        """All vectors within a radius of query embeddings.

        Parameters
        ----------
        queries : array-like of shape (n_queries, d)
        radius : float
            Rows with a larger score are found, under "l2" those with a smaller squared distance.
        filter, nprobe
            As for :meth:`search`; what lies in lists that are not visited is not found.
        limit : int
            Hits a query at the most, the best ones.
        rerank : bool, optional
            Whether the rerank tier gives the scores that are compared with `radius`; the scan of
            the codes must have found them, too. By default, whether there is a rerank tier.

        Returns
        -------
        RangeHits
        """
        if not np.isfinite(radius):
            raise UsageError(f"radius={radius} must be a finite number")
        if limit < 1:
            raise UsageError(f"limit={limit} must be at least 1")
        if rerank and self.rerank_tier is None:
            raise UsageError(f"the index at {self.path} has no rerank tier: build it with one")
        tier = None if rerank is False else self.rerank_tier
        embeddings, asked = self._asked(queries, nprobe)
        selection = self._select(filter)
        sizes, rows, scores = [0], [np.empty(0, np.int64)], [np.empty(0, np.float32)]
        step = max(1, _RANGE_BYTES // (12 * max(self.manifest.rows, 1)))
        for low in range(0, len(asked), step):
            with faiss_threads(self.num_threads):
                found = self._scan_range(asked[low : low + step], radius, selection, nprobe)
            for offset, (near, value) in enumerate(found.lines()):
                self._check_rows(near)
                if tier is not None and len(near):
                    query = embeddings[low + offset : low + offset + 1]
                    value = tier.scores(query, near[None], self.manifest.metric)[0]
                    inside = value < radius if self.manifest.metric == "l2" else value > radius
                    near, value = near[inside], value[inside]
                order = best_first(value, self.manifest.metric)[:limit]
                sizes.append(len(order))
                rows.append(near[order])
                scores.append(value[order])
        return RangeHits(np.cumsum(sizes), np.concatenate(rows), np.concatenate(scores))

    def ids(self, rows: Ints) -> list[list[int | str | None]]:
        """Ids of index rows (n_queries, k), None for -1."""
        places = pa.array(rows.ravel(), mask=rows.ravel() < 0)
        flat = values_of(self.table["id"].take(places), self.path)
        width = rows.shape[1]
        return [flat[low : low + width] for low in range(0, len(flat), width)]

    def records(self, hits: Hits | RangeHits) -> list[list[dict[str, Any]]]:
        """The hits of each query as dictionaries: id, score and metadata."""
        found = []
        for rows, scores in hits.lines():
            taken = values_of(self.table.take(pa.array(rows)), self.path)
            # The search's own score stands over metadata of that name.
            found.append(
                [
                    {"id": record["id"], "score": 0.0} | record | {"score": float(score)}
                    for record, score in zip(taken, scores, strict=True)
                ]
            )
        return found

    @property
    def reranks(self) -> bool:
        """Whether the compressor's reranker can reorder what is found here."""
        return self.manifest.what == "codes" and self.compressor.reranks

    def _reranker(self, rerank: bool | None) -> _Reranker | None:
        """What looks at the first hits again: the tier, without one the compressor's reranker."""
        if rerank is False:
            return None
        if self.rerank_tier is not None:
            tier, metric = self.rerank_tier, self.manifest.metric
            return _Reranker(lambda x, rows, _: tier.scores(x, rows, metric), _OVERSAMPLE)
        if self.reranks:
            by_codes = partial(reranked_scores, self.compressor, codes_of=self._codes)
            return _Reranker(by_codes, OVERSAMPLE)
        if rerank:
            raise UsageError(
                f"nothing reranks the index at {self.path}: build it with a rerank tier, or fit "
                "a compressor with a reranker"
            )
        return None

    def _asked(self, queries: ArrayLike, nprobe: int | None) -> tuple[Floats, Floats]:
        """Query embeddings, checked, and as the scan takes them."""
        if nprobe is not None and nprobe < 1:
            raise UsageError(f"nprobe={nprobe} must be at least 1")
        x = check_vectors(queries, dim=self.compressor.dim, metric=self.compressor.metric)
        mapped = query_form(self.compressor, self.manifest.what, x)
        if self.manifest.what == "latents":
            mapped = np.ascontiguousarray(mapped[:, : self.manifest.dim])
        if mapped.shape[1] != self.faiss.d:
            raise FormatError(
                f"{self.path} has {self.faiss.d} dimensions, its compressor asks with "
                f"{mapped.shape[1]}"
            )
        return x, mapped

    @cached_property
    def _selectable(self) -> Any:
        """An index that takes a selector: FAISS's IndexPQ takes none, an inverted file does.

        The codes of an IndexPQ are put in a file of one list, once, at code_size + 8 bytes a row.
        """
        if not isinstance(self.faiss, faiss.IndexPQ):
            return self.faiss
        flat = self.faiss
        one: Any = faiss.IndexFlat(flat.d, flat.metric_type)
        one.add(np.zeros((1, flat.d), np.float32))
        index: Any = faiss.IndexIVFPQ(one, flat.d, 1, flat.pq.M, flat.pq.nbits, flat.metric_type)
        one.this.disown()
        index.own_fields = True
        index.by_residual = False
        index.pq.centroids = flat.pq.centroids
        index.is_trained = True
        rows = np.arange(flat.ntotal)
        index.invlists.add_entries(0, flat.ntotal, faiss.swig_ptr(rows), flat.codes.data())
        index.ntotal = flat.ntotal
        return index

    def _scan(
        self, queries: Floats, k: int, selection: Selection | None, nprobe: int | None
    ) -> tuple[Floats, Ints]:
        index = self.faiss if selection is None else self._selectable
        if not isinstance(index, faiss.IndexIVF):
            scores, rows = index.search(queries, k, params=_parameters(index, selection, 1))
            return scores, self._check_rows(rows)
        visited = nprobe or self.faiss_nprobe
        scores, rows = index.search(queries, k, params=_parameters(index, selection, visited))
        reachable = min(k, self.manifest.count if selection is None else selection.count)
        while nprobe is None and visited < index.nlist:
            few = np.flatnonzero(rows[:, reachable - 1] < 0)
            if not len(few):
                break
            visited = min(4 * visited, index.nlist)
            parameters = _parameters(index, selection, visited)
            scores[few], rows[few] = index.search(queries[few], k, params=parameters)
        return scores, self._check_rows(rows)

    def _codes(self, rows: Ints) -> Codes:
        """Codes (n, code_size) of rows (n,)."""
        if isinstance(self.faiss, faiss.IndexPQ):
            return self._flat_codes[rows]
        lists, size = self.faiss.invlists, self.faiss.code_size
        places = self._places[rows]
        numbers = places >> 32
        codes = np.empty((len(rows), size), np.uint8)
        order = np.argsort(numbers, kind="stable")
        for part in np.split(order, np.flatnonzero(np.diff(numbers[order])) + 1):
            number = int(numbers[part[0]])
            held: Any = faiss.rev_swig_ptr(lists.get_codes(number), lists.list_size(number) * size)
            codes[part] = held.reshape(-1, size)[places[part] & 0xFFFFFFFF]
        return codes

    @cached_property
    def _flat_codes(self) -> Codes:
        """The codes (rows, code_size) of an IndexPQ where they lie."""
        codes = self.faiss.codes
        view: Any = faiss.rev_swig_ptr(codes.data(), codes.size())
        return np.asarray(view, np.uint8).reshape(self.faiss.ntotal, -1)

    @cached_property
    def _places(self) -> Ints:
        """Of every row of an inverted file the list, and behind 32 bits its place in there."""
        lists = self.faiss.invlists
        places = np.full(self.manifest.rows, -1, np.int64)
        for number in range(self.faiss.nlist):
            size = lists.list_size(number)
            if size:
                rows: Any = faiss.rev_swig_ptr(lists.get_ids(number), size)
                places[self._check_rows(rows)] = (number << 32) + np.arange(size)
        if len(places) and places.min() < 0:
            raise FormatError(f"{self.path} lacks rows that its manifest names: build it again")
        return places

    @property
    def faiss_nprobe(self) -> int:
        """Lists that a search visits by default; 1 where there are none."""
        return max(1, self.manifest.nprobe)

    def _scan_range(
        self, queries: Floats, radius: float, selection: Selection | None, nprobe: int | None
    ) -> RangeHits:
        if self.manifest.count == 0:
            empty = np.empty(0, np.int64)
            return RangeHits(np.zeros(len(queries) + 1, np.int64), empty, empty.astype(np.float32))
        index = self._selectable
        parameters = _parameters(index, selection, nprobe or self.faiss_nprobe)
        lims, scores, rows = index.range_search(queries, radius, params=parameters)
        return RangeHits(lims.astype(np.int64), rows, scores)

    def _check_rows(self, rows: Ints) -> Ints:
        if rows.size and not -1 <= int(rows.min()) <= int(rows.max()) < self.manifest.rows:
            raise FormatError(f"{self.path} names rows that are not there: build it again")
        return rows

    @staticmethod
    def _check_frame(path: Path, manifest: IndexManifest) -> None:
        if not path.is_file():
            raise FormatError(f"{path.parent} is not a whole index: it has no {path.name}")
        check_own(path)
        if manifest.frame is None:
            _check_sums(path.parent, manifest, ["index"])
        else:
            check_frame(path, manifest.frame)


def open_index(
    path: str | Path,
    compressor: OnnxCompressor | str | Path,
    *,
    memory_map: bool | None = None,
    verify: bool | None = None,
    num_threads: int | None = None,
) -> SearchIndex:
    """Open an index folder with its compressor; see :class:`SearchIndex`."""
    return SearchIndex(
        path, compressor, memory_map=memory_map, verify=verify, num_threads=num_threads
    )


def _selection(
    table: pa.Table, live: NDArray[np.bool_] | None, expression: str | None
) -> Selection | None:
    """The rows that an expression keeps and that are not deleted; None for all."""
    if expression is None:
        return None if live is None else Selection(live)
    kept = filter_rows(table, expression)
    return Selection(kept if live is None else kept & live)


def _parameters(index: Any, selection: Selection | None, nprobe: int) -> Any:
    selector = None if selection is None else selection.selector
    if isinstance(index, faiss.IndexIVF):
        return visiting(index, nprobe, selector)
    kind: Any = faiss.SearchParameters
    return None if selector is None else kind(sel=selector)


def _check_sums(folder: Path, manifest: IndexManifest, roles: Sequence[str]) -> None:
    for role in roles:
        name = manifest.files[role]
        if not (folder / name).is_file():
            raise FormatError(f"{folder} is not a whole index: it has no {name}")
        check_own(folder / name)
        if manifest.sha256.get(name) != sha256_of(folder / name):
            raise FormatError(f"{folder / name} was changed since it was built: build it again")


def _read_faiss(path: Path, manifest: IndexManifest, mapped: bool) -> Any:
    flags = 0
    if mapped:
        # Codes of an exhaustive index can be mapped since FAISS 1.11; before, they are read.
        flat = not manifest.nprobe
        flags = getattr(faiss, "IO_FLAG_MMAP_IFC", 0) if flat else faiss.IO_FLAG_MMAP
    index = read_index(path, flags)
    if not isinstance(index, faiss.IndexPQ | faiss.IndexIVF | faiss.IndexFlat):
        raise FormatError(f"{path} is a {type(index).__name__}, which embedpress does not build")
    if (index.ntotal, index.d) != (manifest.rows, manifest.dim):
        raise FormatError(
            f"{path} holds {index.ntotal} vectors of {index.d} dimensions, its manifest says "
            f"{manifest.rows} of {manifest.dim}"
        )
    if index.metric_type != faiss_metric(manifest.metric):
        raise FormatError(f"{path} compares by another metric than its manifest says")
    return index
