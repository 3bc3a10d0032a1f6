"""A text model with a compressor behind it as a folder of the sentence-transformers library.

``linear(x) + mlp(x)`` is written as plain dense layers with ReLU between them: the linear part's
result z goes through the hidden layers beside the network's as relu(z) and relu(-z), whose
difference is z again. So ``SentenceTransformer(folder)`` gives latents with no code but its own,
and its ``encode_query`` those of queries.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save

from embedpress.autoencoder.network import InputScale, ResidualMap
from embedpress.errors import ExportError, UsageError
from embedpress.onnx.graph import folded_layers
from embedpress.onnx.parity import difference_beyond, vectors_like_those_of
from embedpress.vectors.files import storage_errors, write_atomic

if TYPE_CHECKING:
    from embedpress.autoencoder.estimator import Compressor
    from embedpress.extract.text import TextExtractor

Floats = NDArray[np.float32]
Stack = list[tuple[Floats, Floats]]
"""(weight (out, in), bias) of each dense layer; a ReLU stands behind all but the last."""

TOLERANCE = 1e-5
"""Largest difference of a latent, relative to the largest value."""
LIBRARY = "sentence_transformers.models"
POOLINGS = {"mean": "mean_tokens", "cls": "cls_token", "max": "max_tokens"}
RELU, IDENTITY = "torch.nn.modules.activation.ReLU", "torch.nn.modules.linear.Identity"


def dense_stack(network: ResidualMap, scale: InputScale) -> Stack:
    """The layers that give what the network gives.

    Parameters
    ----------
    network : ResidualMap
        For inference.
    scale : InputScale
        Its division is put into the first layer; for cosine, vectors of length one are expected.
    """
    factor = np.float32(1) if scale.metric == "cosine" else np.float32(1 / float(scale.scale))
    weight = network.linear.weight.detach().cpu().numpy() * factor
    bias = network.linear.bias.detach().cpu().numpy()
    if not network.residual:
        return [(weight, bias)]
    layers = [layer for layer in folded_layers(network.mlp) if layer is not None]
    first_weight, first_bias = layers[0][0] * factor, layers[0][1]
    stack = [
        (
            np.concatenate([first_weight, weight, -weight]),
            np.concatenate([first_bias, bias, -bias]),
        )
    ]
    width = len(bias)
    beside = np.eye(2 * width, dtype=np.float32)
    for weight, bias in layers[1:-1]:
        wide = np.zeros((len(weight) + 2 * width, weight.shape[1] + 2 * width), np.float32)
        wide[: len(weight), : weight.shape[1]] = weight
        wide[len(weight) :, weight.shape[1] :] = beside
        stack.append((wide, np.concatenate([bias, np.zeros(2 * width, np.float32)])))
    last_weight, last_bias = layers[-1]
    eye = np.eye(width, dtype=np.float32)
    return [*stack, (np.concatenate([last_weight, eye, -eye], axis=1), last_bias)]


def run_stack(stack: Stack, x: Floats) -> Floats:
    """What the layers give for vectors (n, in)."""
    for weight, bias in stack[:-1]:
        x = np.maximum(x @ weight.T + bias, 0)
    weight, bias = stack[-1]
    return np.asarray(x @ weight.T + bias, np.float32)


def write_sentence_transformer(
    compressor: Compressor, extractor: TextExtractor, out: str | Path
) -> list[str]:
    """Write a folder for ``SentenceTransformer(folder)``, version 5 or newer.

    Its ``encode`` and ``encode_document`` give latents, ``encode_query`` latents of queries.

    Parameters
    ----------
    compressor : Compressor
        Fitted, with latents.
    extractor : TextExtractor
        The text model that made the embeddings.
    out : str or Path
        A folder that does not exist yet, or is empty.

    Returns
    -------
    list of str
        Names of the files written.

    Raises
    ------
    UsageError
        No latents, or a folder that is not empty.
    ExportError
        The dense layers give other latents than the compressor.
    """
    tower = compressor.latent_tower_
    if tower is None:
        raise UsageError("sentence-transformers gives floats: fit the compressor with latents")
    folder = Path(out)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UsageError(f"{folder} is not empty: give a new folder")
    routes = {
        "query": dense_stack(tower.query_encoder, compressor.scale_),
        "document": dense_stack(tower.encoder, compressor.scale_),
    }
    _check(compressor, routes)
    with storage_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        extractor.model.save_pretrained(folder)
        extractor.tokenizer.save_pretrained(folder)
    modules = ["Transformer", "Pooling"]
    limits = {"max_seq_length": extractor.max_length, "do_lower_case": extractor.recipe.lower_case}
    _write(folder / "sentence_bert_config.json", limits)
    modes = {f"pooling_mode_{key}": mode == extractor.pooling for mode, key in POOLINGS.items()}
    _write(
        folder / "1_Pooling" / "config.json", {"word_embedding_dimension": extractor.dim, **modes}
    )
    if extractor.normalized or compressor.metric == "cosine":
        modules.append("Normalize")
    paths = ["", *(f"{i}_{name}" for i, name in enumerate(modules[1:], 1))]
    router = f"{len(modules)}_Router"
    _write_router(folder / router, routes)
    listed = zip([*modules, "Router"], [*paths, router], strict=True)
    _write(
        folder / "modules.json",
        [
            {"idx": i, "name": str(i), "path": path, "type": f"{LIBRARY}.{name}"}
            for i, (name, path) in enumerate(listed)
        ],
    )
    prompt = extractor.recipe.prompt
    _write(
        folder / "config_sentence_transformers.json",
        {
            "prompts": {"all": prompt} if prompt else {},
            "default_prompt_name": "all" if prompt else None,
            # Latents are trained to be compared so, whatever the embeddings' own metric.
            "similarity_fn_name": "euclidean" if compressor.metric == "l2" else "dot",
        },
    )
    for path in paths[1:]:
        (folder / path).mkdir(exist_ok=True)
    return sorted(str(file.relative_to(folder)) for file in folder.rglob("*") if file.is_file())


def _check(compressor: Compressor, routes: dict[str, Stack]) -> None:
    x = vectors_like_those_of(compressor, 256)
    given = x
    if compressor.metric == "cosine":
        given = x / np.linalg.norm(x, axis=1, keepdims=True)
    expected = {
        "query": compressor.transform_queries(x),
        "document": np.asarray(compressor.transform(x)),
    }
    for route, stack in routes.items():
        difference = difference_beyond(run_stack(stack, given), expected[route], TOLERANCE)
        if difference is not None:
            raise ExportError(f"dense layers give other {route} latents, by up to {difference:.2e}")


def _write_router(folder: Path, routes: dict[str, Stack]) -> None:
    types: dict[str, str] = {}
    structure: dict[str, list[str]] = {}
    for route, stack in routes.items():
        for number, (weight, bias) in enumerate(stack):
            name = f"{route}_{number}_Dense"
            types[name] = f"{LIBRARY}.Dense"
            structure.setdefault(route, []).append(name)
            _write(
                folder / name / "config.json",
                {
                    "in_features": weight.shape[1],
                    "out_features": weight.shape[0],
                    "bias": True,
                    "activation_function": IDENTITY if number + 1 == len(stack) else RELU,
                },
            )
            tensors = {"linear.weight": np.ascontiguousarray(weight), "linear.bias": bias}
            write_atomic(folder / name / "model.safetensors", save(tensors))
    parameters = {"default_route": "document", "allow_empty_key": True}
    _write(
        folder / "router_config.json",
        {"types": types, "structure": structure, "parameters": parameters},
    )


def _write(path: Path, value: object) -> None:
    with storage_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(path, json.dumps(value, indent=2) + "\n")
