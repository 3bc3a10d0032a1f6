"""`embedpress cluster` and `duplicates`: rows to groups of like rows."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import Annotated, Any

import typer

from embedpress.cli.lines import shortened
from embedpress.cli.options import Json, MemoryBudget, Threads, resolved_model
from embedpress.console import show, stopwatch


class ClusterMethod(str, Enum):
    """How rows are divided."""

    kmeans = "kmeans"
    hdbscan = "hdbscan"


def cluster_command(
    source: Annotated[Path, typer.Argument(metavar="OUT", help="Folder of latents or vectors.")],
    out: Annotated[Path, typer.Option("-o", "--output", help="Folder for the labels.")],
    n_clusters: Annotated[
        int | None, typer.Option(help="Clusters; chosen by silhouette by default.")
    ] = None,
    method: Annotated[ClusterMethod, typer.Option(help="k-means, or by density.")] = (
        ClusterMethod.kmeans
    ),
    min_cluster_size: Annotated[int, typer.Option(help="Of HDBSCAN.")] = 10,
    labels: Annotated[
        str | None, typer.Option(help="Column of true labels to compare with.")
    ] = None,
    images: Annotated[
        Path | None, typer.Option(help="Folder of the photos, for contact sheets.")
    ] = None,
    memory_budget: MemoryBudget = "2G",
    seed: Annotated[int, typer.Option(help="Of k-means.")] = 0,
    num_threads: Threads = None,
    as_json: Json = False,
) -> None:
    """Clusters of latents: sizes, names by the members' words, typical members.

    Example: `embedpress cluster latents -o clusters --n-clusters 20`
    """
    from embedpress.analyze.cluster_folder import cluster_folder

    with stopwatch() as seconds:
        result = cluster_folder(
            source,
            out,
            n_clusters=n_clusters,
            method=method.value,
            min_cluster_size=min_cluster_size,
            labels=labels,
            images=images,
            memory_budget=memory_budget,
            seed=seed,
            num_threads=num_threads,
        )
    show({**result, "seconds": seconds()}, as_json=as_json, text="\n".join(_cluster_lines(result)))


def duplicates_command(
    source: Annotated[
        Path, typer.Argument(metavar="EMB_OR_OUT", help="Embeddings, latents or codes.")
    ],
    out: Annotated[Path, typer.Option("-o", "--output", help="Folder for the groups.")],
    threshold: Annotated[
        float | None,
        typer.Option(help="Least cosine, 0.95 by default; largest distance for the metric l2."),
    ] = None,
    model: Annotated[
        Path | None,
        typer.Option(
            "-m", "--model", help="Compressor folder or hub id, for codes.", callback=resolved_model
        ),
    ] = None,
    memory_budget: MemoryBudget = "2G",
    num_threads: Threads = None,
    as_json: Json = False,
) -> None:
    """Groups of near-duplicates: every pair is compared.

    Example: `embedpress duplicates embeddings -o duplicates --threshold 0.95`
    """
    from embedpress.analyze.duplicates_folder import duplicates_folder

    with stopwatch() as seconds:
        result = duplicates_folder(
            source,
            out,
            threshold=threshold,
            model=model,
            memory_budget=memory_budget,
            num_threads=num_threads,
        )
    lines = [
        f"{result['n_groups']:,} groups of {result['n_members']:,} of {result['count']:,} rows at "
        f"{result['threshold']:g}; {result['n_redundant']:,} rows could go; in {out}"
    ]
    for group in result["groups"][:10]:
        lines.append(f"  group {group['group']}, {group['size']:,} rows")
        lines += [f"    {shortened(member)}" for member in group["members"]]
    show({**result, "seconds": seconds()}, as_json=as_json, text="\n".join(lines))


def _cluster_lines(result: dict[str, Any]) -> list[str]:
    """The clusters, largest first: size, words, most frequent label, typical members."""
    lines = [f"{result['n_clusters']} clusters of {result['count']:,} rows: {result['labels']}"]
    if result["noise"]:
        lines.append(f"  {result['noise']:,} rows belong to none")
    if "agreement" in result:
        figures = (f"{name} {value:.3f}" for name, value in result["agreement"].items())
        lines.append("  agreement with true labels: " + ", ".join(figures))
    for entry in result["clusters"]:
        line = f"  cluster {entry['cluster']}, {entry['size']:,} members"
        if entry.get("words"):
            line += f": {', '.join(entry['words'])}"
        if "most_frequent" in entry:
            line += f" ({entry['share']:.0%} {entry['most_frequent']})"
        lines.append(line)
        lines += [f"    {shortened(typical)}" for typical in entry["typical"]]
    return lines + [f"  contact sheet {path}" for path in result.get("sheets", [])]
