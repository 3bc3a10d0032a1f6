"""`embedpress evaluate`: what a compressor keeps, as a report."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from embedpress.cli.options import Json, Model, Threads
from embedpress.console import show, stopwatch


def evaluate_command(
    source: Annotated[Path, typer.Argument(metavar="EMB", help="Embeddings: folder or file.")],
    model: Model,
    out: Annotated[Path, typer.Option("-o", "--output", help="Folder for the report.")],
    queries: Annotated[
        Path | None, typer.Option(help="Query embeddings; held-out rows of EMB by default.")
    ] = None,
    baselines: Annotated[
        bool, typer.Option("--baselines", help="Peers at the same bytes as well (slower).")
    ] = False,
    index: Annotated[
        Path | None, typer.Option(help="Index of the same vectors: its loss apart.")
    ] = None,
    beir: Annotated[
        Path | None,
        typer.Option(help="Folder in BEIR's layout: nDCG and MRR by its judgements."),
    ] = None,
    split: Annotated[str, typer.Option(help="Which judgements: qrels/SPLIT.tsv.")] = "test",
    images: Annotated[
        Path | None, typer.Option(help="Folder of the photos, to show the worst queries.")
    ] = None,
    planned_vectors: Annotated[
        int, typer.Option(help="Tell bytes and money for so many vectors.")
    ] = 100_000_000,
    price: Annotated[float, typer.Option(help="US dollars for a gigabyte and a month.")] = 4.5,
    k: Annotated[int, typer.Option(help="Neighbours that count.")] = 10,
    seed: Annotated[int, typer.Option(help="Of samples and intervals.")] = 0,
    num_threads: Threads = None,
    as_json: Json = False,
) -> None:
    """How much of the search results is kept: an HTML report and its figures as JSON.

    Example: `embedpress evaluate embeddings -m model -o report --baselines`

    Example: `embedpress evaluate answers -m model -o report --queries questions --beir medquad`
    """
    from embedpress.evaluate.verb import evaluate_folder

    with stopwatch() as seconds:
        result = evaluate_folder(
            source,
            model,
            out,
            queries=queries,
            baselines=baselines,
            index=index,
            beir=beir,
            split=split,
            images=images,
            planned_vectors=planned_vectors,
            price=price,
            k=k,
            seed=seed,
            num_threads=num_threads,
        )
    lines = [f"report in {result['report']}"]
    for row in result["recall"]:
        lines.append(f"  {row['name']:<24} {row['bytes']:>6} bytes  recall@{k} {row['recall']:.3f}")
    if result["index"] is not None:
        point = next(point for point in result["index"]["points"] if point["default"])
        lines.append(
            f"  index, {point['name']}: recall@{k} {point['recall']:.3f}, "
            f"{point['difference']:+.3f} against a scan of all {result['index']['form']}"
        )
    for row in result["relevance"]:
        lines.append(f"  {row['name']:<24} nDCG@{k} {row['ndcg']:.3f}  MRR {row['mrr']:.3f}")
    show({**result, "seconds": seconds()}, as_json=as_json, text="\n".join(lines))
