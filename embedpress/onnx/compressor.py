"""A compressor on ONNX Runtime: numpy in, numpy out, no torch."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import ArrayLike, NDArray

from embedpress.errors import FormatError, InputError, first_line
from embedpress.hub import compressor_folder
from embedpress.onnx.session import open_session
from embedpress.threads import check_threads, side_by_side
from embedpress.vectors import check_codes, check_vectors, sha256_of
from embedpress.vectors.document import read_document

Floats = NDArray[np.float32]

FORMAT_VERSION = 1
RERANKER_GRAPHS = ("rerank_documents.onnx", "rerank_queries.onnx")
BATCH_ROWS = 96
"""Vectors of one run: with the scores of their codewords, 32 KB each, they stay in the cache."""


def read_config(path: str | Path) -> dict[str, Any]:
    """config.json of a compressor folder, checked.

    Raises
    ------
    UsageError
        No such folder.
    FormatError
        Not a compressor, of an unknown version, or with fields that cannot be.
    """
    folder = Path(path)
    config = read_document(folder, "config.json", kind="compressor", version=FORMAT_VERSION)
    _check_config(config, folder / "config.json")
    return config


def _check_config(config: dict[str, Any], file: Path) -> None:
    def whole(name: str, *, optional: bool) -> None:
        value = config.get(name)
        if optional and value is None:
            return
        if type(value) is not int or not 1 <= value <= 1 << 20:
            raise FormatError(f"{file}: {name} is {value!r}, not a size")

    whole("dim", optional=False)
    for name in ("n_components", "code_size", "stages", "groups", "code_width"):
        whole(name, optional=True)
    if config.get("metric") not in ("cosine", "ip", "l2"):
        raise FormatError(f"{file}: metric is {config.get('metric')!r}, not cosine, ip or l2")
    stamp = config.get("fingerprint")
    if not isinstance(stamp, str) or len(stamp) != 64:
        raise FormatError(f"{file} has no fingerprint")
    sums = config.get("sha256", {})
    if not isinstance(sums, dict) or not all(isinstance(digest, str) for digest in sums.values()):
        raise FormatError(f"{file}: sha256 does not name a checksum a graph")
    nested, largest = config.get("nested_sizes", []), config.get("n_components") or 0
    if not isinstance(nested, list) or not all(
        type(size) is int and 1 <= size < largest for size in nested
    ):
        raise FormatError(f"{file}: nested_sizes is {nested!r}, not sizes below n_components")
    if type(config.get("reranker", False)) is not bool:
        raise FormatError(f"{file}: reranker is {config['reranker']!r}, neither true nor false")
    if config.get("n_components") is None and config.get("code_size") is None:
        raise FormatError(f"{file} names neither n_components nor code_size")


class OnnxCompressor:
    """The trained compressor of a folder, run by ONNX Runtime.

    Parameters
    ----------
    path : str or Path
        A compressor folder, or a hub id as a str; see :func:`embedpress.hub.compressor_folder`.
    num_threads : int, optional
        Threads of each call; by default all that this process may use.
    providers : sequence of str, optional
        ONNX Runtime execution providers, by default the CPU's.

    Attributes
    ----------
    dim, n_components, code_size : int (the last two or None)
    latent_sizes : tuple of int
        `n_components` and before it the sizes that are nested in it: the first so many floats
        of a latent, scored against as many of a query's, are a latent too.
    reranks : bool
        Whether there is a reranker of the first hits of a scan of codes.
    metric : {"cosine", "ip", "l2"}
    fingerprint : str
        sha256 of the trained weights and configuration.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        num_threads: int | None = None,
        providers: tuple[str, ...] = ("CPUExecutionProvider",),
    ) -> None:
        self.path = compressor_folder(path)
        self.config = read_config(self.path)
        self.dim: int = self.config["dim"]
        self.n_components: int | None = self.config.get("n_components")
        whole = [] if self.n_components is None else [self.n_components]
        self.latent_sizes: tuple[int, ...] = (*self.config.get("nested_sizes", []), *whole)
        self.code_size: int | None = self.config.get("code_size")
        self.reranks: bool = bool(self.config.get("reranker")) and self.code_size is not None
        self.metric: str = self.config["metric"]
        self.fingerprint: str = self.config["fingerprint"]
        self.num_threads = check_threads(num_threads)
        self.providers = providers
        self._sessions: dict[tuple[str, int], onnxruntime.InferenceSession] = {}

    def transform(self, X: ArrayLike) -> Floats:
        """Latents (n, n_components), float32, of embeddings (n, dim)."""
        self._need("n_components")
        return self._run(self._narrowest("latent_encoder.onnx"), "latents", self._embeddings(X))

    def inverse_transform(self, Z: ArrayLike) -> Floats:
        """Embeddings (n, dim), float32, restored from latents (n, n_components)."""
        width = self._need("n_components")
        latents = check_vectors(Z, dim=width, what="latents")
        return self._run("decoder.onnx", "embeddings", latents)

    def transform_queries(self, X: ArrayLike) -> Floats:
        """Query latents (n, n_components), float32, scored against latents by the metric."""
        self._need("n_components")
        return self._run("query_encoder.onnx", "latents", self._embeddings(X))

    def encode(self, X: ArrayLike) -> NDArray[np.uint8]:
        """Codes (n, code_size), uint8, of embeddings (n, dim)."""
        self._need("code_size")
        return self._run(self._narrowest("code_encoder.onnx"), "codes", self._embeddings(X))

    def decode(self, codes: ArrayLike) -> Floats:
        """Embeddings (n, dim), float32, restored from codes (n, code_size)."""
        width = self._need("code_size")
        checked = check_codes(np.asarray(codes), code_size=width)
        return self._run("code_decoder.onnx", "embeddings", checked)

    def encode_queries(self, X: ArrayLike) -> Floats:
        """Queries (n, code_size * slice), float32, as FAISS's scan of the codes takes them."""
        self._need("code_size")
        return self._run("query_encoder.onnx", "code_queries", self._embeddings(X))

    def rerank_documents(self, codes: ArrayLike) -> Floats:
        """What the reranker makes of codes (n, code_size): vectors (n, code width), float32."""
        width = self._need("code_size")
        self._need_reranker()
        checked = check_codes(np.asarray(codes), code_size=width)
        return self._run(RERANKER_GRAPHS[0], "documents", checked)

    def rerank_queries(self, X: ArrayLike) -> Floats:
        """Queries (n, code width), float32, scored against rerank documents by the metric."""
        self._need_reranker()
        return self._run(RERANKER_GRAPHS[1], "queries", self._embeddings(X))

    def codebooks(self) -> Floats:
        """Centroids (code_size, 256, slice), float32, of the product quantizer over codes."""
        from safetensors import safe_open

        code_size = self._need("code_size")
        file = self.path / "model.safetensors"
        try:
            if fingerprint(self.config, file) != self.fingerprint:
                raise FormatError(f"{file} or config.json was changed since it was saved")
            with safe_open(file, framework="numpy") as tensors:
                books = tensors.get_tensor("codes.quantizer.codebooks")
        except FormatError:
            raise
        except Exception as error:  # safetensors raises its own and OSError alike
            raise FormatError(f"{file} cannot be read: {error}") from None
        # FAISS would read past the end of codebooks that are too small.
        stages, groups = self.config.get("stages"), self.config.get("groups")
        whole = books.ndim == 4 and books.size > 0 and books.shape[:3] == (stages, groups, 256)
        if not whole or books.shape[0] * books.shape[1] != code_size:
            raise FormatError(f"{file}: codebooks of shape {books.shape} do not fit {code_size}")
        return check_vectors(books.reshape(-1, books.shape[3]), what="codebooks").reshape(
            code_size, books.shape[2], books.shape[3]
        )

    def check_canaries(self) -> int:
        """Encode the vectors stored with the compressor and compare.

        Returns
        -------
        int
            How many were compared; 0 for a folder without any.

        Raises
        ------
        MismatchError
            If this machine gives other results than the one that wrote the folder.
        """
        from embedpress.onnx.canary import check_vectors as check

        return check(self)

    def bad_files(self) -> list[str]:
        """Names of files that are missing or not this compressor's; empty when all hold."""
        bad = []
        weights = self.path / "model.safetensors"
        if not weights.is_file() or fingerprint(self.config, weights) != self.fingerprint:
            bad.append(weights.name)
        expected = ["encoder.onnx", "query_encoder.onnx"]
        expected += ["decoder.onnx"] if self.n_components else []
        expected += ["code_decoder.onnx"] if self.code_size else []
        expected += RERANKER_GRAPHS if self.reranks else []
        narrow = ("latent_encoder.onnx", "code_encoder.onnx")
        for name in [*expected, *(name for name in narrow if (self.path / name).exists())]:
            try:
                self.session(name)
            except FormatError:
                bad.append(name)
        # A session looks at its own file; a tokenizer, canaries, an extractor's graph have none.
        for name, digest in self.config.get("sha256", {}).items():
            file = self.path / Path(name).name
            if name in (*expected, *narrow) or (file.is_file() and sha256_of(file) == digest):
                continue
            bad.append(name)
        return bad

    def _embeddings(self, X: ArrayLike) -> Floats:
        return check_vectors(X, dim=self.dim, metric=self.metric)

    def _need(self, name: str) -> int:
        value: int | None = getattr(self, name)
        if value is None:
            raise InputError(f"the compressor at {self.path} has no {name}: fit it with one")
        return value

    def _need_reranker(self) -> None:
        if not self.reranks:
            raise InputError(f"the compressor at {self.path} has no reranker: fit it with one")

    def _narrowest(self, file: str) -> str:
        """The graph with only one output where both were exported: half the arithmetic."""
        return file if (self.path / file).is_file() else "encoder.onnx"

    def _run(self, file: str, output: str, x: NDArray[Any]) -> NDArray[Any]:
        parts = [x[start : start + BATCH_ROWS] for start in range(0, len(x), BATCH_ROWS)]
        # One block is shared out among the threads, several are worked on side by side.
        threads = min(self.num_threads, len(parts))
        session = self.session(file, num_threads=None if threads <= 1 else 1)

        def run(part: NDArray[Any]) -> NDArray[Any]:
            found: NDArray[Any] = session.run([output], {port: part})[0]
            return found

        try:
            port = session.get_inputs()[0].name
            if threads <= 1:
                blocks = [run(part) for part in parts]
            else:
                blocks = list(side_by_side(run, parts, threads))
        except Exception as error:  # onnxruntime's exceptions share no public base
            raise FormatError(f"{self.path / file} cannot be run: {first_line(error)}") from None
        found: NDArray[Any] = blocks[0] if len(blocks) == 1 else np.concatenate(blocks)
        width = self.config.get("code_width") or 0
        widths = {
            "latents": self.n_components,
            "codes": self.code_size,
            "embeddings": self.dim,
            "code_queries": (self.config.get("stages") or 0) * width,
            "documents": width,
            "queries": width,
        }
        if found.shape != (len(x), widths[output]):
            raise FormatError(f"{self.path / file}: {output} has the shape {found.shape}")
        return found

    def session(
        self, file: str, *, num_threads: int | None = None, varied_shapes: bool = False
    ) -> onnxruntime.InferenceSession:
        """The session of one of the folder's graphs, opened once; see :func:`open_session`.

        With `num_threads` another than the compressor's.
        """
        threads = num_threads or self.num_threads
        if (file, threads) not in self._sessions:
            self._sessions[file, threads] = open_session(
                self.path / file,
                stamps={"fingerprint": self.fingerprint, "metric": self.metric},
                sha256=self.config.get("sha256", {}).get(file),
                num_threads=threads,
                providers=self.providers,
                varied_shapes=varied_shapes,
            )
        return self._sessions[file, threads]


def fingerprint(config: dict[str, Any], weights: Path) -> str:
    """sha256 of a configuration and the trained weights, whatever the graphs made of them."""
    stable = {name: config[name] for name in config if name not in ("fingerprint", "sha256")}
    digest = hashlib.sha256(json.dumps(stable, sort_keys=True).encode())
    with weights.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def load(
    model: str | Path, *, revision: str | None = None, num_threads: int | None = None
) -> OnnxCompressor:
    """Open a compressor for use with ONNX Runtime alone.

    Parameters
    ----------
    model : str or Path
        A compressor folder, or a hub id such as ``"org/name"`` or ``"org/name@v1"``.
    revision : str, optional
        Branch, tag or commit on the hub.
    num_threads : int, optional
        Threads of each call; by default all that this process may use.

    Returns
    -------
    OnnxCompressor

    Raises
    ------
    UsageError, FormatError, MissingDependencyError
        See :func:`embedpress.hub.compressor_folder` and :class:`OnnxCompressor`.
    """
    return OnnxCompressor(compressor_folder(model, revision), num_threads=num_threads)
