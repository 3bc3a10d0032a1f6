"""The map of 117,791 latents: a picture that is still readable, and how long it takes.

A compressor of 32 floats is fitted, for at most two minutes, on WordNet's glosses; its latents are
laid out and named by their words. Writes ``benchmarks/results/map.png`` and ``map.json``.

Run: python benchmarks/map.py
"""

from __future__ import annotations

import json
import tempfile
import time
from pathlib import Path

import typer
import wordnet
from split import METRIC
from tables import RESULTS

import embedpress
from embedpress.analyze.map_folder import map_folder
from embedpress.autoencoder.fit import fit
from embedpress.vectors.files import write_atomic

TRAINING_SECONDS = 120


def main() -> None:
    """Fit, compress, draw, and write results/map.png and results/map.json."""
    embeddings = wordnet.embeddings_folder()
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        compressor = embedpress.Compressor(
            32, None, metric=METRIC, seed=0, time_budget=TRAINING_SECONDS
        )
        fit(embeddings, work / "model", compressor)
        embedpress.compress(embeddings, work / "model", work / "latents", what="latents")
        started = time.monotonic()
        made = map_folder(work / "latents", work / "map", method="graph")
        seconds = time.monotonic() - started
        write_atomic(RESULTS / "map.png", Path(made["png"]).read_bytes())
    result = {"count": made["count"], "method": made["method"], "seconds": seconds}
    write_atomic(RESULTS / "map.json", json.dumps(result, indent=1) + "\n")
    print(result)


if __name__ == "__main__":
    typer.run(main)
