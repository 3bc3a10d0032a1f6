"""From texts or images to embeddings, latents and codes in one graph, with no torch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import chain, islice
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from embedpress.errors import FormatError, InputError, UsageError, first_line
from embedpress.onnx.compressor import Floats, OnnxCompressor
from embedpress.onnx.extractor import GRAPHS, ExtractorConfig, read_extractor
from embedpress.threads import side_by_side
from embedpress.vectors.check import first_problem

Feed = tuple[list[int], Mapping[str, NDArray[np.generic]]]
"""Rows of one batch, and the arrays that the graph takes for them."""
Part = tuple[list[int], NDArray[np.generic]]
"""Rows, and what was found for them."""

COMPRESSED_ROWS = 1024
"""Embeddings that are compressed at once, where there are several batches."""


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
        widths = {
            "embeddings": self.dim,
            "latents": self.n_components,
            "codes": self.code_size,
        }
        width = widths[output]
        if width is None:
            raise UsageError(f"the compressor at {self.path} gives no {output}: fit it with them")
        kinds = {"embeddings": np.float32, "latents": np.float32, "codes": np.uint8}
        found: NDArray[np.generic] = np.empty((count, width), kinds[output])
        file, threads = GRAPHS[self.kind], self.compressor.num_threads
        session, wanted = self._session, output
        first = list(islice(feeds, 2))
        several = len(first) > 1 and threads > 1
        if several:
            # One batch is shared out among the threads, several are worked on side by side.
            session = self.compressor.session(file, num_threads=1, varied_shapes=True)
        if len(first) > 1:
            # The compressor's products are too small for the few rows of each batch.
            wanted = "embeddings"

        def run(feed: Feed) -> Part:
            try:
                part: NDArray[np.generic] = session.run([wanted], dict(feed[1]))[0]
            except Exception as error:  # onnxruntime's exceptions share no public base
                raise FormatError(
                    f"{self.path / file} cannot be run: {first_line(error)}"
                ) from None
            if part.shape != (len(feed[0]), widths[wanted]) or part.dtype != kinds[wanted]:
                raise FormatError(f"{self.path / file}: {wanted} has the shape {part.shape}")
            return feed[0], part

        batches = chain(first, feeds)
        parts: Iterator[Part] = (
            side_by_side(run, batches, threads) if several else map(run, batches)
        )
        if wanted != output:
            parts = self._compressed(output, parts)
        for rows, part in parts:
            found[rows] = part
        return found

    def _compressed(self, output: str, parts: Iterator[Part]) -> Iterator[Part]:
        """Latents or codes of embeddings, many batches at a time."""
        compress = self.compressor.encode if output == "codes" else self.compressor.transform
        rows: list[int] = []
        embeddings: list[NDArray[np.generic]] = []

        def compressed() -> Part:
            x = as_floats(np.concatenate(embeddings))
            problem = first_problem(x, x, self.compressor.metric)
            if problem is not None:
                # The compressor would name the row of this block, which no caller knows.
                raise InputError(f"row {rows[problem[0]]}: its embedding {problem[1]}")
            return rows, compress(x)

        for more, part in parts:
            rows += more
            embeddings.append(part)
            if len(rows) >= COMPRESSED_ROWS:
                yield compressed()
                rows, embeddings = [], []
        if rows:
            yield compressed()


def as_floats(found: NDArray[np.generic]) -> Floats:
    """The same array, known to be float32."""
    return found.astype(np.float32, copy=False)
