"""One compressor whose latents are nested, beside one of each size: recall@10 of WordNet glosses.

Each is trained for as many seconds (two minutes by default); of the nested one the first 16 and
32 floats are asked too. Principal components stand beside them. Writes
``benchmarks/results/nested.json``; a run that was stopped goes on where it was.

Run: python benchmarks/nested.py [--seeds 3] [--seconds 120]
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from numpy.typing import NDArray
from split import METRIC, K, Split
from tables import RESULTS
from wordnet import load_split

import embedpress
from embedpress.evaluate.baselines import baseline
from embedpress.evaluate.exact import nearest_in_blocks
from embedpress.evaluate.metrics import recall_at_k, true_neighbors
from embedpress.threads import check_threads
from embedpress.vectors.files import write_atomic

SIZES = (16, 32, 64)
Floats = NDArray[np.float32]


def recalls(split: Split, queries: Floats, bases: dict[str, Floats], size: int) -> dict[str, float]:
    """recall@10 on each base of the first `size` floats, by inner product."""
    asked = np.ascontiguousarray(queries[:, :size])
    found = {}
    for name, base in split.bases.items():
        stored = np.ascontiguousarray(bases[name][:, :size])
        truth = true_neighbors(split.queries, base, K, metric=METRIC)
        hits = nearest_in_blocks(asked, [stored], K)[0]
        found[name] = float(recall_at_k(hits, truth).mean())
    return found


def measure(
    split: Split, size: int, nested: tuple[int, ...], seed: int, seconds: float
) -> list[dict[str, Any]]:
    """A row a size of one training."""
    compressor = embedpress.Compressor(
        size, None, metric=METRIC, nested_sizes=nested, time_budget=seconds, seed=seed
    ).fit(split.base)
    queries = compressor.transform_queries(split.queries)
    bases = {name: compressor.transform(base) for name, base in split.bases.items()}
    method = "nested" if nested else "alone"
    about = {"method": method, "seed": seed, "seconds": seconds, "threads": check_threads(None)}
    return [
        {**about, "n_components": n, **recalls(split, queries, bases, n)} for n in (*nested, size)
    ]


def components(split: Split) -> list[dict[str, Any]]:
    """The rows of PCA, each of its own size, as ``equal_bytes.py`` measures it."""
    rows = []
    for size in SIZES:
        peer = baseline("pca", 4 * size, dim=split.dim, metric=METRIC, seed=0)
        peer.fit(split.base)
        row: dict[str, Any] = {"method": "pca", "n_components": size}
        for name, base in split.bases.items():
            truth = true_neighbors(split.queries, base, K, metric=METRIC)
            row[name] = float(recall_at_k(peer.search(base, split.queries, K), truth).mean())
        rows.append(row)
    return rows


def main(
    seeds: Annotated[int, typer.Option(help="Trainings of each kind.")] = 3,
    seconds: Annotated[float, typer.Option(help="Of each training.")] = 120.0,
    output: Annotated[Path, typer.Option(help="Where the figures go.")] = RESULTS / "nested.json",
) -> None:
    """Measure and write results/nested.json."""
    split = load_split()
    rows: list[dict[str, Any]] = json.loads(output.read_text()) if output.is_file() else []

    def note(found: list[dict[str, Any]]) -> None:
        rows.extend(found)
        write_atomic(output, json.dumps(rows, indent=1) + "\n")
        for row in found:
            print(
                f"{row['method']:<7} seed {row.get('seed', '-')} {row['n_components']:>3} floats  "
                + "  ".join(f"{name} {row[name]:.4f}" for name in split.bases),
                flush=True,
            )

    if not any(row["method"] == "pca" for row in rows):
        note(components(split))
    done = {(row["method"], row["n_components"], row.get("seed")) for row in rows}
    for seed in range(seeds):
        if ("nested", SIZES[-1], seed) not in done:
            note(measure(split, SIZES[-1], SIZES[:-1], seed, seconds))
        for size in SIZES:
            if ("alone", size, seed) not in done:
                note(measure(split, size, (), seed, seconds))


if __name__ == "__main__":
    typer.run(main)
