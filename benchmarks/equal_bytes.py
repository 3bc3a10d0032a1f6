"""recall@10 at equal bytes: glosses of WordNet, medical answers, photos.

Every method is trained on one half of a data set, and held-out queries are asked against that
half and against another one that no method saw. Where there are relevance judgements (MedQuAD),
nDCG@10 over both halves too. Writes ``benchmarks/results/equal_bytes.json`` and a plot beside it.

A run that was stopped goes on where it was; remove ``equal_bytes.json`` to measure all again.

Run: python benchmarks/equal_bytes.py [--medquad FOLDER] [--sizes 16,32] [--seeds 3] [--quick]
"""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import medquad
import numpy as np
import photos
import typer
import wordnet
from numpy.typing import NDArray
from split import METRIC, ROOT, K, Split
from tables import ALL_OURS, CPU, MAIN, NAMES, OURS, OURS_ASKED, OURS_BRIEF, RESULTS, TITLES

import embedpress
from embedpress.autoencoder.pretrained import save
from embedpress.evaluate.baselines import baseline
from embedpress.evaluate.channel import fit_channel
from embedpress.evaluate.exact import nearest_in_blocks, unit_rows
from embedpress.evaluate.metrics import ndcg_at_k, recall_at_k, true_neighbors
from embedpress.evaluate.recipes import recipes
from embedpress.index.search import SearchIndex
from embedpress.vectors.files import write_atomic

DIMS = {"wordnet": 384, "medquad": 384, "photos": 2048}
BYTES = (32, 16, 64, 8, 48, 96)
"""In the order of measuring."""
LATENTS = (32, 64)
BRIEF_SECONDS = 120
CHEAP = ("exact", "gaussian", "pca-sq", "rabitq", "binary", "int8", "pca")
SLOW = ("opq", "prq", "rq", "lsq")
METHODS = (*ALL_OURS, *CHEAP, *SLOW)
QUICK_METHODS = (OURS, "gaussian", "pca-sq", "rabitq", "opq")
COLOURS = {
    "embedpress": "#0072B2",
    "embedpress-asked": "#000000",
    "opq": "#D55E00",
    "rq": "#CC79A7",
    "prq": "#882255",
    "lsq": "#E69F00",
    "rabitq": "#009E73",
    "pca-sq": "#777777",
    "binary": "#56B4E9",
}
MARKERS = dict(zip(COLOURS, "ohsDv^PX*", strict=True))

Search = Callable[[NDArray[np.float32]], tuple[NDArray[np.int64], float | None]]


class Job(NamedTuple):
    """A row to measure, and the key that a run which was stopped knows it by."""

    dataset: str
    method: str
    what: str
    bytes: int
    seed: int


def plan(seeds: int) -> list[Job]:
    """Everything to measure, the most telling first."""
    jobs = [Job("wordnet", "pca", "latents", 4 * size, 0) for size in LATENTS]
    jobs += [
        Job("wordnet", OURS, "latents", 4 * size, seed) for size in LATENTS for seed in range(seeds)
    ]
    jobs.append(Job("wordnet", OURS_BRIEF, "codes", 32, 0))
    for dataset, dim in DIMS.items():
        jobs.append(Job(dataset, "exact", "embeddings", 4 * dim, 0))
        ours = (OURS, OURS_ASKED) if dataset == "medquad" else (OURS,)
        jobs += [
            Job(dataset, method, "codes", n, seed)
            for method in ours
            for n in BYTES
            for seed in range(seeds)
        ]
        jobs += [Job(dataset, "gaussian", "codes", n, 0) for n in BYTES]
        jobs += [
            Job(dataset, kind, "codes", n, 0)
            for kind in ("pca-sq", "rabitq", "binary", "int8", *SLOW)
            for n in (*BYTES, dim)
            # A byte a dimension is int8's own size.
            if (n == dim) == (kind == "int8") and recipes(kind, n, dim, METRIC)
        ]

    def order(job: Job) -> tuple[int, ...]:
        size = BYTES.index(job.bytes) if job.bytes in BYTES else len(BYTES)
        method = METHODS.index(job.method)
        ours = job.method in (OURS, OURS_ASKED)
        cost = 0 if ours else 2 if job.method in SLOW else 1
        return job.seed, list(DIMS).index(job.dataset), job.bytes not in MAIN, cost, size, method

    return sorted(jobs, key=order)


def scores(split: Split, search: Search) -> dict[str, float]:
    """Recall on both bases, the cost of encoding the unseen one, nDCG by judgements."""
    row: dict[str, float] = {}
    for name, base in split.bases.items():
        found, seconds = search(base)
        row[name] = float(recall_at_k(found, split.truths[name]).mean())
        if seconds is not None:
            row |= {"encode_seconds": seconds, "encode_per_second": len(base) / seconds}
    if split.judgements is not None:
        found, _ = search(np.concatenate(list(split.bases.values())))
        row["ndcg"] = float(np.nanmean(ndcg_at_k(found, split.judgements, K)))
    return row


def measure_ours(split: Split, job: Job, epochs: int | None, device: str) -> dict[str, Any]:
    """Fit, save, compress, index and search as a user does.

    Trained on `device`, all else on the processor. Seconds of encoding are those of the whole
    job, from a file to Parquet shards. A search reorders its first hits by the reranker where
    there is one; ``scan`` holds the figures without.
    """
    sizes: dict[str, Any] = (
        {"n_components": None, "code_size": job.bytes}
        if job.what == "codes"
        else {"n_components": job.bytes // 4, "code_size": None}
    )
    compressor = embedpress.Compressor(**sizes, metric=METRIC, seed=job.seed, device=device)
    if epochs is not None:
        compressor.set_params(epochs=epochs)
    if job.method == OURS_BRIEF:
        compressor.set_params(time_budget=BRIEF_SECONDS)
    started = time.monotonic()
    compressor.fit(split.base, queries=split.sample if job.method == OURS_ASKED else None)
    row: dict[str, Any] = {"form": OURS, "train_seconds": time.monotonic() - started}
    if device != CPU:
        row["device"] = device
    with tempfile.TemporaryDirectory() as folder:
        model = Path(folder, "model")
        save(compressor, model)
        scan = {"model_bytes": sum(file.stat().st_size for file in model.glob("*encoder.onnx"))}
        reranker = sum(file.stat().st_size for file in model.glob("rerank_*.onnx"))
        row["model_bytes"] = scan["model_bytes"] + reranker

        built: list[SearchIndex] = []

        def search(base: NDArray[np.float32]) -> tuple[NDArray[np.int64], float]:
            with tempfile.TemporaryDirectory(dir=folder) as part:
                vectors, stored, index = (Path(part, n) for n in ("base.npy", "stored", "index"))
                np.save(vectors, base)
                started = time.monotonic()
                embedpress.compress(vectors, model, stored, what=job.what)
                seconds = time.monotonic() - started
                embedpress.build_index(stored, model, index, factory="Flat")
                built.append(embedpress.open_index(index, model))
                return built[-1].search(split.queries, K).rows, seconds

        row |= scores(split, search)
        if reranker:
            # The same bases in the same order, searched again without it.
            again = iter(built)
            scan |= scores(
                split, lambda base: (next(again).search(split.queries, K, rerank=False).rows, None)
            )
            row["scan"] = scan
        return row


def measure_peer(split: Split, job: Job) -> dict[str, Any]:
    """One baseline at exactly so many bytes, trained on the base."""
    peer = baseline(job.method, job.bytes, dim=split.dim, metric=METRIC, seed=job.seed)
    peer.fit(split.base)

    def search(base: NDArray[np.float32]) -> tuple[NDArray[np.int64], float]:
        found = peer.search(base, split.queries, K)
        return found, peer.encode_seconds

    row = {
        "form": peer.name,
        "train_seconds": peer.train_seconds,
        "model_bytes": peer.model_bytes,
    }
    return row | scores(split, search)


def measure_gaussian(split: Split, job: Job) -> dict[str, Any]:
    """The channel of the same bytes, with the covariance of the base that passes through it."""
    queries = unit_rows(split.queries)

    def search(base: NDArray[np.float32]) -> tuple[NDArray[np.int64], None]:
        x = unit_rows(base)
        received = fit_channel(x).transmit(x, 8 * job.bytes, seed=job.seed)
        return nearest_in_blocks(queries, [received], K)[0], None

    return {"form": "Gaussian channel", **scores(split, search)}


def measure_exact(split: Split) -> dict[str, Any]:
    """The embeddings as they are."""

    def search(base: NDArray[np.float32]) -> tuple[NDArray[np.int64], None]:
        return true_neighbors(split.queries, base, K, metric=METRIC), None

    return {"form": "float32", **scores(split, search)}


def measure(split: Split, job: Job, epochs: int | None = None, device: str = CPU) -> dict[str, Any]:
    """The row of a job."""
    if job.method in ALL_OURS:
        row = measure_ours(split, job, epochs, device)
    elif job.method == "gaussian":
        row = measure_gaussian(split, job)
    elif job.method == "exact":
        row = measure_exact(split)
    else:
        row = measure_peer(split, job)
    return {**job._asdict(), **row}


def summary(
    rows: list[dict[str, Any]], dataset: str, method: str, base: str
) -> list[tuple[int, float, float]]:
    """(bytes, mean, standard deviation over seeds) of a method's codes."""
    chosen = [
        r for r in rows if (r["dataset"], r["method"], r["what"]) == (dataset, method, "codes")
    ]
    points = []
    for size in sorted({row["bytes"] for row in chosen}):
        values = [row[base] for row in chosen if row["bytes"] == size]
        spread = float(np.std(values, ddof=1)) if len(values) > 1 else 0.0
        points.append((size, float(np.mean(values)), spread))
    return points


def plot(rows: list[dict[str, Any]], path: Path) -> None:
    """recall@10 over bytes a vector, a panel a data set; solid unseen, dashed seen."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt
    from matplotlib.lines import Line2D

    datasets = [name for name in DIMS if any(row["dataset"] == name for row in rows)]
    figure, panels = plt.subplots(
        1, len(datasets), figsize=(1.2 + 4.4 * len(datasets), 5.2), dpi=150,
        sharey=True, squeeze=False, layout="constrained",
    )  # fmt: skip
    for axes, dataset in zip(panels[0], datasets, strict=True):
        for method, colour in COLOURS.items():
            front = {"lw": 2.4, "zorder": 3} if method in (OURS, OURS_ASKED) else {"lw": 1.3}
            for base, style in (("unseen", "-"), ("seen", "--")):
                points = summary(rows, dataset, method, base)
                if not points:
                    continue
                sizes, means, spreads = zip(*points, strict=True)
                marker = MARKERS[method] if base == "unseen" else ""
                axes.errorbar(
                    sizes, means, yerr=spreads if method in (OURS, OURS_ASKED) else None, fmt=style,
                    marker=marker, markersize=5, color=colour, capsize=2,
                    alpha=1.0 if base == "unseen" else 0.6, **front,
                )  # fmt: skip
        channel = summary(rows, dataset, "gaussian", "unseen")
        if channel:
            sizes, means, _ = zip(*channel, strict=True)
            axes.plot(sizes, means, "--", color="black", lw=0.9)
        axes.set_xscale("log", base=2)
        axes.set_xlim(min(BYTES) / 1.15, max(BYTES) * 1.15)
        axes.set_xticks(sorted(BYTES), [str(size) for size in sorted(BYTES)])
        axes.minorticks_off()
        axes.set_ylim(0, 1)
        axes.set_xlabel(f"bytes a vector (the embedding has {4 * DIMS[dataset]:,})")
        axes.set_title(TITLES[dataset], fontsize=11)
        axes.grid(alpha=0.3)
    panels[0][0].set_ylabel("recall@10 of the exact neighbours")
    measured = {row["method"] for row in rows}
    lines = [
        Line2D([], [], color=colour, marker=MARKERS[method], lw=1.8, label=NAMES[method])
        for method, colour in COLOURS.items()
        if method in measured
    ]
    if "gaussian" in measured:
        lines.append(Line2D([], [], color="black", ls="--", lw=0.9, label=NAMES["gaussian"]))
    lines += [
        Line2D([], [], color="#555555", ls="-", label="base unseen in training"),
        Line2D([], [], color="#555555", ls="--", alpha=0.6, label="base seen in training"),
    ]
    # Outside of the panels, which a constrained layout makes room for.
    figure.legend(
        handles=lines,
        loc="outside lower center",
        ncols=2 * len(datasets),
        fontsize=9,
        frameon=False,
    )
    figure.savefig(path)
    plt.close(figure)


def chosen(given: str, known: tuple[str, ...], option: str) -> tuple[str, ...]:
    """The names of a comma-separated option, all that are known where it is empty."""
    names = tuple(given.split(",")) if given else known
    for name in names:
        if name not in known:
            raise typer.BadParameter(f"{name!r} is none of {', '.join(known)}", param_hint=option)
    return names


def main(
    datasets: Annotated[str, typer.Option(help="Only these, as in wordnet,photos.")] = "",
    methods: Annotated[str, typer.Option(help="Only these, as in embedpress,opq.")] = "",
    sizes: Annotated[str, typer.Option(help="Only so many bytes a vector, as in 16,32.")] = "",
    seeds: Annotated[int, typer.Option(help="Trainings of ours at each size.")] = 3,
    device: Annotated[str, typer.Option(help="Where ours are trained: cpu, cuda, mps.")] = CPU,
    medquad_folder: Annotated[
        Path, typer.Option("--medquad", help="MedQuAD in the layout of BEIR.")
    ] = medquad.FOLDER,
    quick: Annotated[
        bool, typer.Option("--quick", help="Two minutes on a twentieth of WordNet, to see it run.")
    ] = False,
    output: Annotated[
        Path | None, typer.Option(help="Where the figures go; the plot lies beside them.")
    ] = None,
) -> None:
    """Measure and write results/equal_bytes.json and equal_bytes.png."""
    if quick:
        # Figures of a quick look must never mix with those of the README.
        output = output or ROOT / "data" / "quick.json"
        datasets, methods = "wordnet", methods or ",".join(QUICK_METHODS)
        sizes, seeds = sizes or "16,32", 1
    output = output or RESULTS / "equal_bytes.json"
    datasets_wanted = chosen(datasets, tuple(DIMS), "--datasets")
    methods_wanted = chosen(methods, METHODS, "--methods")
    sizes_wanted = {int(size) for size in sizes.split(",")} if sizes else None
    if "medquad" in datasets_wanted and not medquad_folder.is_dir():
        print(f"medquad is skipped: no folder {medquad_folder}; give it with --medquad FOLDER")
        datasets_wanted = tuple(name for name in datasets_wanted if name != "medquad")

    @cache
    def load(dataset: str) -> Split:
        if dataset == "wordnet":
            return wordnet.load_split(2_900) if quick else wordnet.load_split()
        return medquad.load_split(medquad_folder) if dataset == "medquad" else photos.load_split()

    output.parent.mkdir(parents=True, exist_ok=True)
    rows: list[dict[str, Any]] = json.loads(output.read_text()) if output.is_file() else []
    done = {tuple(row[name] for name in Job._fields) for row in rows}
    for job in plan(seeds):
        wanted = job.dataset in datasets_wanted and job.method in methods_wanted
        if not wanted or job in done or (sizes_wanted and job.bytes not in sizes_wanted):
            continue
        row = measure(load(job.dataset), job, epochs=2 if quick else None, device=device)
        rows.append(row)
        write_atomic(output, json.dumps(rows, indent=1) + "\n")
        print(
            f"{job.dataset:<8} {job.method:<11} {job.what:<10} {job.bytes:>5} bytes  "
            f"seed {job.seed}  seen {row['seen']:.4f}  unseen {row['unseen']:.4f}  "
            f"train {row.get('train_seconds', 0):.0f} s",
            flush=True,
        )
    plot(rows, output.with_suffix(".png"))


if __name__ == "__main__":
    typer.run(main)
