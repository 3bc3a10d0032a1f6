"""Maps of a dataset on disk: read it, call one function, write it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa

from embedpress.analyze.cluster import cluster
from embedpress.analyze.files import make_folder, open_floats, write_table
from embedpress.analyze.project import draw_map, neighbors, project
from embedpress.errors import UsageError

MOST_ROWS = 1_000_000
MAP_CLUSTERS = 12


def map_folder(
    source: str | Path,
    out: str | Path,
    *,
    method: str = "auto",
    labels: str | None = None,
    seed: int = 0,
    num_threads: int | None = None,
) -> dict[str, Any]:
    """Lay latents (or embeddings) out in the plane: map.png and map.parquet.

    Parameters
    ----------
    source : str or Path
        A folder or file of vectors, not codes.
    out : str or Path
        The folder to write.
    method : {"auto", "pca", "graph", "umap"}
        See :func:`embedpress.analyze.project.project`.
    labels : str, optional
        Metadata column that colours the points; clusters of their own by default.
    seed : int
    num_threads : int, optional

    Returns
    -------
    dict
        ``png`` and ``parquet`` (paths), ``count``, ``method``.
    """
    vectors = open_floats(source)
    batch, metric = vectors.read(MOST_ROWS), vectors.metric
    folder = make_folder(out)
    if labels is None:
        found = cluster(
            batch.vectors,
            min(MAP_CLUSTERS, len(batch.ids)),
            spherical=metric != "l2",
            seed=seed,
            num_threads=num_threads,
            n_typical=1,
        )
        groups = [f"{number + 1}" for number in found.labels]
    elif labels in batch.metadata.column_names:
        groups = [str(value) for value in batch.metadata[labels].to_pylist()]
    else:
        raise UsageError(f"{source} has no column {labels!r} to colour the map by")
    laid_out = project(
        batch.vectors, method=method, metric=metric, seed=seed, num_threads=num_threads
    )
    near = neighbors(batch.vectors, 10, metric=metric, num_threads=num_threads)
    columns: dict[str, Any] = {
        "id": batch.ids,
        "x": laid_out.points[:, 0],
        "y": laid_out.points[:, 1],
        "group": pa.array(groups, pa.string()),
        "neighbors": pa.array(
            [{"ids": rows, "distances": away} for rows, away in zip(*near, strict=True)]
        ),
    }
    for name in batch.metadata.column_names:
        columns.setdefault(name, batch.metadata[name])
    write_table(folder / "map.parquet", columns)
    what = "clusters" if labels is None else labels
    title = f"{len(batch.ids):,} {Path(source).name} by {laid_out.method}, coloured by {what}"
    draw_map(laid_out.points, groups, folder / "map.png", title=title)
    return {
        "png": str(folder / "map.png"),
        "parquet": str(folder / "map.parquet"),
        "count": len(batch.ids),
        "method": laid_out.method,
    }
