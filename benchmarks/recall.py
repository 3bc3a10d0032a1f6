"""recall@10 at equal bytes and at equal latent dimensions, on WordNet glosses.

Every method is trained on the 58,000 base vectors and asked 2,000 held-out queries, against
that base and against a base of 57,791 vectors that no method saw. Writes
``benchmarks/results/recall.json`` and ``recall.png``.

A run that was stopped goes on where it was; remove ``recall.json`` to measure all again.

Run: python benchmarks/recall.py [--seeds 3] [--quick --output quick.json]
"""

from __future__ import annotations

import json
import tempfile
import time
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from wordnet import METRIC, Split, load_split

import embedpress
from embedpress.autoencoder.pretrained import save
from embedpress.evaluate.baselines import baseline
from embedpress.evaluate.metrics import recall_at_k, true_neighbors

RESULTS = Path(__file__).parent / "results"
BYTES = (16, 32, 64)
LATENTS = (32, 64)
PEERS = ("pca-sq", "opq", "rabitq")
K = 10
KEY = ("method", "what", "bytes", "seed")


def plan(seeds: int) -> list[tuple[str, str, int, int]]:
    """(method, what, size, seed) of everything to measure, the most telling first."""
    peers = [(kind, "codes", size, 0) for size in BYTES for kind in PEERS]
    peers += [("pca", "latents", size, 0) for size in LATENTS]
    ours = [
        ("embedpress", what, size, seed)
        for seed in range(seeds)
        for what, sizes in (("codes", BYTES), ("latents", LATENTS))
        for size in sizes
    ]
    return peers + sorted(ours, key=lambda job: (job[3] > 0, job[2:0:-1] != (32, "codes"), job[3]))


def measure_ours(
    split: Split, truths: dict[str, Any], *, size: int, what: str, seed: int, epochs: int | None
) -> dict[str, Any]:
    """Fit, save, compress, index and search as a user does; recall on both bases."""
    options = {"n_components": None, "code_size": size} if what == "codes" else {
        "n_components": size, "code_size": None
    }  # fmt: skip
    compressor = embedpress.Compressor(**options, metric=METRIC, seed=seed)
    if epochs is not None:
        compressor.set_params(epochs=epochs)
    started = time.monotonic()
    compressor.fit(split.base)
    row: dict[str, Any] = {"train_seconds": time.monotonic() - started}
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        save(compressor, work / "model")
        files = [file.stat().st_size for file in (work / "model").glob("*encoder.onnx")]
        row["model_bytes"] = sum(files)
        for name, base in (("seen", split.base), ("unseen", split.unseen)):
            np.save(work / f"{name}.npy", base)
            started = time.monotonic()
            embedpress.compress(work / f"{name}.npy", work / "model", work / name, what=what)
            row["encode_seconds"] = time.monotonic() - started
            embedpress.build_index(
                work / name, work / "model", work / f"index-{name}", factory="Flat"
            )
            index = embedpress.open_index(work / f"index-{name}", work / "model")
            found = index.search(split.queries, K).rows
            row[name] = float(recall_at_k(found, truths[name]).mean())
    return row


def measure_peer(
    split: Split, truths: dict[str, Any], *, kind: str, n_bytes: int, seed: int
) -> dict[str, Any]:
    """One baseline at exactly `n_bytes`, trained on the base."""
    peer = baseline(kind, n_bytes, dim=split.dim, metric=METRIC, seed=seed).fit(split.base)
    row: dict[str, Any] = {
        "form": peer.name,
        "train_seconds": peer.train_seconds,
        "model_bytes": peer.model_bytes,
    }
    for name, base in (("seen", split.base), ("unseen", split.unseen)):
        found = peer.search(base, split.queries, K)
        row["encode_seconds"] = peer.encode_seconds
        row[name] = float(recall_at_k(found, truths[name]).mean())
    return row


def plot(rows: list[dict[str, Any]], path: Path) -> None:
    """recall@10 over bytes a vector, a line a method; solid seen, dashed unseen."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(7.5, 4.6), dpi=150)
    colours = {"embedpress": "#0072B2", "opq": "#D55E00", "rabitq": "#009E73", "pca-sq": "#777777"}
    labels = {"pca-sq": "PCA + scalar", "opq": "OPQ", "rabitq": "RaBitQ"}
    for method, colour in colours.items():
        for base, style in (("seen", "-o"), ("unseen", "--s")):
            points = summary(rows, method, base)
            if points:
                sizes, means, _ = zip(*points, strict=True)
                name = labels.get(method, method)
                label = name if base == "seen" else f"{name}, base unseen in training"
                axes.plot(sizes, means, style, color=colour, label=label, markersize=5, lw=1.6)
    axes.set_xscale("log", base=2)
    axes.set_xticks(BYTES, [str(size) for size in BYTES])
    axes.set_xlabel("bytes a vector (the embedding has 1,536)")
    axes.set_ylabel("recall@10 of the exact neighbours")
    axes.set_title("WordNet glosses through MiniLM, 2,000 held-out queries", fontsize=11)
    axes.grid(alpha=0.3)
    axes.legend(fontsize=7.5, loc="lower right")
    figure.tight_layout()
    figure.savefig(path)


def summary(rows: list[dict[str, Any]], method: str, base: str) -> list[tuple[int, float, float]]:
    """(bytes, mean, standard deviation over seeds) of a method's codes."""
    chosen = [row for row in rows if row["method"] == method and row["what"] == "codes"]
    sizes = sorted({row["bytes"] for row in chosen})
    points = []
    for size in sizes:
        values = [row[base] for row in chosen if row["bytes"] == size]
        points.append((size, float(np.mean(values)), float(np.std(values))))
    return points


def main(
    seeds: Annotated[int, typer.Option(help="Trainings of ours at each size.")] = 3,
    quick: Annotated[bool, typer.Option("--quick", help="A tenth of the data, one seed.")] = False,
    methods: Annotated[str, typer.Option(help="Only these, as in embedpress,opq.")] = "",
    output: Annotated[Path, typer.Option(help="Where the figures go.")] = RESULTS / "recall.json",
) -> None:
    """Measure and write results/recall.json and results/recall.png."""
    split = load_split(5_800 if quick else 58_000)
    truths = {
        "seen": true_neighbors(split.queries, split.base, K, metric=METRIC),
        "unseen": true_neighbors(split.queries, split.unseen, K, metric=METRIC),
    }
    output.parent.mkdir(parents=True, exist_ok=True)
    rows: list[dict[str, Any]] = json.loads(output.read_text()) if output.is_file() else []
    done = {tuple(row[name] for name in KEY) for row in rows}
    for method, what, size, seed in plan(1 if quick else seeds):
        n_bytes = size if what == "codes" else 4 * size
        chosen = not methods or method in methods.split(",")
        if (method, what, n_bytes, seed) in done or not chosen:
            continue
        if method == "embedpress":
            epochs = 2 if quick else None
            row = measure_ours(split, truths, size=size, what=what, seed=seed, epochs=epochs)
        else:
            row = measure_peer(split, truths, kind=method, n_bytes=n_bytes, seed=seed)
        rows.append({"method": method, "what": what, "bytes": n_bytes, "seed": seed, **row})
        output.write_text(json.dumps(rows, indent=1) + "\n")
        print(
            f"{method:<11} {what:<8} {n_bytes:>4} bytes  seed {seed}  "
            f"seen {row['seen']:.4f}  unseen {row['unseen']:.4f}  "
            f"train {row['train_seconds']:.0f} s",
            flush=True,
        )
    plot(rows, output.with_suffix(".png"))


if __name__ == "__main__":
    typer.run(main)
