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
        Of metrics.json: ``held_out`` figures a tower.

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
        "| form | size | smaller by | recall@10, held-out queries | at its linear start |",
        "| --- | --- | --- | --- | --- |",
    ]
    sizes = {
        "latents": (config["n_components"], 4, "floats"),
        "codes": (config["code_size"], 1, "bytes"),
    }
    for name, (size, width, unit) in sizes.items():
        if size is None:
            continue
        held = metrics["held_out"].get(name)
        trained = f"{held['trained']:.3f}" if held else "not measured"
        start = f"{held['linear_start']:.3f}" if held else "not measured"
        ratio = embedding_bytes / (size * width)
        lines.append(f"| {name} | {size} {unit} | {ratio:.1f}x | {trained} | {start} |")
    lines += [
        "",
        "Held-out queries took no part in training; their base is a sample of the vectors "
        "that did. The linear start is PCA for latents, a balanced rotation with k-means "
        "codebooks for codes.",
        "",
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
