"""The report of `embedpress evaluate` on medical questions and answers, and its figures.

A compressor of 64 floats and 32 bytes is fitted, for at most two minutes, on MedQuAD's 15,809
answers; their codes go into an index of 128 inverted lists with an int8 rerank tier; its questions
ask, by the judgements of its qrels. Writes ``benchmarks/results/report.json``; the page itself
lies in ``data/report``.

Run: python benchmarks/report.py --medquad FOLDER
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import medquad
import typer
from split import METRIC, ROOT
from tables import RESULTS

import embedpress
from embedpress.autoencoder.fit import fit
from embedpress.evaluate.verb import evaluate_folder
from embedpress.vectors.files import write_atomic

WORK = ROOT / "data" / "report"
TRAINING_SECONDS = 120
KEPT = ("k", "dim", "base_rows", "query_rows", "recall", "depths", "index", "relevance")


def main(
    medquad_folder: Annotated[
        Path, typer.Option("--medquad", help="MedQuAD in the layout of BEIR.")
    ] = medquad.FOLDER,
    output: Annotated[Path, typer.Option(help="Where the figures go.")] = RESULTS / "report.json",
) -> None:
    """Fit, compress, index, evaluate, and write results/report.json."""
    embeddings = medquad.EMBEDDINGS
    for name in ("corpus", "queries"):
        medquad.embedded(medquad_folder, name, embeddings)
    WORK.mkdir(parents=True, exist_ok=True)
    answers, model = embeddings / "corpus", WORK / "model"
    if not (model / "config.json").is_file():
        compressor = embedpress.Compressor(
            64, 32, metric=METRIC, seed=0, time_budget=TRAINING_SECONDS
        )
        fit(answers, model, compressor)
    embedpress.compress(answers, model, WORK / "codes")
    embedpress.build_index(
        WORK / "codes", model, WORK / "index", factory="IVF128", rerank="int8", vectors=answers
    )
    result: dict[str, Any] = evaluate_folder(
        answers,
        model,
        WORK / "page",
        queries=embeddings / "queries",
        beir=medquad_folder,
        index=WORK / "index",
        baselines=["pca", "pca-sq", "opq", "rabitq", "binary"],
    )
    write_atomic(output, json.dumps({name: result[name] for name in KEPT}, indent=1) + "\n")
    print(f"the page: {result['report']}")


if __name__ == "__main__":
    typer.run(main)
