"""A compressor of known behaviour: a linear map to latents, a product quantizer for codes."""

from __future__ import annotations

import faiss
import numpy as np


class StubCompressor:
    def __init__(self, x, *, n_components=8, code_size=4, metric="ip"):
        self.dim = x.shape[1]
        self.metric = metric
        self.n_components = n_components
        self.code_size = code_size
        self._axes = np.linalg.eigh(np.cov(x.T))[1][:, ::-1][:, : n_components or 1]
        self._axes = self._axes.astype(np.float32)
        self._pq = faiss.ProductQuantizer(self.dim, code_size or 4, 8)
        self._pq.cp.min_points_per_centroid = 1
        self._pq.cp.niter = 5
        self._pq.train(np.ascontiguousarray(x[:1000]))
        self.batches: list[int] = []

    def transform(self, X):
        return X @ self._axes

    transform_queries = transform

    def inverse_transform(self, Z):
        return Z @ self._axes.T

    def encode(self, X):
        self.batches.append(len(X))
        return self._pq.compute_codes(np.ascontiguousarray(X))

    def decode(self, codes):
        return self._pq.decode(np.ascontiguousarray(codes))

    def encode_queries(self, X):
        return np.asarray(X, np.float32)

    def codebooks(self):
        books = faiss.vector_to_array(self._pq.centroids)
        return books.reshape(self.code_size, 256, self.dim // self.code_size)


class Reconstructing(StubCompressor):
    """The same, but it says itself what codes stand for."""

    def codebooks(self):
        raise AssertionError("not to be asked for")

    def reconstruct_codes(self, codes):
        return self.decode(codes)


class Nested(StubCompressor):
    """The same, whose first three floats of a latent are a latent too."""

    latent_sizes = (3, 8)
