"""Maps of a dataset on disk: a picture, and a table that map viewers open."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa

from embedpress.analyze.cluster import cluster
from embedpress.analyze.files import make_folder, open_floats, write_table
from embedpress.analyze.project import draw_map, neighbors, project
from embedpress.analyze.words import ClusterWords
from embedpress.errors import UsageError
from embedpress.evaluate.exact import Floats
from embedpress.vectors import Batch

MOST_ROWS = 1_000_000
MAP_CLUSTERS = 12
NAME_WORDS = 2
NEIGHBORS = 10


def map_folder(
    source: str | Path,
    out: str | Path,
    *,
    method: str = "auto",
    labels: str | None = None,
    n_clusters: int = MAP_CLUSTERS,
    seed: int = 0,
    num_threads: int | None = None,
) -> dict[str, Any]:
    """Lay latents (or embeddings) out in the plane: map.png and map.parquet.

    Parameters
    ----------
    source : str or Path
        A folder or file of vectors, not codes; of more than a million rows a sample.
    out : str or Path
        The folder to write.
    method : {"auto", "pca", "graph", "umap"}
        See :func:`embedpress.analyze.project.project`.
    labels : str, optional
        Metadata column that colours and names the points. By default clusters of their own do,
        named by the words of the column ``text`` where there is one.
    n_clusters : int
        How many of these.
    seed : int
    num_threads : int, optional

    Returns
    -------
    dict
        ``png`` and ``parquet`` (paths), ``count``, ``method``. The table has ``x`` and ``y`` by
        the method, ``pca_x`` and ``pca_y`` always, ``group``, ``neighbors`` (``ids``, which are
        row numbers, and ``distances``, as Embedding Atlas reads them), and the metadata.

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
    if labels is not None and labels not in vectors.metadata_columns:
        raise UsageError(f"{source} has no column {labels!r} to colour the map by")
    batch, metric = vectors.read(MOST_ROWS, seed=seed), vectors.metric
    folder = make_folder(out)
    if labels is not None:
        groups = [str(value) for value in batch.metadata[labels].to_pylist()]
    else:
        groups = _named_clusters(
            batch, n_clusters, spherical=metric != "l2", seed=seed, num_threads=num_threads
        )
    shared: dict[str, Any] = {"metric": metric, "seed": seed, "num_threads": num_threads}
    laid_out = project(batch.vectors, method=method, **shared)
    principal = laid_out.points
    if laid_out.method != "PCA":
        principal = project(batch.vectors, method="pca", **shared).points
    write_table(
        folder / "map.parquet",
        _columns(batch, groups, laid_out.points, principal, metric, num_threads),
    )
    what = "clusters" if labels is None else labels
    shown = f"{len(batch.ids):,}"
    if len(batch.ids) < vectors.count:
        shown += f" of {vectors.count:,}"
    title = f"{shown} {Path(source).name} by {laid_out.method}, coloured by {what}"
    draw_map(laid_out.points, groups, folder / "map.png", title=title)
    return {
        "png": str(folder / "map.png"),
        "parquet": str(folder / "map.parquet"),
        "count": len(batch.ids),
        "method": laid_out.method,
    }


def _named_clusters(
    batch: Batch, n_clusters: int, *, spherical: bool, seed: int, num_threads: int | None
) -> list[str]:
    """A name for each row: its cluster's number, largest first, or the words that set it apart."""
    found = cluster(
        batch.vectors,
        min(n_clusters, len(batch.ids)),
        spherical=spherical,
        seed=seed,
        num_threads=num_threads,
        n_typical=1,
    )
    names = [str(number + 1) for number in range(len(found.sizes))]
    if "text" in batch.metadata.column_names:
        words = ClusterWords(len(names))
        words.add(batch.metadata["text"].to_pylist(), found.labels.tolist())
        for number, own in enumerate(words.names(NAME_WORDS)):
            name = ", ".join(own)
            names[number] = name if name and name not in names else f"{name} {number + 1}".strip()
    return [names[number] for number in found.labels]


def _columns(
    batch: Batch,
    groups: list[str],
    points: Floats,
    principal: Floats,
    metric: str,
    num_threads: int | None,
) -> dict[str, Any]:
    near = neighbors(batch.vectors, NEIGHBORS, metric=metric, num_threads=num_threads)
    columns: dict[str, Any] = {
        "id": batch.ids,
        "x": points[:, 0],
        "y": points[:, 1],
        "pca_x": principal[:, 0],
        "pca_y": principal[:, 1],
        "group": pa.array(groups, pa.string()),
        "neighbors": pa.array(
            [{"ids": rows, "distances": away} for rows, away in zip(*near, strict=True)]
        ),
    }
    for name in batch.metadata.column_names:
        columns.setdefault(name, batch.metadata[name])
    return columns
