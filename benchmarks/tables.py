"""The README's tables, from the figures that the benchmarks wrote.

Run: python benchmarks/tables.py
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

RESULTS = Path(__file__).parent / "results"
NAMES = {
    "embedpress": "**embedpress**",
    "opq": "OPQ",
    "rabitq": "RaBitQ",
    "pca-sq": "PCA + scalar quantizer",
    "pca": "PCA",
}


def recall_table(rows: list[dict[str, Any]], what: str) -> list[str]:
    """A line a method and size, most bytes last; our own with its spread over seeds."""
    lines = [
        "| bytes | method | recall@10 | base unseen in training | training |",
        "| --- | --- | --- | --- | --- |",
    ]
    chosen = [row for row in rows if row["what"] == what]
    for size in sorted({row["bytes"] for row in chosen}):
        found = []
        for method, name in NAMES.items():
            runs = [r for r in chosen if (r["method"], r["bytes"]) == (method, size)]
            if runs:
                seen, unseen, seconds = (
                    np.array([run[key] for run in runs])
                    for key in ("seen", "unseen", "train_seconds")
                )
                spread = f" ± {seen.std():.3f} ({len(runs)} seeds)" if len(runs) > 1 else ""
                line = (
                    f"| {size} | {name} | {seen.mean():.3f}{spread} | {unseen.mean():.3f} | "
                    f"{seconds.mean():.0f} s |"
                )
                found.append((float(unseen.mean()), line))
        lines += [line for _, line in sorted(found, reverse=True)]
    return lines


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


def main() -> None:
    """Print the tables as Markdown."""
    rows = json.loads((RESULTS / "recall.json").read_text())
    for what in ("codes", "latents"):
        print(f"\n{what}\n", *recall_table(rows, what), sep="\n")
    print("\nspeed\n", *speed_lines(json.loads((RESULTS / "speed.json").read_text())), sep="\n")


if __name__ == "__main__":
    main()
