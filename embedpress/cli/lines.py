"""Results as lines for a person, where several verbs show the same."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from embedpress.console import show


def show_vectors(manifest: Any, out: Path, seconds: float, as_json: bool) -> None:
    """Show what a job of vectors wrote, or the share of it that is done."""
    from embedpress.vectors.manifest import MANIFEST

    unit = "bytes" if manifest.kind == "codes" else "floats"
    finished = (out / MANIFEST).is_file()
    text = f"{manifest.count:,} {manifest.kind} of {manifest.dim} {unit} in {out}, {seconds:.1f} s"
    if not finished:
        text += "; the other shares are still to come"
    noted = [f"{value:,} {name}" for name, value in manifest.counters.items() if value]
    if noted:
        text += f" ({', '.join(noted)})"
    result = {
        "output": str(out),
        "kind": manifest.kind,
        "dim": manifest.dim,
        "count": manifest.count,
        "metric": manifest.metric,
        "shards": len(manifest.shards),
        "counters": dict(manifest.counters),
        "finished": finished,
        "seconds": seconds,
    }
    show(result, as_json=as_json, text=text)


def figure_lines(found: dict[str, Any]) -> list[str]:
    """What training achieved: a line a tower, and the sizes among which one was found."""
    lines = []
    stored = {"latents": 4 * (found["n_components"] or 0), "codes": found["code_size"]}
    for name, held in found["held_out"].items():
        if name == "reranker":
            lines.append(
                f"  codes, first hits reordered: recall@10 {held['trained']:.3f}; "
                f"in the order of the scan: {held['start']:.3f}"
            )
            continue
        method = held["start_method"]
        lines.append(
            f"  {name}: recall@10 {held['trained']:.3f} on held-out queries; "
            f"{method} at the same {stored[name]} bytes: {held['start']:.3f}"
        )
        if held["fell_back"]:
            lines.append(f"    training did not beat {method}: the start was kept")
    for nested in found["nested"]:
        lines.append(
            f"  its first {nested['n_components']} floats: recall@10 {nested['trained']:.3f}; "
            f"PCA at the same {4 * nested['n_components']} bytes: {nested['start']:.3f}"
        )
    if found["sizes"]:
        lines.append("  bytes  start  trained")
    for size in found["sizes"]:
        trained = "-" if size["trained"] is None else f"{size['trained']:.3f}"
        chosen = "  <- chosen" if size["code_size"] == found["code_size"] else ""
        lines.append(f"  {size['code_size']:>5}  {size['start']:.3f}  {trained:>7}{chosen}")
    if found["target_reached"] is False:
        lines.append(f"  no size reaches recall@10 {found['target_recall']:g}: this is the largest")
    return lines


def shortened(record: dict[str, Any], width: int = 100) -> str:
    """A row as a person knows it: its text, else its path, else its id."""
    words = str(record.get("text") or record.get("path") or record["id"])
    words = " ".join(words.split())
    label = f" [{record['label']}]" if record.get("label") is not None else ""
    return (words if len(words) <= width else words[: width - 1] + "…") + label
