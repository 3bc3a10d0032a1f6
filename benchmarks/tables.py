"""The README's tables, from the figures that the benchmarks wrote.

Prints them as Markdown, and writes ``benchmarks/EQUAL_BYTES.md``: what equal_bytes.py measured at
every size, of which the README shows three.

Run: python benchmarks/tables.py
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from insight_tables import (
    cluster_lines,
    drift_lines,
    index_lines,
    nested_lines,
    report_lines,
)

RESULTS = Path(__file__).parent / "results"
OURS = "embedpress"
OURS_ASKED = "embedpress-asked"
OURS_BRIEF = "embedpress-brief"
CPU = "cpu"
ALL_OURS = (OURS, OURS_ASKED, OURS_BRIEF)
NAMES = {
    "embedpress": "embedpress",
    "embedpress-asked": "embedpress, given sample queries",
    "embedpress-brief": "embedpress, trained for two minutes",
    "opq": "OPQ",
    "rq": "residual quantizer",
    "prq": "product of residual quantizers",
    "lsq": "local search quantizer",
    "rabitq": "RaBitQ",
    "pca-sq": "PCA + scalar quantizer",
    "binary": "a bit a component",
    "int8": "a byte a dimension",
    "pca": "PCA",
    "gaussian": "Gaussian channel",
    "exact": "the embeddings",
}
TITLES = {
    "wordnet": "WordNet glosses, MiniLM",
    "medquad": "Medical questions to answers, MiniLM",
    "photos": "CIFAR-10 photos, ResNet-50",
}
KINDS = {"codes": ("codes", "embeddings"), "latents as floats": ("latents",)}
"""What is in a table, by its title."""
MAIN = (16, 32, 64)
"""Bytes a vector that say most: measured first, and shown in the README."""
PAGE = Path(__file__).parent / "EQUAL_BYTES.md"
PAGE_HEAD = """\
# recall@10 at equal bytes, all sizes

Measured by `equal_bytes.py` and written by `tables.py`; the README says what the columns are.
Several trainings of ours are a mean with its deviation. Seconds and rates are those of two shared
processor cores; where a training was made on a GPU, those of an earlier one on the processor or
none.
"By the reranker alone": measured before the scan's score had a share in the order of the first
hits, and not again since.
"""
SCALES = {"60 thousand": 60_000, "1 million": 10**6, "100 million": 10**8}
NONE = "–"
SCAN = "-scan"
"""Behind the name of a method of ours: its codes without the reranker."""

Rows = list[dict[str, Any]]


def recall_table(rows: Rows) -> list[str]:
    """A line a method and size, most bytes last; our own with its spread over seeds.

    The last columns are the bytes of a vector with its share of what is stored once.
    """
    judged = any("ndcg" in row for row in rows)
    head = ["bytes", "method", "recall@10", "unseen base", *(["nDCG@10"] if judged else [])]
    head += ["training", "vectors / s", "model"]
    head += [f"bytes a vector of {name}" for name in SCALES]
    lines = ["| " + " | ".join(head) + " |", "| " + " | ".join("---" for _ in head) + " |"]

    def place(key: tuple[int, str]) -> tuple[int, bool, float]:
        # The channel is no method: it stands below those of its size.
        return key[0], key[1] == "gaussian", -float(np.mean([r["unseen"] for r in groups[key]]))

    groups: dict[tuple[int, str], Rows] = {}
    alone = [
        {**row, **row["scan"], "method": row["method"] + SCAN} for row in rows if "scan" in row
    ]
    for row in rows + alone:
        groups.setdefault((row["bytes"], row["method"]), []).append(row)
    for size, method in sorted(groups, key=place):
        cells = method_cells(groups[size, method], judged=judged)
        lines.append("| " + " | ".join([f"{size:,}", *cells]) + " |")
    return lines


def method_cells(runs: Rows, *, judged: bool) -> list[str]:
    """All cells of a line but the first: means over the seeds, recall with its deviation.

    Seconds and speeds are the processor's: runs trained elsewhere are left out of them, but for
    `timed`, which holds those of the same training there.
    """
    timed = [
        run.get("timed", run) for run in runs if "timed" in run or run.get("device", CPU) == CPU
    ]

    def mean(key: str, form: str, *, spread: bool = False, among: Rows = runs) -> str:
        values = [run[key] for run in among if key in run]
        if not values:
            return NONE
        off = f" ± {np.std(values, ddof=1):.3f}" if spread and len(values) > 1 else ""
        return form.format(np.mean(values)) + off

    method, size = runs[0]["method"], runs[0]["bytes"]
    alone = method.endswith(SCAN)
    name = NAMES[method.removesuffix(SCAN)]
    name = f"{name}, scan alone" if alone else f"**{name}**" if method in ALL_OURS else name
    if not alone and any(run.get("reranker_weight") == 1 for run in runs):
        name += ", by the reranker alone"
    if len(runs) > 1:
        name += f", {len(runs)} seeds"
    model = [run["model_bytes"] for run in runs if "model_bytes" in run]
    return [
        name,
        mean("seen", "{:.3f}", spread=True),
        mean("unseen", "{:.3f}", spread=True),
        *([mean("ndcg", "{:.3f}", spread=True)] if judged else []),
        mean("train_seconds", "{:,.0f} s", among=timed),
        mean("encode_per_second", "{:,.0f}", among=timed),
        f"{np.mean(model) / 1e6:.1f} MB" if model else NONE,
        *(f"{size + np.mean(model) / n:,.1f}" if model else NONE for n in SCALES.values()),
    ]


def speed_lines(speed: dict[str, Any]) -> list[str]:
    """Encoding speed, sizes and memory, as a table."""
    one, job = speed["one_vector"], speed["job"]
    encoder = speed["bytes"]["code_encoder.onnx"]
    rows = [
        ("embeddings to 32-byte codes, ONNX Runtime", f"{speed['codes_per_second']:,.0f} / s"),
        ("embeddings to 64 latents, ONNX Runtime", f"{speed['latents_per_second']:,.0f} / s"),
        ("the same vectors to OPQ32 codes, FAISS", f"{speed['opq32_per_second']:,.0f} / s"),
        ("the same vectors to RQ32 codes, FAISS", f"{speed['rq32_per_second']:,.0f} / s"),
        ("one vector, median / 99th percentile", f"{one['p50_us']:.0f} / {one['p99_us']:.0f} µs"),
        ("`embedpress compress`, Parquet to Parquet", f"{speed['job_rows_per_second']:,.0f} / s"),
        ("its peak memory", f"{job['peak_bytes'] / 2**20:.0f} MiB"),
        ("import to first code, no torch", f"{speed['first_code_seconds']:.2f} s"),
        (
            f"{job['rows']:,} glosses: embeddings, codes (with texts and ids)",
            f"{speed['embeddings_bytes'] / 1e6:.0f} MB, {speed['codes_bytes'] / 1e6:.0f} MB",
        ),
        ("`code_encoder.onnx`", f"{encoder / 1e6:.1f} MB"),
    ]
    head = [f"| {speed['threads']} threads | |", "| --- | --- |"]
    return head + [f"| {what} | {figure} |" for what, figure in rows]


def scale_lines(scale: dict[str, Any]) -> list[str]:
    """Compression of many vectors from Parquet to Parquet, as a table."""
    head = [
        "| vectors | seconds | vectors / s | encoder alone / s | vectors / s of processor time |"
        " outside the encoder | peak memory | bytes a vector on disk |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    lines = []
    for size in scale["sizes"]:
        job, rows = size["compress"], size["rows"]
        cells = [
            f"{rows:,}",
            f"{job['seconds']:,.0f}",
            f"{job['rows_per_second']:,.0f}",
            f"{size['encoder_alone_per_second']:,.0f}",
            f"{rows / job['cpu_seconds']:,.0f}",
            f"{100 * job['outside_encoder_cpu']:.0f} %",
            f"{job['peak_bytes'] / 2**20:.0f} MiB",
            f"{job['bytes_per_vector']:.1f}",
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return head + lines


def with_ours(indexes: dict[str, Any], scale: dict[str, Any]) -> dict[str, Any]:
    """Figures of indexes by size, with ours of ``scale.py`` where they have none."""
    built = {str(size["rows"]): size["index"] for size in scale["sizes"] if "index" in size}
    return {
        rows: {**({"embedpress": built[rows]} if rows in built else {}), **found}
        for rows, found in indexes.items()
    }


def recall_tables(rows: Rows) -> list[str]:
    """Lines of a table a data set and kind of row, each with its title."""
    lines = []
    for dataset in dict.fromkeys(row["dataset"] for row in rows):
        for title, kinds in KINDS.items():
            found = [r for r in rows if r["dataset"] == dataset and r["what"] in kinds]
            if found:
                lines += ["", f"## {TITLES[dataset]}: {title}", "", *recall_table(found)]
    return lines


def main() -> None:
    """Print the README's tables, and write the page of all sizes."""
    rows = json.loads((RESULTS / "equal_bytes.json").read_text())
    PAGE.write_text("\n".join([PAGE_HEAD.rstrip(), *recall_tables(rows)]) + "\n")
    shown = [row for row in rows if row["what"] != "codes" or row["bytes"] in MAIN]
    print(*recall_tables(shown), sep="\n")
    print("\nspeed\n", *speed_lines(json.loads((RESULTS / "speed.json").read_text())), sep="\n")
    tables = {
        "scale": scale_lines,
        "scale_index": index_lines,
        "nested": nested_lines,
        "clusters": cluster_lines,
        "drift": drift_lines,
        "report": report_lines,
    }
    results = {
        name: json.loads((RESULTS / f"{name}.json").read_text())
        for name in tables
        if (RESULTS / f"{name}.json").is_file()
    }
    if {"scale", "scale_index"} <= results.keys():
        results["scale_index"] = with_ours(results["scale_index"], results["scale"])
    for name, found in results.items():
        print(f"\n{name}\n", *tables[name](found), sep="\n")


if __name__ == "__main__":
    main()
