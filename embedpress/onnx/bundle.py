"""What a text model's and a ResNet's way into one graph share."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto

from embedpress.errors import ExportError, MismatchError, UsageError
from embedpress.onnx.builder import GraphBuilder, Port
from embedpress.onnx.extractor import ExtractorConfig
from embedpress.onnx.graph import add_towers
from embedpress.onnx.parity import Arrays, difference_beyond
from embedpress.vectors.files import write_atomic

if TYPE_CHECKING:
    from embedpress.autoencoder.estimator import Compressor


TOLERANCE = 1e-4
"""Largest difference of a float from torch's, relative to the largest value of its kind."""
CODE_TOLERANCE = 1e-2
"""Share of bytes of codes that may differ: distances to two codewords equal within rounding."""
N_CANARIES = 8
PROTOBUF_LIMIT = (1 << 31) - 1

Floats = NDArray[np.float32]
Feed = dict[str, NDArray[Any]]
Run = Callable[[Feed], Arrays]


@dataclass(frozen=True)
class Bundle:
    """What goes into the folder beside the compressor: files by name."""

    config: ExtractorConfig
    files: dict[str, bytes]

    def write(self, folder: Path) -> dict[str, str]:
        """Write the files and extractor.json; returns the sha256 of each file."""
        for name, content in self.files.items():
            write_atomic(folder / name, content)
        self.config.write(folder)
        return {name: hashlib.sha256(content).hexdigest() for name, content in self.files.items()}


def check_dim(compressor: Compressor, dim: int, model: str) -> None:
    """Refuse an extractor of another dimension.

    Raises
    ------
    MismatchError
    """
    if dim != compressor.n_features_in_:
        raise MismatchError(
            f"{model} gives {dim} dimensions, the compressor takes "
            f"{compressor.n_features_in_}: name the extractor that it was fitted for"
        )


def closed(
    graph: GraphBuilder, compressor: Compressor, ports: Sequence[Port], stamps: dict[str, str]
) -> onnx.ModelProto:
    """The graph from `ports` to ``embeddings`` with the compressor's encoders behind it.

    Raises
    ------
    UsageError
        Too large for one file.
    """
    outputs = [
        ("embeddings", TensorProto.FLOAT, (compressor.n_features_in_,)),
        *add_towers(
            graph,
            "embeddings",
            compressor.scale_,
            compressor.latent_tower_,
            compressor.code_tower_,
        ),
    ]
    model = graph.model(ports, outputs, stamps)
    if model.ByteSize() > PROTOBUF_LIMIT:
        raise UsageError("the network is larger than the 2 GiB that one ONNX file can hold")
    return model


def session_run(content: bytes, num_threads: int | None) -> Run:
    """A graph's bytes as a function from inputs to all outputs by name."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    if num_threads is not None:
        options.intra_op_num_threads = num_threads
    session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return lambda feed: dict(zip(names, session.run(names, feed), strict=True))


def compare(got: Arrays, expected: Arrays, batch: str) -> None:
    """Compare a graph's outputs with torch's.

    Raises
    ------
    ExportError
        Naming the output, the batch and the difference.
    """
    for name, wanted in expected.items():
        found = got[name]
        if found.shape != wanted.shape or found.dtype != wanted.dtype:
            raise ExportError(f"{name} of {batch} have shape {found.shape}, not {wanted.shape}")
        if name == "codes":
            differing = float((found != wanted).mean())
            if differing > CODE_TOLERANCE:
                raise ExportError(
                    f"codes of {batch} differ from torch's in {differing:.1%} of bytes"
                )
            continue
        difference = difference_beyond(found, wanted, TOLERANCE)
        if difference is not None:
            raise ExportError(f"{name} of {batch} differ from torch's by up to {difference:.2e}")
