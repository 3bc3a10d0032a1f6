"""More tables of the README, from the figures of their benchmarks."""

from __future__ import annotations

from typing import Any

import numpy as np

Rows = list[dict[str, Any]]


def cluster_lines(rows: Rows) -> list[str]:
    """A line a data set: NMI of all forms, the loss over the seeds, and how much faster."""
    lines = [
        "| data | vectors | clusters | NMI, embeddings | NMI, 32 latents | lost, by seed | "
        "NMI, PCA 32 | k-means |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for dataset in dict.fromkeys(row["dataset"] for row in rows):
        own = [row for row in rows if row["dataset"] == dataset]

        def mean(form: str, own: Rows = own) -> float:
            return float(np.mean([np.mean(row[form]["nmi"]) for row in own]))

        losses = [np.mean(r["embeddings"]["nmi"]) - np.mean(r["latents"]["nmi"]) for r in own]
        faster = [
            np.median(r["embeddings"]["seconds"]) / np.median(r["latents"]["seconds"]) for r in own
        ]
        cells = [
            dataset,
            f"{own[0]['rows']:,} x {own[0]['dim']:,}",
            f"{own[0]['clusters']}",
            f"{mean('embeddings'):.3f}",
            f"{mean('latents'):.3f}",
            ", ".join(f"{loss:+.3f}" for loss in losses),
            f"{mean('pca'):.3f}",
            f"{min(faster):.1f} to {max(faster):.1f} times as fast",
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return lines


def drift_lines(result: dict[str, Any]) -> list[str]:
    """A line a kind of vectors: how often they were called drifted."""
    lines = [
        f"| {result['rows']:,} vectors that are | draws | called drifted | shift of the errors | "
        "recall@10 |",
        "| --- | --- | --- | --- | --- |",
    ]
    lines += [
        f"| {row['name']} | {row['draws']} | {row['alarms']:.1%} | {row['shift']:.3f} | "
        f"{row['recall']:.3f} |"
        for row in result["kinds"]
    ]
    return lines


def report_lines(result: dict[str, Any]) -> list[str]:
    """Recall by depth and nDCG of all that was searched, then the losses of the index."""
    depths = sorted({one["k"] for one in result["depths"]})
    head = ["stored as", "bytes", *(f"recall@{k}" for k in depths), "nDCG@10", "MRR@10"]
    lines = ["| " + " | ".join(head) + " |", "| " + " | ".join("---" for _ in head) + " |"]
    for judged in result["relevance"]:
        key = (judged["name"], judged["bytes"])
        found = {o["k"]: o for o in result["depths"] if (o["name"], o["bytes"]) == key}
        cells = [judged["name"], f"{judged['bytes']:,}"]
        cells += [f"{found[k]['recall']:.3f}" for k in depths]
        cells += [f"{judged['ndcg']:.3f}", f"{judged['mrr']:.3f}"]
        lines.append("| " + " | ".join(cells) + " |")
    index = result["index"]
    lines += ["", f"A scan of all {index['form']}: recall@10 {index['scan']:.3f}."]
    lines += [
        f"{index['factory']}, {p['name']}: recall@10 {p['recall']:.3f} ({p['difference']:+.3f}), "
        f"{p['microseconds']:.0f} µs"
        for p in index["points"]
    ]
    return lines


def nested_lines(rows: Rows) -> list[str]:
    """recall@10 of latents by their size: nested in one compressor, alone, by PCA."""
    lines = [
        "| floats | bytes | nested in one compressor | a compressor of that size | PCA |",
        "| --- | --- | --- | --- | --- |",
    ]
    for size in sorted({row["n_components"] for row in rows}):
        cells = [str(size), str(4 * size)]
        for method in ("nested", "alone", "pca"):
            found = [row for row in rows if (row["method"], row["n_components"]) == (method, size)]
            pairs = (f"{np.mean([row[base] for row in found]):.3f}" for base in ("seen", "unseen"))
            cells.append(" / ".join(pairs) if found else "–")
        lines.append("| " + " | ".join(cells) + " |")
    return lines


def index_lines(result: dict[str, Any]) -> list[str]:
    """Indexes of many vectors, ours and FAISS's own, each asked on one thread."""
    lines = [
        "| vectors | index | recall@10 | build | in memory | queries / s | median / 99th |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for rows, found in result.items():
        for name, index in found.items():
            label = f"**{name}**" if name == "embedpress" else name
            cells = [
                f"{int(rows):,}",
                f"{label}, {index['factory']}",
                f"{index['recall']:.3f}",
                f"{index['build_seconds']:,.0f} s",
                f"{index['memory_bytes'] / 2**20:,.0f} MiB",
                f"{index['queries_per_second']:,.0f}",
                f"{index['p50_ms']:.2f} / {index['p99_ms']:.2f} ms",
            ]
            lines.append("| " + " | ".join(cells) + " |")
    return lines
