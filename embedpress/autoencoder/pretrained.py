"""A trained compressor as a folder: save it, load it back to train on."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load as tensors_from_bytes
from safetensors.torch import save as tensors_to_bytes

from embedpress import __version__
from embedpress.autoencoder.card import model_card
from embedpress.autoencoder.estimator import Compressor
from embedpress.autoencoder.network import InputScale, ResidualMap, Tower
from embedpress.autoencoder.quantizer import CODEBOOK_SIZE, AdditiveQuantizer
from embedpress.errors import FormatError
from embedpress.onnx.export import write_graphs
from embedpress.onnx.runtime import FORMAT_VERSION, read_config
from embedpress.vectors.files import write_atomic

WEIGHTS_LIMIT = 4 << 30
"""Bytes of a model.safetensors that are read."""


def save(
    compressor: Compressor, folder: str | Path, *, source: dict[str, Any] | None = None
) -> dict[str, Any]:
    """Write a compressor folder: weights, configuration, ONNX graphs, card and figures.

    Parameters
    ----------
    compressor : Compressor
        Fitted.
    folder : str or Path
        Made where it does not exist; a compressor that is there is replaced.
    source : dict, optional
        What the training vectors were (extractor, counts), for the card.

    Returns
    -------
    dict
        The configuration written to config.json.

    Raises
    ------
    ExportError
        A graph gives other results than the trained network.
    """
    out = Path(folder)
    out.mkdir(parents=True, exist_ok=True)
    weights = tensors_to_bytes(_tensors(compressor))
    config = _config(compressor, source or {})
    stable = json.dumps(config, sort_keys=True).encode()
    config["fingerprint"] = hashlib.sha256(stable + weights).hexdigest()
    metrics = {"held_out": held_out_recall(compressor), "history": compressor.history_}
    # config.json goes last: a folder without one is not yet a compressor.
    (out / "config.json").unlink(missing_ok=True)
    write_atomic(out / "model.safetensors", weights)
    write_graphs(compressor, config, out)
    write_atomic(out / "metrics.json", json.dumps(metrics, indent=2) + "\n")
    write_atomic(out / "README.md", model_card(config, metrics))
    write_atomic(out / "config.json", json.dumps(config, indent=2) + "\n")
    return config


def load_compressor(folder: str | Path) -> Compressor:
    """Load a compressor folder as a fitted estimator (with torch), to judge or train on.

    Raises
    ------
    UsageError, FormatError
        No such folder, or not a whole compressor.
    """
    path = Path(folder)
    config = read_config(path)
    file = path / "model.safetensors"
    try:
        if file.stat().st_size > WEIGHTS_LIMIT:
            raise FormatError(f"{file} is larger than {WEIGHTS_LIMIT} bytes")
        raw = file.read_bytes()
        tensors = tensors_from_bytes(raw)
    except FormatError:
        raise
    except Exception as error:  # safetensors raises its own and OSError alike
        raise FormatError(f"{file} cannot be read: {error}") from None
    stable = {k: v for k, v in config.items() if k != "fingerprint"}
    digest = hashlib.sha256(json.dumps(stable, sort_keys=True).encode() + raw).hexdigest()
    if digest != config["fingerprint"]:
        raise FormatError(
            f"{path}: model.safetensors or config.json was changed since it was saved"
        )
    compressor = Compressor(**config["parameters"])
    compressor.n_features_in_ = config["dim"]
    compressor.history_ = {}
    compressor.scale_ = InputScale(config["metric"], float(tensors["scale"]))
    compressor.latent_tower_ = _tower(tensors, "latents", compressor)
    compressor.code_tower_ = _tower(tensors, "codes", compressor)
    return compressor


def held_out_recall(compressor: Compressor) -> dict[str, dict[str, float]]:
    """recall@10 on held-out queries, at the linear start and as trained, for each tower."""
    figures: dict[str, dict[str, float]] = {}
    for name, records in compressor.history_.items():
        judged = [record["recall"] for record in records if "recall" in record]
        if judged:
            figures[name] = {"linear_start": judged[0], "trained": max(judged)}
    return figures


def _config(compressor: Compressor, source: dict[str, Any]) -> dict[str, Any]:
    codes = compressor.code_tower_
    stages = groups = width = None
    if codes is not None and codes.quantizer is not None:
        stages, groups, _, slice_width = codes.quantizer.codebooks.shape
        width = groups * slice_width
    parameters = compressor.get_params()
    parameters["hidden_sizes"] = list(parameters["hidden_sizes"])
    return {
        "kind": "compressor",
        "format_version": FORMAT_VERSION,
        "embedpress": __version__,
        "dim": compressor.n_features_in_,
        "metric": compressor.metric,
        "n_components": compressor.n_components,
        "code_size": compressor.code_size,
        "stages": stages,
        "groups": groups,
        "code_width": width,
        "parameters": parameters,
        "source": source,
    }


def _tensors(compressor: Compressor) -> dict[str, torch.Tensor]:
    tensors = {"scale": compressor.scale_.scale}
    towers = (("latents", compressor.latent_tower_), ("codes", compressor.code_tower_))
    for prefix, tower in towers:
        if tower is not None:
            for name, value in tower.state_dict().items():
                tensors[f"{prefix}.{name}"] = value.detach().cpu().contiguous()
    return tensors


def _tower(tensors: dict[str, torch.Tensor], prefix: str, compressor: Compressor) -> Tower | None:
    state = {
        name.removeprefix(prefix + "."): value
        for name, value in tensors.items()
        if name.startswith(prefix + ".")
    }
    if not state:
        return None
    try:
        networks = [
            ResidualMap(
                torch.zeros_like(state[f"{part}.linear.weight"]),
                torch.zeros_like(state[f"{part}.linear.bias"]),
                hidden_sizes=compressor.hidden_sizes,
                dropout=compressor.dropout,
                batch_norm=compressor.batch_norm,
            )
            for part in ("encoder", "query_encoder", "decoder")
        ]
        books = state.get("quantizer.codebooks")
        if books is not None and (books.ndim != 4 or books.shape[2] != CODEBOOK_SIZE):
            raise ValueError(f"codebooks of shape {tuple(books.shape)}")
        tower = Tower(*networks, None if books is None else AdditiveQuantizer(books))
        tower.load_state_dict(state)
    except (KeyError, RuntimeError, ValueError) as error:
        first = str(error).splitlines()[0]
        raise FormatError(f"model.safetensors does not hold this compressor: {first}") from None
    return tower.eval()
