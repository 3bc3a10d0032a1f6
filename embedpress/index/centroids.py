"""The learnt codebooks as FAISS's product quantizer, and codes back as latents."""

from __future__ import annotations

import faiss
import numpy as np
from numpy.typing import NDArray

from embedpress.onnx.runtime import OnnxCompressor

Floats = NDArray[np.float32]


def faiss_metric(metric: str) -> int:
    """FAISS's constant: inner product for "cosine" and "ip", L2 for "l2"."""
    kind: int = faiss.METRIC_L2 if metric == "l2" else faiss.METRIC_INNER_PRODUCT
    return kind


def set_centroids(quantizer: faiss.ProductQuantizer, books: Floats) -> None:
    """Put codebooks (code_size, 256, slice) in place of a trained quantizer's centroids."""
    faiss.copy_array_to_vector(np.ascontiguousarray(books).ravel(), quantizer.centroids)


def latents_of(codes: NDArray[np.uint8], books: Floats, stages: int) -> Floats:
    """Latents (n, groups * slice) that codes (n, code_size) stand for."""
    code_size, _, width = books.shape
    words = books[np.arange(code_size), codes]
    return np.ascontiguousarray(
        words.reshape(len(codes), stages, code_size // stages * width).sum(axis=1)
    )


def stages_of(compressor: OnnxCompressor) -> int:
    """Residual rounds of the compressor's quantizer; 1 is plain product quantization."""
    stages: int = compressor.config.get("stages") or 1
    return stages
