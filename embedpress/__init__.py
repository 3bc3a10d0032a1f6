"""Compress BERT and ResNet embeddings 10 to 50 times and keep the search results.

The package is laid out in the way of the data: vectors, extract, autoencoder, onnx, index,
analyze, evaluate. Names are loaded on first use, so that importing embedpress brings in
neither torch nor faiss.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from embedpress.errors import EmbedpressError

__version__ = "0.1.0"

if TYPE_CHECKING:
    from embedpress.analyze.cluster import cluster
    from embedpress.analyze.detector import OutlierDetector
    from embedpress.autoencoder.estimator import Compressor
    from embedpress.extract.job import extract_images, extract_text
    from embedpress.index.build import build_index
    from embedpress.index.search import open_index
    from embedpress.onnx.compress import compress
    from embedpress.onnx.compressor import load
    from embedpress.vectors import open_vectors

_HOMES = {
    "open_vectors": "embedpress.vectors",
    "extract_text": "embedpress.extract.job",
    "extract_images": "embedpress.extract.job",
    "OutlierDetector": "embedpress.analyze.detector",
    "Compressor": "embedpress.autoencoder.estimator",
    "load": "embedpress.onnx.compressor",
    "compress": "embedpress.onnx.compress",
    "build_index": "embedpress.index.build",
    "open_index": "embedpress.index.search",
    "cluster": "embedpress.analyze.cluster",
}

__all__ = [
    "Compressor",
    "EmbedpressError",
    "OutlierDetector",
    "build_index",
    "cluster",
    "compress",
    "extract_images",
    "extract_text",
    "load",
    "open_index",
    "open_vectors",
]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
