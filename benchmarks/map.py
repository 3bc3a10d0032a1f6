"""The map of 117,791 glosses: a picture that is still readable, and how long it takes.

WordNet's embeddings are laid out by the neighbour graph and named by their words. Writes
``benchmarks/results/map.png`` and ``map.json``.

Run: python benchmarks/map.py
"""

from __future__ import annotations

import io
import json
import tempfile
import time
from pathlib import Path

import typer
import wordnet
from PIL import Image
from tables import RESULTS

from embedpress.analyze.map_folder import map_folder
from embedpress.vectors.files import write_atomic


def smaller(picture: Path) -> bytes:
    """The picture at two thirds of its width and in 128 colours, for a README."""
    with Image.open(picture) as image:
        size = (round(image.width / 1.5), round(image.height / 1.5))
        small = image.convert("RGB").resize(size, Image.Resampling.LANCZOS).quantize(128)
    out = io.BytesIO()
    small.save(out, format="PNG", optimize=True)
    return out.getvalue()


def main() -> None:
    """Draw, and write results/map.png and results/map.json."""
    embeddings = wordnet.embeddings_folder()
    with tempfile.TemporaryDirectory() as folder:
        started = time.monotonic()
        made = map_folder(embeddings, folder, method="graph")
        seconds = time.monotonic() - started
        write_atomic(RESULTS / "map.png", smaller(Path(made["png"])))
    result = {"count": made["count"], "method": made["method"], "seconds": seconds}
    write_atomic(RESULTS / "map.json", json.dumps(result, indent=1) + "\n")
    print(result)


if __name__ == "__main__":
    typer.run(main)
