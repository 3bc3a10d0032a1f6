"""`embedpress map`: latents to a picture."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import Annotated

import typer

from embedpress.cli.options import Json, Threads
from embedpress.console import show, stopwatch


class MapMethod(str, Enum):
    """How latents are laid out in the plane."""

    auto = "auto"
    pca = "pca"
    graph = "graph"
    umap = "umap"


def map_command(
    source: Annotated[Path, typer.Argument(metavar="OUT", help="Folder of latents or vectors.")],
    out: Annotated[Path, typer.Option("-o", "--output", help="Folder for the map.")],
    method: Annotated[MapMethod, typer.Option(help="auto: UMAP, else a graph.")] = (MapMethod.auto),
    labels: Annotated[
        str | None, typer.Option(help="Column that colours the points; clusters by default.")
    ] = None,
    n_clusters: Annotated[int, typer.Option(help="How many clusters colour it.", min=1)] = 12,
    seed: Annotated[int, typer.Option(help="Of the layout.")] = 0,
    num_threads: Threads = None,
    as_json: Json = False,
) -> None:
    """A picture of the latent space: PNG, and Parquet with x, y and neighbours.

    Example: `embedpress map latents -o map`
    """
    from embedpress.analyze.map_folder import map_folder

    with stopwatch() as seconds:
        result = map_folder(
            source,
            out,
            method=method.value,
            labels=labels,
            n_clusters=n_clusters,
            seed=seed,
            num_threads=num_threads,
        )
    text = f"{result['count']:,} points: {result['png']} and {result['parquet']}"
    show({**result, "seconds": seconds()}, as_json=as_json, text=text)
