"""The model card of a compressor folder: what it is and what was measured."""

from __future__ import annotations

from typing import Any


def model_card(config: dict[str, Any], metrics: dict[str, Any]) -> str:
    """README.md of a compressor folder, with nothing in it that was not measured.

    Parameters
    ----------
    config : dict
        Of config.json.
    metrics : dict
        Of metrics.json; see :func:`embedpress.autoencoder.judge.figures`.

    Returns
    -------
    str
        Markdown with a YAML head as model hubs read it.
    """
    embedding_bytes = 4 * config["dim"]
    lines = [
        "---",
        "library_name: embedpress",
        "tags: [embeddings, vector-search, compression, onnx]",
        "---",
        "",
        "# A compressor of embeddings",
        "",
        f"Takes embeddings of {config['dim']} dimensions ({embedding_bytes:,} bytes as float32), "
        f"compared by {config['metric']}.",
        "",
        "| form | size | smaller by | recall@10, held-out queries | its start, same size |",
        "| --- | --- | --- | --- | --- |",
    ]
    sizes = {
        "latents": (config["n_components"], 4, "floats"),
        "codes": (config["code_size"], 1, "bytes"),
    }
    kept = []
    for name, (size, width, unit) in sizes.items():
        if size is None:
            continue
        held = metrics["held_out"].get(name)
        trained = f"{held['trained']:.3f}" if held else "not measured"
        start = f"{held['start_method']} {held['start']:.3f}" if held else "not measured"
        if held and held["fell_back"]:
            method = held["start_method"]
            kept += ["", f"Training of {name} did not beat {method}: the start was kept."]
        ratio = embedding_bytes / (size * width)
        lines.append(f"| {name} | {size} {unit} | {ratio:.1f}x | {trained} | {start} |")
    lines += [
        *kept,
        "",
        "Held-out queries took no part in training; their base is a sample of the vectors "
        "that did. Training starts at PCA for latents, for codes at OPQ (Ge et al. 2013, in its "
        "parametric form) or, where codebooks share a slice, at a product-residual quantizer "
        "(PRQ).",
        "",
        *_curve(config, metrics),
        "```python",
        "import embedpress",
        "",
        'compressor = embedpress.load("this-folder")  # ONNX Runtime, no torch',
        "codes = compressor.encode(embeddings)",
        "```",
        "",
        f"Fingerprint `{config['fingerprint']}`, embedpress {config['embedpress']}.",
        "",
    ]
    if config["source"]:
        lines += ["## Trained on", ""]
        lines += [f"- {key}: {value}" for key, value in config["source"].items()]
        lines.append("")
    return "\n".join(lines)


def _curve(config: dict[str, Any], metrics: dict[str, Any]) -> list[str]:
    """How the code size was found, where it was."""
    if not metrics["sizes"]:
        return []
    size, target = config["code_size"], metrics["target_recall"]
    lines = [
        f"{size} bytes is the smallest size that reaches recall@10 {target:g} on these queries."
        if metrics["target_reached"]
        else f"No size reaches recall@10 {target:g} on these queries: {size} bytes is the largest.",
        "",
        "| bytes | start | trained |",
        "| --- | --- | --- |",
    ]
    for tried in metrics["sizes"]:
        trained = "" if tried["trained"] is None else f"{tried['trained']:.3f}"
        lines.append(f"| {tried['code_size']} | {tried['start']:.3f} | {trained} |")
    return [*lines, ""]
