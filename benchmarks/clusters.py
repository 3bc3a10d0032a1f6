"""Clusters of latents beside those of the embeddings: agreement with true classes, and speed.

A compressor of 32 floats is trained (without classes, as for search, for at most two minutes) on
the vectors that are then divided; spherical k-means of as many clusters as there are classes
divides the embeddings, the latents and as many principal components, in turns in one run, several
times a seed.
Writes ``benchmarks/results/clusters.json``. A run that was stopped goes on where it was.

Run: python benchmarks/clusters.py --banking77 FOLDER --clothing FOLDER [--seeds 3]
"""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Annotated, Any

import labelled
import numpy as np
import typer
from split import METRIC
from tables import RESULTS

import embedpress
from embedpress.analyze.cluster import agreement, cluster
from embedpress.evaluate.axes import principal_axes
from embedpress.threads import check_threads
from embedpress.vectors.files import write_atomic

DATASETS = ("banking77", "clothing", "wordnet")
N_COMPONENTS = 32
TRAINING_SECONDS = 120
RUNS = {"banking77": 5, "clothing": 5, "wordnet": 2}
"""K-means a seed; the figures of many rows vary less."""


def measure(
    data: labelled.Labelled, runs: int, seed: int, num_threads: int | None
) -> dict[str, Any]:
    """NMI, ARI, purity and seconds of k-means on each form: a list a figure, an entry a run."""
    x = data.vectors
    started = time.monotonic()
    compressor = embedpress.Compressor(
        N_COMPONENTS,
        None,
        metric=METRIC,
        time_budget=TRAINING_SECONDS,
        seed=seed,
        num_threads=num_threads,
    )
    compressor.fit(x)
    training = time.monotonic() - started
    axes = principal_axes(x, N_COMPONENTS)
    forms = {
        "embeddings": x,
        "latents": compressor.transform(x),
        "pca": np.ascontiguousarray((x - x.mean(axis=0)) @ axes),
    }
    row: dict[str, Any] = {"train_seconds": training, "clusters": data.n_classes}
    row |= {name: {"nmi": [], "ari": [], "purity": [], "seconds": []} for name in forms}
    for run in range(runs):
        for name, vectors in forms.items():
            started = time.monotonic()
            found = cluster(
                vectors, data.n_classes, seed=runs * seed + run, num_threads=num_threads
            )
            row[name]["seconds"].append(time.monotonic() - started)
            for figure, value in agreement(data.classes, found.labels).items():
                row[name][figure].append(value)
    return row


def main(
    banking77: Annotated[Path | None, typer.Option(help="train.csv and test.csv.")] = None,
    clothing: Annotated[Path | None, typer.Option(help="train/ and validation/ of photos.")] = None,
    datasets: Annotated[str, typer.Option(help="Only these, as in wordnet.")] = ",".join(DATASETS),
    seeds: Annotated[int, typer.Option(help="Trainings a data set.")] = 3,
    num_threads: Annotated[int | None, typer.Option(help="Threads of everything timed.")] = None,
    output: Annotated[Path, typer.Option(help="Where the figures go.")] = RESULTS / "clusters.json",
) -> None:
    """Measure and write results/clusters.json."""
    rows: list[dict[str, Any]] = json.loads(output.read_text()) if output.is_file() else []
    done = {(row["dataset"], row["seed"]) for row in rows}
    for dataset in datasets.split(","):
        missing = [seed for seed in range(seeds) if (dataset, seed) not in done]
        folder = {"banking77": banking77, "clothing": clothing}.get(dataset)
        if not missing:
            continue
        if dataset != "wordnet" and folder is None:
            print(f"{dataset} is skipped: give its folder with --{dataset} FOLDER")
            continue
        data = labelled.load(dataset, folder)
        for seed in missing:
            about = {
                "dataset": dataset,
                "seed": seed,
                "rows": len(data.vectors),
                "dim": data.vectors.shape[1],
                "threads": check_threads(num_threads),
            }
            rows.append(about | measure(data, RUNS[dataset], seed, num_threads))
            write_atomic(output, json.dumps(rows, indent=1) + "\n")
            nmi = {n: np.mean(rows[-1][n]["nmi"]) for n in ("embeddings", "latents", "pca")}
            seconds = {n: np.median(rows[-1][n]["seconds"]) for n in ("embeddings", "latents")}
            print(
                f"{dataset:<10} seed {seed}  NMI "
                + "  ".join(f"{name} {value:.4f}" for name, value in nmi.items())
                + f"  k-means {seconds['embeddings']:.2f} s, {seconds['latents']:.2f} s: "
                f"{seconds['embeddings'] / seconds['latents']:.1f} times",
                flush=True,
            )


if __name__ == "__main__":
    typer.run(main)
