"""The model card of a compressor folder: what it is and what was measured."""

from __future__ import annotations

import json
from typing import Any

TAGS = ["embeddings", "vector-search", "compression", "quantization", "onnx", "faiss"]
HERE = "this-folder"
"""What the card calls a compressor without a name of its own."""


def model_card(
    config: dict[str, Any],
    metrics: dict[str, Any],
    *,
    name: str | None = None,
    license: str | None = None,
) -> str:
    """README.md of a compressor folder, with nothing in it that was not measured.

    Parameters
    ----------
    config : dict
        Of config.json.
    metrics : dict
        Of metrics.json; see :func:`embedpress.autoencoder.judge.figures`.
    name : str, optional
        The hub id under which it will be found.
    license : str, optional
        As the hub abbreviates it.

    Returns
    -------
    str
        Markdown with a YAML head as model hubs read it.
    """
    embedding_bytes = 4 * config["dim"]
    lines = [
        *_head(config, metrics, license),
        "",
        "# A compressor of embeddings",
        "",
        f"Takes embeddings of {config['dim']} dimensions ({embedding_bytes:,} bytes as float32), "
        f"compared by {config['metric']}.",
        "",
        "| form | size | smaller by | recall@10, held-out queries | its start, same size |",
        "| --- | --- | --- | --- | --- |",
    ]
    kept = []
    for form, (size, width, unit) in _forms(config).items():
        held = metrics["held_out"].get(form)
        trained = f"{held['trained']:.3f}" if held else "not measured"
        start = f"{held['start_method']} {held['start']:.3f}" if held else "not measured"
        if held and held["fell_back"]:
            method = held["start_method"]
            kept += ["", f"Training of {form} did not beat {method}: the start was kept."]
        ratio = embedding_bytes / (size * width)
        lines.append(f"| {form} | {size} {unit} | {ratio:.1f}x | {trained} | {start} |")
        reordered = metrics["held_out"].get("reranker") if form == "codes" else None
        if reordered:
            trained, start = f"{reordered['trained']:.3f}", f"{reordered['start_method']} alone"
            lines.append(
                f"| the same, first hits reranked | {size} {unit} | {ratio:.1f}x | {trained} | "
                f"{start} {reordered['start']:.3f} |"
            )
        for nested in metrics.get("nested", []) if form == "latents" else []:
            size, start = nested["n_components"], f"PCA {nested['start']:.3f}"
            ratio, trained = embedding_bytes / (4 * size), f"{nested['trained']:.3f}"
            lines.append(
                f"| of them the first | {size} floats | {ratio:.1f}x | {trained} | {start} |"
            )
    lines += [
        *kept,
        "",
        "Held-out queries took no part in training; their base is a sample of the vectors "
        "that did. Training starts at PCA for latents, for codes at OPQ (Ge et al. 2013, in its "
        "parametric form) or, where codebooks share a slice, at a product-residual quantizer "
        "(PRQ).",
        "",
        *_curve(config, metrics),
        *_usage(config, name or HERE),
        f"Fingerprint `{config['fingerprint']}`, embedpress {config['embedpress']}.",
        "",
    ]
    if config["source"]:
        lines += ["## Trained on", ""]
        lines += [f"- {key}: {value}" for key, value in config["source"].items()]
        lines.append("")
    return "\n".join(lines)


def _head(config: dict[str, Any], metrics: dict[str, Any], license: str | None) -> list[str]:
    """The YAML; its strings are written as JSON, which YAML contains."""
    lines = ["---", "library_name: embedpress", f"tags: {json.dumps(TAGS)}"]
    if license is not None:
        lines.append(f"license: {json.dumps(license)}")
    source = config["source"]
    # A revision tells a model of the hub from a folder on somebody's disk.
    if source.get("extractor") and source.get("extractor revision"):
        lines.append(f"base_model: {json.dumps(source['extractor'])}")
    measured = [
        f'    - {{type: recall_at_10, name: "recall@10, {form} of {size} {unit}", '
        f"value: {metrics['held_out'][form]['trained']:.4f}}}"
        for form, (size, _, unit) in _forms(config).items()
        if form in metrics["held_out"]
    ]
    if measured:
        sizes = "-".join(f"{size}-{unit}" for size, _, unit in _forms(config).values())
        lines += [
            "model-index:",
            f"- name: embedpress-{config['dim']}-to-{sizes}",
            "  results:",
            "  - task: {type: feature-extraction, name: nearest-neighbour search}",
            '    dataset: {type: held-out, name: "held-out queries, base of training vectors"}',
            "    metrics:",
            *measured,
        ]
    return [*lines, "---"]


def _forms(config: dict[str, Any]) -> dict[str, tuple[int, int, str]]:
    """What it compresses to: size, bytes of one, unit."""
    forms = {
        "latents": (config["n_components"], 4, "floats"),
        "codes": (config["code_size"], 1, "bytes"),
    }
    return {name: form for name, form in forms.items() if form[0] is not None}


def _usage(config: dict[str, Any], name: str) -> list[str]:
    """How to load it, and what it then does."""
    verb, result = ("encode", "codes") if config["code_size"] else ("transform", "latents")
    call = f"{result} = compressor.{verb}(embeddings)  # float32 (n, {config['dim']})"
    return [
        "With ONNX Runtime alone (`pip install embedpress`"
        + (", `embedpress[hub]` to download it):" if name != HERE else "):"),
        "",
        "```python",
        "import embedpress",
        "",
        f"compressor = embedpress.load({json.dumps(name)})",
        call,
        "```",
        "",
        "With torch, to train on (`pip install 'embedpress[train]'`):",
        "",
        "```python",
        f"compressor = embedpress.Compressor.from_pretrained({json.dumps(name)})",
        "```",
        "",
    ]


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
