"""From texts or images to embeddings, latents and codes in one graph, with no torch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import chain, islice
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from embedpress.errors import FormatError, UsageError, first_line
from embedpress.onnx.compressor import Floats, OnnxCompressor
from embedpress.onnx.extractor import GRAPHS, ExtractorConfig, read_extractor
from embedpress.threads import side_by_side

Feed = tuple[list[int], Mapping[str, NDArray[np.generic]]]
"""Rows of one batch, and the arrays that the graph takes for them."""


class Encoder:
    """What :class:`~embedpress.onnx.text.TextEncoder` and
    :class:`~embedpress.onnx.image.ImageEncoder` share: one graph with three outputs.

    Attributes
    ----------
    path : Path
    config : ExtractorConfig
    compressor : OnnxCompressor
        Of the same folder.
    dim, n_components, code_size : int (the last two or None)
    """

    kind: str

    def __init__(
        self,
        path: str | Path,
        *,
        num_threads: int | None = None,
        providers: tuple[str, ...] = ("CPUExecutionProvider",),
    ) -> None:
        self.path = Path(path)
        self.config: ExtractorConfig = read_extractor(self.path)
        if self.config.kind != self.kind:
            raise UsageError(f"{self.path} encodes {self.config.kind}s, not {self.kind}s")
        self.compressor = OnnxCompressor(path, num_threads=num_threads, providers=providers)
        self.dim = self.compressor.dim
        self.n_components = self.compressor.n_components
        self.code_size = self.compressor.code_size
        self._session = self.compressor.session(GRAPHS[self.kind], varied_shapes=True)

    def _run(self, output: str, count: int, feeds: Iterator[Feed]) -> NDArray[np.generic]:
        width = {
            "embeddings": self.dim,
            "latents": self.n_components,
            "codes": self.code_size,
        }[output]
        if width is None:
            raise UsageError(f"the compressor at {self.path} gives no {output}: fit it with them")
        kind = np.uint8 if output == "codes" else np.float32
        found: NDArray[np.generic] = np.empty((count, width), kind)
        file, threads = GRAPHS[self.kind], self.compressor.num_threads
        session = self._session
        first = list(islice(feeds, 2))
        several = len(first) > 1 and threads > 1
        if several:
            # One batch is shared out among the threads, several are worked on side by side.
            session = self.compressor.session(file, num_threads=1, varied_shapes=True)

        def run(feed: Feed) -> tuple[list[int], NDArray[np.generic]]:
            try:
                part: NDArray[np.generic] = session.run([output], dict(feed[1]))[0]
            except Exception as error:  # onnxruntime's exceptions share no public base
                raise FormatError(
                    f"{self.path / file} cannot be run: {first_line(error)}"
                ) from None
            return feed[0], part

        batches = chain(first, feeds)
        for rows, part in side_by_side(run, batches, threads) if several else map(run, batches):
            if part.shape != (len(rows), width) or part.dtype != kind:
                raise FormatError(f"{self.path / file}: {output} has the shape {part.shape}")
            found[rows] = part
        return found


def as_floats(found: NDArray[np.generic]) -> Floats:
    """The same array, known to be float32."""
    return found.astype(np.float32, copy=False)
