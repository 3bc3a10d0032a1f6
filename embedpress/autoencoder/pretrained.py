"""A trained compressor as a folder: save it, load it back to train on."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load as tensors_from_bytes
from safetensors.torch import save as tensors_to_bytes
from sklearn.utils.validation import check_is_fitted

from embedpress import __version__
from embedpress.autoencoder.card import model_card
from embedpress.autoencoder.estimator import Compressor
from embedpress.autoencoder.judge import figures
from embedpress.autoencoder.network import InputScale, ResidualMap, Tower
from embedpress.autoencoder.options import AUTO, check_code_size, check_options
from embedpress.autoencoder.quantizer import CODEBOOK_SIZE, AdditiveQuantizer
from embedpress.autoencoder.record import Record
from embedpress.autoencoder.reranker import Reranker
from embedpress.errors import FormatError, first_line
from embedpress.onnx.compressor import FORMAT_VERSION, fingerprint, read_config
from embedpress.onnx.export import write_graphs
from embedpress.vectors.document import read_json
from embedpress.vectors.files import check_no_file, remove, storage_errors, write_atomic

WEIGHTS_LIMIT = 4 << 30
"""Bytes of a model.safetensors that are read."""
MACHINE = ("device", "num_threads")
"""Parameters of where it was trained, not of what: they are not saved."""


def save(
    compressor: Compressor,
    folder: str | Path,
    *,
    name: str | None = None,
    license: str | None = None,
) -> dict[str, Any]:
    """Write a compressor folder: weights, configuration, ONNX graphs, card and figures.

    Parameters
    ----------
    compressor : Compressor
        Fitted.
    folder : str or Path
        Made where it does not exist; a compressor that is there is replaced.
    name, license : str, optional
        For the card: the hub id, and the licence as the hub abbreviates it.

    Returns
    -------
    dict
        The configuration written to config.json.

    Raises
    ------
    sklearn.exceptions.NotFittedError
        Not fitted yet.
    UsageError
        `folder` is a file.
    ExportError
        A graph gives other results than the trained network.
    """
    check_is_fitted(compressor, "scale_")
    out = Path(folder)
    check_no_file(out)
    with storage_errors(out):
        out.mkdir(parents=True, exist_ok=True)
    # JSON has no infinity, and what a diverged training measured is as good as not measured.
    history = {
        name: [{k: v for k, v in record.items() if math.isfinite(v)} for record in records]
        for name, records in compressor.history_.items()
    }
    metrics = {**figures(compressor), "history": history}
    # config.json goes last: a folder without one is not yet a compressor.
    remove(out / "config.json")
    write_atomic(out / "model.safetensors", tensors_to_bytes(_tensors(compressor)))
    config = _config(compressor)
    config["fingerprint"] = fingerprint(config, out / "model.safetensors")
    config["sha256"] = write_graphs(compressor, config, out)
    write_atomic(out / "metrics.json", json.dumps(metrics, indent=2) + "\n")
    write_atomic(out / "README.md", model_card(config, metrics, name=name, license=license))
    write_atomic(out / "config.json", json.dumps(config, indent=2) + "\n")
    return config


def load_compressor(folder: str | Path) -> Compressor:
    """Load a compressor folder as a fitted estimator (with torch), to judge or train on.

    Parameters
    ----------
    folder : str or Path
        What :func:`save` wrote.

    Returns
    -------
    Compressor

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
        if fingerprint(config, file) != config["fingerprint"]:
            raise FormatError(
                f"{path}: model.safetensors or config.json was changed since it was saved"
            )
        tensors = tensors_from_bytes(file.read_bytes())
    except FormatError:
        raise
    except Exception as error:  # safetensors raises its own and OSError alike
        raise FormatError(f"{file} cannot be read: {error}") from None
    try:
        parameters = config["parameters"].items()
        compressor = Compressor(**{k: v for k, v in parameters if k not in MACHINE})
        check_options(compressor.get_params(), config["dim"])
        compressor.n_features_in_ = config["dim"]
        compressor.scale_ = InputScale(config["metric"], float(tensors["scale"]))
        compressor.latent_tower_ = _tower(tensors, "latents", compressor)
        compressor.code_tower_ = _tower(tensors, "codes", compressor)
        compressor.reranker_ = _reranker(tensors, compressor)
        _check_fit(compressor, config)
        compressor.source_ = dict(config.get("source") or {})
    except (AttributeError, KeyError, TypeError, ValueError, RuntimeError) as error:
        first = first_line(error)
        raise FormatError(f"{path} does not hold the compressor it describes: {first}") from None
    compressor.history_, compressor.sizes_ = _measured(path / "metrics.json", compressor)
    return compressor


def _config(compressor: Compressor) -> dict[str, Any]:
    codes = compressor.code_tower_
    stages = groups = width = None
    if codes is not None and codes.quantizer is not None:
        stages, groups, _, slice_width = codes.quantizer.codebooks.shape
        width = groups * slice_width
    # numpy's numbers are welcome as options, but JSON knows only Python's.
    parameters = {
        name: value.item() if isinstance(value, np.generic) else value
        for name, value in compressor.get_params().items()
        if name not in MACHINE
    }
    for name in ("hidden_sizes", "nested_sizes"):
        if parameters[name] is not None:
            parameters[name] = [int(size) for size in parameters[name]]
    return {
        "kind": "compressor",
        "format_version": FORMAT_VERSION,
        "embedpress": __version__,
        "dim": compressor.n_features_in_,
        "metric": compressor.metric,
        "n_components": parameters["n_components"],
        "nested_sizes": parameters["nested_sizes"],
        "code_size": compressor.code_size_,
        "stages": stages,
        "groups": groups,
        "code_width": width,
        "reranker": compressor.reranker_ is not None,
        "parameters": parameters,
        "source": compressor.source_,
    }


def _tensors(compressor: Compressor) -> dict[str, torch.Tensor]:
    tensors: dict[str, torch.Tensor] = {"scale": compressor.scale_.scale}
    for prefix, module in _modules(compressor).items():
        if module is not None:
            for name, value in module.state_dict().items():
                tensors[f"{prefix}.{name}"] = value.detach().cpu().contiguous()
    return tensors


def _modules(compressor: Compressor) -> dict[str, Tower | Reranker | None]:
    """What is trained, by the names it has in weights and history."""
    return {
        "latents": compressor.latent_tower_,
        "codes": compressor.code_tower_,
        "reranker": compressor.reranker_,
    }


def _state(tensors: dict[str, torch.Tensor], prefix: str) -> dict[str, torch.Tensor]:
    """The tensors of one module by their names in it."""
    state = {
        name.removeprefix(prefix + "."): value
        for name, value in tensors.items()
        if name.startswith(prefix + ".")
    }
    if any(value.dtype not in (torch.float32, torch.int64) for value in state.values()):
        raise ValueError(f"a tensor of {prefix} is not float32")
    return state


def _map(state: dict[str, torch.Tensor], part: str, compressor: Compressor) -> ResidualMap:
    """On "meta", where nothing is allocated before the shapes are known to be the file's."""
    layers = {
        int(name.split(".")[-2]): len(value)
        for name, value in state.items()
        if name.startswith(f"{part}.mlp.") and value.ndim == 2
    }
    # The last layer is no hidden one.
    hidden = tuple(layers[place] for place in sorted(layers)[:-1])
    if compressor.hidden_sizes is not None and hidden != tuple(compressor.hidden_sizes):
        raise ValueError(f"hidden layers of {hidden} in {part}")
    with torch.device("meta"):
        return ResidualMap(
            torch.zeros_like(state[f"{part}.linear.weight"], device="meta"),
            torch.zeros_like(state[f"{part}.linear.bias"], device="meta"),
            hidden_sizes=hidden,
            dropout=compressor.dropout,
            batch_norm=compressor.batch_norm,
        )


def _tower(tensors: dict[str, torch.Tensor], prefix: str, compressor: Compressor) -> Tower | None:
    state = _state(tensors, prefix)
    if not state:
        return None
    encoder, query_encoder, decoder = (
        _map(state, part, compressor) for part in ("encoder", "query_encoder", "decoder")
    )
    books = state.get("quantizer.codebooks")
    if books is not None and (books.ndim != 4 or books.shape[2] != CODEBOOK_SIZE):
        raise ValueError(f"codebooks of shape {tuple(books.shape)}")
    quantizer = None if books is None else AdditiveQuantizer(books)
    nested = compressor.nested_sizes if prefix == "latents" else ()
    with torch.device("meta"):
        tower = Tower(encoder, query_encoder, decoder, quantizer, nested)
    tower.load_state_dict(state, assign=True)
    return tower.eval()


def _reranker(tensors: dict[str, torch.Tensor], compressor: Compressor) -> Reranker | None:
    state = _state(tensors, "reranker")
    if not state:
        return None
    if compressor.code_tower_ is None:
        raise ValueError("a reranker of no codes")
    reranker = Reranker(_map(state, "documents", compressor), _map(state, "queries", compressor))
    reranker.load_state_dict(state, assign=True)
    return reranker.eval()


def _check_fit(compressor: Compressor, config: dict[str, Any]) -> None:
    """Raise ValueError unless the weights are of the sizes that config.json gives."""
    latents, codes = compressor.latent_tower_, compressor.code_tower_
    quantizer = None if codes is None else codes.quantizer
    stages = groups = width = None
    if quantizer is not None:
        stages, groups, _, slice_width = quantizer.codebooks.shape
        width = groups * slice_width
    held = {
        "n_components": None if latents is None else latents.width,
        "code_size": None if quantizer is None else quantizer.code_size,
        "stages": stages,
        "groups": groups,
        "code_width": width,
    }
    for name, value in held.items():
        if config[name] != value:
            raise ValueError(f"{name} is {value!r}, not {config[name]!r}")
    # Folders of before there were rerankers say nothing of one.
    if config.get("reranker", False) != (compressor.reranker_ is not None):
        raise ValueError("a reranker is there or not, unlike what config.json says")
    for name in ("metric", "n_components", "code_size"):
        value = getattr(compressor, name)
        found = name == "code_size" and value == AUTO and quantizer is not None
        if value != config[name] and not found:
            raise ValueError(f"the parameters have another {name}")
    if quantizer is not None:
        # One that was found has passed no check of the options.
        check_code_size(
            quantizer.code_size, compressor.groups, dim=config["dim"], metric=config["metric"]
        )
    if not 0 < float(compressor.scale_.scale) < float("inf"):
        raise ValueError("the scale is not a positive number")
    dim, reranker = config["dim"], compressor.reranker_
    layers: list[tuple[ResidualMap, tuple[int | None, int | None]]] = []
    for tower, inner in ((latents, config["n_components"]), (codes, width)):
        if tower is not None:
            layers += [(tower.encoder, (inner, dim)), (tower.query_encoder, (inner, dim))]
            layers.append((tower.decoder, (dim, inner)))
    if reranker is not None:
        layers += [(reranker.documents, (width, width)), (reranker.queries, (width, dim))]
    for network, shape in layers:
        if network.linear.weight.shape != shape:
            raise ValueError(f"a layer of {tuple(network.linear.weight.shape)}, not {shape}")


def _measured(
    file: Path, compressor: Compressor
) -> tuple[dict[str, list[Record]], list[dict[str, Any]]]:
    """History and sizes of metrics.json; without it, or damaged, a compressor is one all the same.

    They hold nothing but numbers, of the towers that there are.
    """
    nothing: tuple[dict[str, list[Record]], list[dict[str, Any]]] = ({}, [])
    try:
        metrics = read_json(file)
        history, sizes = metrics["history"], metrics.get("sizes", [])
        records = [record for records in history.values() for record in records]
        plain = all(type(value) in (int, float) for one in records for value in one.values())
        modules = _modules(compressor)
        named = all(modules.get(name) is not None and history[name] for name in history)
        recalls = {size["code_size"]: (size["start"], size["trained"]) for size in sizes}
        sized = all(
            type(size) is int and type(start) is float and type(trained) in (float, type(None))
            for size, (start, trained) in recalls.items()
        )
        # What was chosen was trained.
        chosen = not sizes or recalls[compressor.code_size_][1] is not None
        return (history, sizes) if plain and named and sized and chosen else nothing
    except (FormatError, KeyError, TypeError, AttributeError):
        return nothing
