"""ONNX files of a trained compressor, each checked against the network it came from."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
from numpy.typing import NDArray

from embedpress import __version__
from embedpress.errors import ExportError, UsageError
from embedpress.onnx import graph
from embedpress.onnx.runtime import read_config
from embedpress.vectors.files import remove, storage_errors, write_atomic

if TYPE_CHECKING:
    from embedpress.autoencoder.estimator import Compressor

PARITY_BATCHES = (1, 7, 256)
GRAPHS = (
    "encoder.onnx",
    "query_encoder.onnx",
    "decoder.onnx",
    "code_decoder.onnx",
    "latent_encoder.onnx",
    "code_encoder.onnx",
)
"""All that a folder can have; one that an earlier compressor left there is removed."""
COPIED = ("model.safetensors", "metrics.json", "README.md")
TOLERANCE = 1e-4
"""Largest difference of a float output, relative to the largest value of the output."""
CODE_TOLERANCE = 1e-3
"""Share of vectors whose code may differ: distances to two codewords equal within rounding."""


def write_graphs(compressor: Compressor, config: dict[str, Any], folder: Path) -> dict[str, str]:
    """Write every graph of a compressor to `folder`, after its parity check.

    Parameters
    ----------
    compressor : Compressor
        Fitted.
    config : dict
        Of config.json, with the fingerprint.
    folder : Path

    Returns
    -------
    dict of str to str
        sha256 of each file written, for config.json.

    Raises
    ------
    ExportError
        A graph whose results differ from the network's; no file is written.
    """
    latents, codes = compressor.latent_tower_, compressor.code_tower_
    dim, scale = compressor.n_features_in_, compressor.scale_
    stamp = {
        "fingerprint": config["fingerprint"],
        "metric": compressor.metric,
        "normalization": "l2" if compressor.metric == "cosine" else "none",
        "opset": str(graph.OPSET),
        "embedpress": __version__,
        "onnx": onnx.__version__,
    }
    models = {
        "encoder.onnx": graph.encoder_graph(scale, dim, latents, codes, stamp),
        "query_encoder.onnx": graph.encoder_graph(scale, dim, latents, codes, stamp, queries=True),
    }
    if latents is not None:
        models["decoder.onnx"] = graph.decoder_graph(scale, dim, latents, stamp)
    if codes is not None:
        models["code_decoder.onnx"] = graph.decoder_graph(scale, dim, codes, stamp)
    if latents is not None and codes is not None:
        # ONNX Runtime computes every output of a graph, wanted or not.
        models["latent_encoder.onnx"] = graph.encoder_graph(scale, dim, latents, None, stamp)
        models["code_encoder.onnx"] = graph.encoder_graph(scale, dim, None, codes, stamp)
    for name, model in models.items():
        check_parity(compressor, name, model)
    sums = {}
    for name, model in sorted(models.items()):
        content = model.SerializeToString(deterministic=True)
        write_atomic(folder / name, content)
        sums[name] = hashlib.sha256(content).hexdigest()
    for name in GRAPHS:
        if name not in models:
            remove(folder / name)
    return sums


def check_parity(compressor: Compressor, name: str, model: onnx.ModelProto) -> None:
    """Compare a graph with the network at several batch sizes.

    Raises
    ------
    ExportError
        Naming the graph, the output and the largest difference.
    """
    import onnxruntime

    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    port = session.get_inputs()[0].name
    rng = np.random.default_rng(0)
    for batch in PARITY_BATCHES:
        # As long as the vectors trained on, or they would all look alike to the networks.
        length = float(compressor.scale_.scale) / compressor.n_features_in_**0.5
        x: NDArray[Any] = rng.standard_normal(
            (batch, compressor.n_features_in_), dtype=np.float32
        ) * np.float32(length)
        if port == "latents":
            x = np.asarray(compressor.transform(x))
        elif port == "codes":
            x = compressor.encode(x)
        outputs = [output.name for output in session.get_outputs()]
        for output, got in zip(outputs, session.run(outputs, {port: x}), strict=True):
            _compare(
                f"{name}: {output} at batch {batch}", got, _expected(compressor, name, output, x)
            )


def _expected(compressor: Compressor, name: str, output: str, x: NDArray[Any]) -> NDArray[Any]:
    if name == "decoder.onnx":
        return compressor.inverse_transform(x)
    if name == "code_decoder.onnx":
        return compressor.decode(x)
    if output == "codes":
        return compressor.encode(x)
    if output == "code_queries":
        return compressor.encode_queries(x)
    if "query" in name:
        return compressor.transform_queries(x)
    # set_output() may have made transform give a table.
    return np.asarray(compressor.transform(x))


def _compare(what: str, got: NDArray[Any], expected: NDArray[Any]) -> None:
    if got.shape != expected.shape:
        raise ExportError(f"{what} has shape {got.shape}, the network gives {expected.shape}")
    if got.dtype == np.uint8:
        differing = float((got != expected).any(axis=1).mean())
        if differing > max(CODE_TOLERANCE, 1 / len(got) if len(got) > 1 else 0):
            raise ExportError(f"{what} differ from the network's in {differing:.1%} of vectors")
        return
    difference = float(np.abs(got - expected).max())
    if not difference <= TOLERANCE * float(np.abs(expected).max()):
        raise ExportError(f"{what} differ from the network's by up to {difference:.2e}")


def export(model: str | Path, out: str | Path) -> list[str]:
    """Write what production needs of a compressor: graphs, configuration, codebooks, card.

    Parameters
    ----------
    model : str or Path
        A compressor folder.
    out : str or Path
        The folder to write; :func:`embedpress.load` opens it without torch.

    Returns
    -------
    list of str
        Names of the files written.

    Raises
    ------
    UsageError, FormatError
        No compressor there, or not a whole one.
    ExportError
        A graph whose results differ from the network's.
    """
    from embedpress.autoencoder.pretrained import load_compressor

    source, folder = Path(model), Path(out)
    compressor = load_compressor(source)
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"{folder} is a file: give a folder to write to")
    if folder.resolve() == source.resolve():
        raise UsageError("export to another folder than the compressor's own")
    with storage_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
    config = read_config(source)
    # config.json goes last: a folder without one is not yet a compressor.
    remove(folder / "config.json")
    config["sha256"] = write_graphs(compressor, config, folder)
    copied = [name for name in COPIED if (source / name).is_file()]
    for name in copied:
        write_atomic(folder / name, (source / name).read_bytes())
    write_atomic(folder / "config.json", json.dumps(config, indent=2) + "\n")
    return sorted([*config["sha256"], *copied, "config.json"])
