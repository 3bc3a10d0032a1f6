"""What a trained compressor does: latents, codes, queries, and the embeddings restored."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.utils import Tags
from sklearn.utils.validation import check_is_fitted, validate_data

from embedpress.autoencoder.network import InputScale, Tower
from embedpress.autoencoder.quantizer import AdditiveQuantizer
from embedpress.autoencoder.reranker import Reranker
from embedpress.errors import InputError
from embedpress.threads import check_threads, faiss_threads
from embedpress.vectors import check_codes, check_vectors

Floats = NDArray[np.float32]


class TrainedTowers(ClassNamePrefixFeaturesOutMixin, TransformerMixin, BaseEstimator):  # type: ignore[misc]
    """The use of trained towers, on a device and with so many threads.

    It is a transformer itself, since scikit-learn wraps `transform` where it is defined.
    """

    scale_: InputScale
    latent_tower_: Tower | None
    code_tower_: Tower | None
    reranker_: Reranker | None
    device: str
    num_threads: int | None

    def transform(self, X: ArrayLike) -> Floats:
        """Latents of embeddings.

        Parameters
        ----------
        X : array-like of shape (n, d)

        Returns
        -------
        ndarray of shape (n, n_components), float32
        """
        tower = self._need("latent_tower_", "n_components")
        return self._run(lambda x: tower.encoder(self.scale_(x)), self._embeddings(X))

    def inverse_transform(self, Z: ArrayLike) -> Floats:
        """Embeddings restored from latents; under cosine at about norm 1.

        Parameters
        ----------
        Z : array-like of shape (n, n_components)

        Returns
        -------
        ndarray of shape (n, d), float32
        """
        tower = self._need("latent_tower_", "n_components")
        latents = check_vectors(Z, dim=tower.width, what="latents")
        return self._run(lambda z: self.scale_.restore(tower.decoder(z)), latents)

    def transform_queries(self, X: ArrayLike) -> Floats:
        """Query latents, to be scored against :meth:`transform`'s latents by the metric.

        Returns
        -------
        ndarray of shape (n, n_components), float32
        """
        tower = self._need("latent_tower_", "n_components")
        return self._run(lambda x: tower.query_encoder(self.scale_(x)), self._embeddings(X))

    def encode(self, X: ArrayLike) -> NDArray[np.uint8]:
        """Codes of embeddings.

        Parameters
        ----------
        X : array-like of shape (n, d)

        Returns
        -------
        ndarray of shape (n, code_size), uint8
        """
        tower, quantizer = self._need_codes()
        codes = self._run(
            lambda x: quantizer.assign(tower.encoder(self.scale_(x))), self._embeddings(X)
        )
        return codes.astype(np.uint8)

    def decode(self, codes: ArrayLike) -> Floats:
        """Embeddings restored from codes; under cosine at about norm 1.

        Parameters
        ----------
        codes : array-like of shape (n, code_size), uint8

        Returns
        -------
        ndarray of shape (n, d), float32
        """
        tower, quantizer = self._need_codes()
        checked = check_codes(np.asarray(codes), code_size=quantizer.code_size).astype(np.int64)
        return self._run(lambda c: self.scale_.restore(tower.decoder(quantizer.lookup(c))), checked)

    def encode_queries(self, X: ArrayLike) -> Floats:
        """Queries as FAISS's scan of the codes takes them, never quantized.

        Returns
        -------
        ndarray of shape (n, code_size * slice), float32
        """
        tower, quantizer = self._need_codes()
        return self._run(
            lambda x: quantizer.expand_queries(tower.query_encoder(self.scale_(x))),
            self._embeddings(X),
        )

    def rerank_documents(self, codes: ArrayLike) -> Floats:
        """What the reranker makes of codes, to be scored against :meth:`rerank_queries`.

        Parameters
        ----------
        codes : array-like of shape (n, code_size), uint8

        Returns
        -------
        ndarray of shape (n, code width), float32
        """
        reranker, (_, quantizer) = self._need_reranker(), self._need_codes()
        checked = check_codes(np.asarray(codes), code_size=quantizer.code_size).astype(np.int64)
        return self._run(lambda c: reranker.documents(quantizer.lookup(c)), checked)

    def rerank_queries(self, X: ArrayLike) -> Floats:
        """Queries as the reranker scores them by the metric.

        Returns
        -------
        ndarray of shape (n, code width), float32
        """
        reranker = self._need_reranker()
        return self._run(lambda x: reranker.queries(self.scale_(x)), self._embeddings(X))

    @property
    def _n_features_out(self) -> int:
        return self._need("latent_tower_", "n_components").width

    def _named(self, X: ArrayLike, *, fitting: bool = False) -> Floats:
        """The embeddings as numbers, after a look at the names and the number of their columns."""
        x = check_vectors(X, metric=self.metric)
        try:
            validate_data(self, X, reset=fitting, skip_check_array=True)
        except (TypeError, ValueError) as error:
            raise InputError(" ".join(str(error).split())) from None
        return x

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.transformer_tags.preserves_dtype = ["float32"]
        return tags

    def _embeddings(self, X: ArrayLike) -> Floats:
        check_is_fitted(self, "scale_")
        return self._named(X)

    def _need(self, attribute: str, option: str) -> Tower:
        check_is_fitted(self, "scale_")
        tower = getattr(self, attribute)
        if tower is None:
            raise InputError(f"this compressor was trained with {option}=None: fit it with one")
        # A compressor that was loaded is on the processor until it is used elsewhere.
        return tower.to(self.device)  # type: ignore[no-any-return]

    def _need_reranker(self) -> Reranker:
        check_is_fitted(self, "scale_")
        if self.reranker_ is None:
            raise InputError("this compressor has no reranker: none was trained, or none helped")
        return self.reranker_.to(self.device)

    def _need_codes(self) -> tuple[Tower, AdditiveQuantizer]:
        tower = self._need("code_tower_", "code_size")
        assert tower.quantizer is not None
        return tower, tower.quantizer

    def _run(
        self, function: Callable[[torch.Tensor], torch.Tensor], x: NDArray[Any], rows: int = 4096
    ) -> NDArray[Any]:
        device = torch.device(self.device)
        with self._threads(), torch.inference_mode():
            blocks = [
                function(torch.from_numpy(x[i : i + rows]).to(device)).cpu().numpy()
                for i in range(0, len(x), rows)
            ]
        return np.ascontiguousarray(np.concatenate(blocks))

    @contextlib.contextmanager
    def _threads(self) -> Iterator[None]:
        if self.num_threads is None:
            yield
            return
        before = torch.get_num_threads()
        torch.set_num_threads(check_threads(self.num_threads))
        try:
            with faiss_threads(self.num_threads):
                yield
        finally:
            torch.set_num_threads(before)
