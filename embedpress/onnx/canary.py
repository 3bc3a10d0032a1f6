"""Canaries: inputs with their results, stored with a compressor when it is written.

A backend runs them before it takes traffic: another processor, another version of ONNX Runtime
or a file that was mixed up shows there, and not in search results.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from safetensors import safe_open
from safetensors.numpy import save

from embedpress.errors import FormatError, MismatchError, first_line
from embedpress.onnx.parity import Arrays, difference_beyond
from embedpress.vectors import sha256_of
from embedpress.vectors.document import parse_json

if TYPE_CHECKING:
    from embedpress.onnx.compressor import OnnxCompressor
    from embedpress.onnx.image import ImageEncoder
    from embedpress.onnx.text import TextEncoder

VECTORS, INPUTS = "canaries.safetensors", "extractor_canaries.safetensors"
TOLERANCE = 2e-3
"""Largest difference of a float, relative to the largest of its kind: rounding stays far below,
also where int8 sums are rounded in another order."""
CODE_TOLERANCE = 0.02
"""Share of bytes of codes that may differ: distances to two codewords equal within rounding."""
LIMIT = 64 << 20


def pack(arrays: Arrays, texts: list[str] | None = None) -> bytes:
    """A canary file's bytes."""
    metadata = None if texts is None else {"texts": json.dumps(texts)}
    packed: bytes = save({name: np.ascontiguousarray(a) for name, a in arrays.items()}, metadata)
    return packed


def check_vectors(compressor: OnnxCompressor) -> int:
    """Run the compressor's own canaries; see :meth:`OnnxCompressor.check_canaries`."""
    stored, _ = _read(compressor, VECTORS)
    if not stored:
        return 0
    if not stored.keys() & {"latents", "codes"}:
        raise FormatError(f"{compressor.path / VECTORS} holds no canaries: export again")
    x = stored["embeddings"]
    if "latents" in stored:
        _compare(compressor.path, "latents", compressor.transform(x), stored["latents"])
    if "codes" in stored:
        _compare(compressor.path, "codes", compressor.encode(x), stored["codes"])
    return len(x)


def check_texts(encoder: TextEncoder) -> int:
    """Encode the texts stored with an extractor and compare."""
    stored, metadata = _read(encoder.compressor, INPUTS)
    if not stored:
        return 0
    try:
        texts = parse_json(metadata["texts"])
        if not (isinstance(texts, list) and texts and all(isinstance(one, str) for one in texts)):
            raise ValueError("no list of texts")
    except (KeyError, ValueError):
        raise FormatError(f"{encoder.path / INPUTS} holds no texts: export again") from None
    return _check_inputs(encoder, texts, stored)


def check_images(encoder: ImageEncoder) -> int:
    """Encode the images stored with an extractor and compare."""
    stored, _ = _read(encoder.compressor, INPUTS)
    if not stored:
        return 0
    pictures = stored.get("images", np.empty(0))
    if pictures.dtype != np.uint8 or pictures.ndim != 4 or pictures.shape[3] != 3:
        raise FormatError(f"{encoder.path / INPUTS} holds no images: export again")
    images = [Image.fromarray(image) for image in pictures]
    return _check_inputs(encoder, images, stored)


def _check_inputs(encoder: TextEncoder | ImageEncoder, inputs: list[Any], stored: Arrays) -> int:
    _compare(encoder.path, "embeddings", encoder.embed(inputs), stored["embeddings"])
    if "codes" in stored:
        _compare(encoder.path, "codes", encoder.encode(inputs), stored["codes"])
    return len(inputs)


def _read(compressor: OnnxCompressor, name: str) -> tuple[Arrays, dict[str, str]]:
    """Arrays and metadata of a canary file; nothing where the folder has none."""
    file: Path = compressor.path / name
    known = compressor.config.get("sha256", {}).get(name)
    if known is None:
        return {}, {}
    if not file.is_file() or file.stat().st_size > LIMIT or sha256_of(file) != known:
        raise FormatError(f"{file} is missing or was changed since it was written: export again")
    try:
        with safe_open(file, framework="numpy") as tensors:
            found = {key: tensors.get_tensor(key) for key in tensors.keys()}  # noqa: SIM118
            metadata = tensors.metadata() or {}
    except Exception as error:  # safetensors raises its own and OSError alike
        raise FormatError(f"{file} cannot be read: {first_line(error)}") from None
    if "embeddings" not in found or not all(array.ndim and len(array) for array in found.values()):
        raise FormatError(f"{file} holds no canaries: export again")
    return found, metadata


def _compare(folder: Path, what: str, got: NDArray[Any], stored: NDArray[Any]) -> None:
    if got.shape != stored.shape or got.dtype != stored.dtype:
        raise MismatchError(f"{folder}: its canaries have {what} of another shape: export again")
    if what == "codes":
        differing = float((got != stored).mean())
        if differing > CODE_TOLERANCE:
            raise MismatchError(
                f"{folder}: {differing:.1%} of its canaries' codes differ on this machine: "
                "compare the versions of onnxruntime, and export on a machine like this one"
            )
        return
    difference = difference_beyond(got, stored, TOLERANCE)
    if difference is not None:
        raise MismatchError(
            f"{folder}: its canaries' {what} differ by {difference:.2e} on this machine: "
            "compare the versions of onnxruntime, and export on a machine like this one"
        )
