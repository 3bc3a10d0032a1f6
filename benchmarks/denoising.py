"""recall@10 from corrupted queries: trained with noise, trained without, and PCA.

Glosses of WordNet; the base is stored as 64 floats a vector by every method, and the true
neighbours are those of the clean queries among the embeddings. Queries get Gaussian noise (in
norms of the vector), lose a share of their entries, or are rounded to so many bits a number.
Trained briefly, so that it takes minutes. Writes
``benchmarks/results/denoising.json``.

Run: python benchmarks/denoising.py [--seeds 3] [--n-base 10000] [--epochs 12]
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Annotated, Any

import numpy as np
import typer
import wordnet
from numpy.typing import NDArray
from split import METRIC, K, Split
from tables import RESULTS

import embedpress
from embedpress.autoencoder.start import principal_axes
from embedpress.evaluate.exact import nearest_in_blocks, unit_rows
from embedpress.evaluate.metrics import recall_at_k
from embedpress.threads import faiss_threads
from embedpress.vectors.files import write_atomic

LATENTS = 64
TRAININGS: dict[str, dict[str, float]] = {
    "embedpress": {},
    "embedpress, noise=2": {"noise": 2.0},
    "embedpress, noise=1 mask=0.5": {"noise": 1.0, "mask": 0.5},
}

Floats = NDArray[np.float32]
Encode = Callable[[Floats], Floats]


def corruptions(x: Floats, seed: int) -> dict[str, Floats]:
    """The queries and corrupted forms of them, all of norm 1."""
    rng = np.random.default_rng(seed)
    n, d = x.shape

    def noisy(size: float) -> Floats:
        return x + size / np.sqrt(d) * rng.standard_normal((n, d), dtype=np.float32)

    def rounded(bits: int) -> Floats:
        step = np.abs(x).max(axis=1, keepdims=True) / (2 ** (bits - 1) - 1)
        return np.round(x / step) * step

    shares = (0.25, 0.5, 0.75)
    forms = {
        "clean": x,
        "int8": rounded(8),
        "3 bits": rounded(3),
        **{f"noise {size:g}": noisy(size) for size in (0.5, 1, 2)},
        **{f"{share:.0%} dropped": x * (rng.random((n, d)) >= share) for share in shares},
    }
    return {name: unit_rows(form) for name, form in forms.items()}


def trained(
    split: Split, training: dict[str, float], seed: int, epochs: int
) -> tuple[Floats, Encode]:
    """Latents of the base by a compressor trained on it, and its encoder of queries."""
    compressor = embedpress.Compressor(
        LATENTS, None, metric=METRIC, epochs=epochs, seed=seed, **training
    ).fit(split.base)
    return compressor.transform(split.base), compressor.transform_queries


def principal(split: Split) -> tuple[Floats, Encode]:
    """PCA of the same bytes, by inner products with queries that are not centred."""
    axes, mean, _ = principal_axes(split.base, LATENTS)
    return np.ascontiguousarray((split.base - mean) @ axes.T), lambda x: x @ axes.T


def measure(split: Split, seeds: int, epochs: int) -> list[dict[str, Any]]:
    """A row a method, corruption and seed."""
    rows: list[dict[str, Any]] = []

    def add(method: str, stored: Floats, ask: Encode, seed: int) -> None:
        for name, queries in corruptions(split.queries, 1000 + seed).items():
            asked = np.ascontiguousarray(ask(queries), np.float32)
            found, _ = nearest_in_blocks(asked, [stored], K)
            recall = float(recall_at_k(found, split.truths["seen"]).mean())
            rows.append({"method": method, "queries": name, "seed": seed, "recall": recall})
        print(method, seed, {r["queries"]: round(r["recall"], 3) for r in rows[-8:]}, flush=True)

    for seed in range(seeds):
        add("the embeddings", split.base, lambda x: x, seed)
        add("PCA", *principal(split), seed)
        for method, training in TRAININGS.items():
            add(method, *trained(split, training, seed, epochs), seed)
    return rows


def table(rows: list[dict[str, Any]]) -> list[str]:
    """Markdown: a line a method, recall@10 a corruption, means over the seeds."""
    names = list(dict.fromkeys(row["queries"] for row in rows))
    lines = ["| stored as 64 floats by | " + " | ".join(names) + " |"]
    lines.append("| --- |" + " --- |" * len(names))
    for method in dict.fromkeys(row["method"] for row in rows):
        cells = []
        for name in names:
            found = [r["recall"] for r in rows if (r["method"], r["queries"]) == (method, name)]
            cells.append(f"{np.mean(found):.3f}")
        lines.append(f"| {method} | " + " | ".join(cells) + " |")
    return lines


def main(
    seeds: Annotated[int, typer.Option(help="Trainings and draws of noise.", min=1)] = 3,
    n_base: Annotated[int, typer.Option(help="Glosses stored and trained on.")] = 10_000,
    epochs: Annotated[int, typer.Option(help="Of each training.")] = 12,
) -> None:
    """Measure recall from corrupted queries."""
    with faiss_threads(None):
        rows = measure(wordnet.load_split(n_base), seeds, epochs)
    write_atomic(RESULTS / "denoising.json", json.dumps(rows, indent=1) + "\n")
    print(*table(rows), sep="\n")


if __name__ == "__main__":
    typer.run(main)
