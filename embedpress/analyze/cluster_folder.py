"""Clusters of a dataset on disk, of any size, within a memory budget."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from embedpress.analyze.agreement import agreement_of
from embedpress.analyze.choice import CRITERION, choose
from embedpress.analyze.cluster import MIN_CLUSTER_SIZE, by_size, check_options
from embedpress.analyze.density import MOST_ROWS, NOISE, dense_groups, group_means
from embedpress.analyze.files import SHOWN, make_folder, open_floats, records
from embedpress.analyze.kmeans import nearest, refine, train_centroids
from embedpress.analyze.words import ClusterWords
from embedpress.errors import InputError, UsageError
from embedpress.evaluate.exact import Floats, Ids, unit_rows
from embedpress.threads import faiss_threads
from embedpress.vectors import (
    Batch,
    Vectors,
    atomic_path,
    parse_size,
    rows_within,
    write_atomic,
)

TYPICAL, TYPICAL_PHOTOS = 5, 10
SHEET_CLUSTERS = 12
COPIES = 3
"""Of the rows in memory: as read, scaled to length 1, and FAISS's own sample."""


def cluster_folder(
    source: str | Path,
    out: str | Path,
    *,
    n_clusters: int | None = None,
    method: str = "kmeans",
    min_cluster_size: int = MIN_CLUSTER_SIZE,
    labels: str | None = None,
    images: str | Path | None = None,
    memory_budget: str | int = "2G",
    seed: int = 0,
    num_threads: int | None = None,
) -> dict[str, Any]:
    """Cluster latents (or embeddings) and write labels.parquet, centroids.npy, clusters.json.

    Parameters
    ----------
    source : str or Path
        A folder or file of vectors, not codes.
    out : str or Path
        The folder to write.
    n_clusters, method, min_cluster_size, seed
        See :func:`embedpress.analyze.cluster.cluster`.
    labels : str, optional
        Metadata column of true labels, to report the agreement with; by default the column
        ``label`` where there is one.
    images : str or Path, optional
        The folder of the photos, to which the column ``path`` is relative: contact sheets of
        the typical ones are written as sheet-01.png and so on.
    memory_budget : str or int
        Memory for vectors. Of more than fit, a sample gives the first centroids, which
        mini-batches over all the others then move.
    num_threads : int, optional

    Returns
    -------
    dict
        ``n_clusters``, ``noise`` (rows in no cluster), ``clusters`` (of each the size, the
        words that name it, the most frequent true label, typical members) and, with true
        labels, ``agreement`` (NMI, ARI, purity).

    Raises
    ------
    UsageError
        Options that cannot be, or a column that is not there.
    InputError, FormatError
        Vectors that cannot be used.
    StorageError
        If the disk refuses.
    """
    vectors = open_floats(source)
    check_options(method, n_clusters, min_cluster_size, vectors.count)
    truth = _truth_column(vectors, labels)
    if images is not None and "path" not in vectors.metadata_columns:
        raise UsageError(f"{source} has no column 'path' of photos: leave --images out")
    row_bytes = 4 * vectors.dim * COPIES
    at_once = rows_within(parse_size(memory_budget), row_bytes, at_most=vectors.count)
    folder = make_folder(out)
    result: dict[str, Any] = {"labels": str(folder / "labels.parquet"), "count": vectors.count}
    with faiss_threads(num_threads):
        if method == "hdbscan":
            rows = min(at_once, MOST_ROWS)
            division = _by_density(vectors, rows, min_cluster_size, seed, num_threads)
        else:
            division, tried = _by_means(vectors, at_once, n_clusters, seed)
            if tried:
                result |= {"criterion": CRITERION, "silhouettes": tried}
        typical = TYPICAL if images is None else TYPICAL_PHOTOS
        tally = _Tally(division, vectors, typical, truth)
        with atomic_path(folder / "labels.parquet") as path:
            _write_labels(path, tally, min(at_once, 65_536))
    result |= tally.result()
    if images is not None:
        result["sheets"] = _sheets(folder, Path(images), result["clusters"])
    with atomic_path(folder / "centroids.npy") as path, path.open("xb") as file:
        np.save(file, division.centroids[by_size(tally.sizes)[0]], allow_pickle=False)
    write_atomic(folder / "clusters.json", json.dumps(result, indent=1) + "\n")
    return result


def _truth_column(vectors: Vectors, labels: str | None) -> str | None:
    there = vectors.metadata_columns
    if labels is not None and labels not in there:
        raise UsageError(f"{vectors.path} has no column {labels!r} of true labels")
    return labels or ("label" if "label" in there else None)


class _Division:
    """Which cluster a row belongs to: the nearest centroid's, or that of the nearest anchor."""

    def __init__(
        self,
        centroids: Floats,
        *,
        spherical: bool,
        anchors: tuple[Floats, Ids] | None = None,
    ) -> None:
        self.centroids = centroids
        self.spherical = spherical
        self._anchors = anchors

    def assign(self, x: Floats) -> tuple[Ids, Floats]:
        """Clusters of rows, -1 for noise, and their squared distances to the centroids."""
        a = unit_rows(x) if self.spherical else x
        if self._anchors is None:
            found, squared = nearest(a, self.centroids, 1)
            return found[:, 0], squared[:, 0]
        points, owners = self._anchors
        labels = owners[nearest(a, points, 1)[0][:, 0]]
        away = a - np.concatenate([self.centroids, a[:1]])[labels]
        return labels, np.einsum("ij,ij->i", away, away)


def _sample(vectors: Vectors, rows: int, seed: int) -> Floats:
    x: Floats = vectors.read(rows, seed=seed, columns=()).vectors
    return unit_rows(x) if vectors.metric != "l2" else x


def _by_means(
    vectors: Vectors, at_once: int, n_clusters: int | None, seed: int
) -> tuple[_Division, dict[int, float]]:
    spherical = vectors.metric != "l2"
    x = _sample(vectors, at_once, seed)
    tried: dict[int, float] = {}
    if n_clusters is None:
        n_clusters, tried = choose(x, seed=seed)
    if n_clusters > len(x):
        raise UsageError(
            f"{n_clusters} clusters need as many rows in memory, and the budget holds {len(x)}: "
            "raise it"
        )
    centroids = train_centroids(x, n_clusters, spherical=spherical, seed=seed)
    if len(x) < vectors.count:
        sizes = np.bincount(nearest(x, centroids, 1)[0][:, 0], minlength=n_clusters)
        del x

        def batches() -> Iterator[Floats]:
            for batch in vectors.iter_batches(min(at_once, 8192), columns=()):
                yield unit_rows(batch.vectors) if spherical else batch.vectors

        centroids = refine(centroids, sizes, batches(), spherical=spherical)
    return _Division(centroids, spherical=spherical), tried


def _by_density(
    vectors: Vectors, rows: int, min_cluster_size: int, seed: int, num_threads: int | None
) -> _Division:
    spherical = vectors.metric != "l2"
    x = _sample(vectors, rows, seed)
    owners = dense_groups(x, min_cluster_size=min_cluster_size, num_threads=num_threads)
    centroids = group_means(x, owners)
    centroids = unit_rows(centroids) if spherical else centroids
    return _Division(centroids, spherical=spherical, anchors=(x, owners))


class _Tally:
    """All that is told of the clusters, gathered batch by batch under their first numbers."""

    def __init__(
        self, division: _Division, vectors: Vectors, n_typical: int, truth: str | None
    ) -> None:
        self.division, self.vectors, self.truth = division, vectors, truth
        k = len(division.centroids)
        self.sizes = np.zeros(k, np.int64)
        self.noise = 0
        self.squared = 0.0
        self._n_typical = n_typical
        self._typical: list[list[tuple[float, dict[str, Any]]]] = [[] for _ in range(k)]
        self._words = ClusterWords(k) if "text" in vectors.metadata_columns else None
        self._classes: list[Counter[str]] = [Counter() for _ in range(k + 1)]

    def batches(self, rows: int) -> Iterator[tuple[pa.Array, Ids]]:
        """Read everything once; yield ids and clusters."""
        there = self.vectors.metadata_columns
        wanted = [name for name in there if name in (*SHOWN, self.truth)]
        for batch in self.vectors.iter_batches(rows, columns=wanted):
            labels, squared = self.division.assign(batch.vectors)
            self._add(batch, labels, squared)
            yield batch.ids, labels

    def _add(self, batch: Batch, labels: Ids, squared: Floats) -> None:
        inside = labels != NOISE
        self.sizes += np.bincount(labels[inside], minlength=len(self.sizes))
        self.noise += int((~inside).sum())
        self.squared += float(squared[inside].sum(dtype=np.float64))
        if self._words is not None:
            self._words.add(batch.metadata["text"].to_pylist(), labels.tolist())
        if self.truth is not None:
            classes = [str(value) for value in batch.metadata[self.truth].to_pylist()]
            for pair, count in Counter(zip(labels.tolist(), classes, strict=True)).items():
                self._classes[pair[0]][pair[1]] += count
        self._keep_typical(batch, labels, squared)

    def _keep_typical(self, batch: Batch, labels: Ids, squared: Floats) -> None:
        order = np.lexsort((squared, labels))
        first = np.searchsorted(labels[order], np.arange(len(self.sizes) + 1))
        for number, kept in enumerate(self._typical):
            rows = order[first[number] : first[number + 1]][: self._n_typical]
            if len(kept) == self._n_typical:
                rows = rows[squared[rows] < kept[-1][0]]
            if len(rows):
                shown = records(batch, rows)
                kept += zip(squared[rows].tolist(), shown, strict=True)
                kept.sort(key=lambda one: one[0])
                del kept[self._n_typical :]

    def result(self) -> dict[str, Any]:
        """What clusters.json holds, the largest cluster first."""
        order, _ = by_size(self.sizes)
        words = self._words.names() if self._words is not None else None
        clusters = []
        for number, old in enumerate(order):
            entry: dict[str, Any] = {"cluster": number, "size": int(self.sizes[old])}
            if words is not None:
                entry["words"] = words[old]
            if self.truth is not None:
                label, count = self._classes[old].most_common(1)[0]
                entry |= {"most_frequent": label, "share": count / int(self.sizes[old])}
            entry["typical"] = [shown for _, shown in self._typical[old]]
            clusters.append(entry)
        inside = int(self.sizes.sum())
        result: dict[str, Any] = {
            "n_clusters": len(order),
            "noise": self.noise,
            "objective": self.squared / max(1, inside),
            "clusters": clusters,
        }
        if self.truth is not None:
            names = sorted(set().union(*self._classes))
            table = [[counter[name] for name in names] for counter in self._classes if counter]
            result["agreement"] = agreement_of(np.asarray(table, np.int64))
        return result


def _write_labels(path: Path, tally: _Tally, rows: int) -> None:
    """Ids and clusters; written twice, since numbers by size are known only at the end."""
    draft = path.with_suffix(".draft")
    try:
        _write_batches(draft, tally.batches(rows))
        renamed = by_size(tally.sizes)[1]
        with pq.ParquetFile(draft) as file:
            _write_batches(
                path,
                (
                    (part.column(0), renamed[part.column(1).to_numpy()])
                    for part in file.iter_batches(65_536)
                ),
            )
    finally:
        draft.unlink(missing_ok=True)


def _write_batches(path: Path, batches: Iterator[tuple[pa.Array, Ids]]) -> None:
    writer: pq.ParquetWriter | None = None
    try:
        for ids, labels in batches:
            table = pa.table({"id": ids, "cluster": labels})
            writer = writer or pq.ParquetWriter(path, table.schema, compression="zstd")
            writer.write_table(table)
    finally:
        if writer is not None:
            writer.close()


def _sheets(folder: Path, images: Path, clusters: list[dict[str, Any]]) -> list[str]:
    """Contact sheets of a dozen clusters each."""
    from embedpress.analyze.sheet import contact_sheet, photo_path

    if not images.is_dir():
        raise UsageError(f"{images} is not a folder of photos")
    written: list[str] = []
    unread = shown = 0
    for start in range(0, len(clusters), SHEET_CLUSTERS):
        rows = []
        for entry in clusters[start : start + SHEET_CLUSTERS]:
            title = f"cluster {entry['cluster']}: {entry['size']:,} photos"
            if "most_frequent" in entry:
                title += f", {entry['share']:.0%} {entry['most_frequent']}"
            rows.append((title, [photo_path(images, one["path"]) for one in entry["typical"]]))
        path = folder / f"sheet-{start // SHEET_CLUSTERS + 1:02d}.png"
        unread += contact_sheet(path, rows)
        shown += sum(len(photos) for _, photos in rows)
        written.append(str(path))
    if shown and unread == shown:
        raise InputError(f"none of the photos is in {images}: give the folder that was extracted")
    return written
