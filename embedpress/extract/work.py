"""The work of extraction: texts or photos to embeddings, in whatever process it runs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from embedpress.engine.job import Piece
from embedpress.errors import MismatchError
from embedpress.extract.image import ImageExtractor
from embedpress.extract.images import ImageFile, read_batches
from embedpress.extract.text import TextExtractor
from embedpress.extract.texts import TextChunk
from embedpress.extract.transform import ImageTransform
from embedpress.vectors.shard import shard_table

Photos: TypeAlias = tuple[list[ImageFile], list[npt.NDArray[np.float32] | str]]


class Embedder:
    """An extractor with the options that make it; pickled, it is the options alone."""

    def __init__(self, extractor: TextExtractor | ImageExtractor, **options: Any) -> None:
        self._extractor: Any = extractor
        self._kind: Any = type(extractor)
        self._fingerprint = extractor.fingerprint
        self._options = tuple((name, _anywhere(value)) for name, value in options.items())

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_extractor": None}

    @property
    def extractor(self) -> Any:
        """The extractor, made once in each process.

        Raises
        ------
        MismatchError
            If the model is another than where the job was started.
        """
        if self._extractor is None:
            self._extractor = _made(self._kind, self._options, self._fingerprint)
        return self._extractor


def _anywhere(value: Any) -> Any:
    """A path that means the same in a process that works elsewhere; other values as they are."""
    if isinstance(value, (str, Path)) and Path(value).exists():
        return str(Path(value).absolute())
    return value


@lru_cache(maxsize=1)
def _made(kind: Any, options: tuple[tuple[str, Any], ...], fingerprint: str) -> Any:
    extractor = kind(**dict(options))
    if extractor.fingerprint != fingerprint:
        raise MismatchError(
            f"{extractor.model_id} is another model in this process than where the job began:"
            " give every machine the same files"
        )
    return extractor


@dataclass(frozen=True)
class EmbedTexts:
    """Embeds a chunk of texts."""

    embedder: Embedder
    batch_tokens: int

    def __call__(self, chunk: TextChunk) -> Piece:
        """Embed the texts; their other columns are kept."""
        extractor = self.embedder.extractor
        before = extractor.truncated
        vectors = extractor.encode(chunk.texts, batch_tokens=self.batch_tokens)
        # Not add_column: a table without columns may count no rows.
        columns = dict(zip(chunk.metadata.column_names, chunk.metadata.columns, strict=True))
        metadata = pa.table({"text": pa.array(chunk.texts, pa.string()), **columns})
        counters = {"truncated": extractor.truncated - before, "blank": chunk.blank}
        return Piece(shard_table(chunk.ids, vectors, metadata), counters=counters)


@dataclass(frozen=True)
class ReadPhotos:
    """Reads photos in batches, by threads of its own."""

    transform: ImageTransform
    batch_size: int
    num_threads: int

    def __call__(self, files: list[ImageFile]) -> Iterator[Photos]:
        """Yield batches of files, with the pixels of each or why there are none."""
        return read_batches(files, self.transform, self.batch_size, self.num_threads)


@dataclass(frozen=True)
class EmbedPhotos:
    """Embeds a batch of photos and notes those that could not be read."""

    embedder: Embedder
    labelled: bool

    def __call__(self, photos: Photos) -> Piece:
        """Embed what could be read."""
        extractor = self.embedder.extractor
        pairs = list(zip(*photos, strict=True))
        kept = [file for file, found in pairs if not isinstance(found, str)]
        pixels = [found for _, found in pairs if not isinstance(found, str)]
        skipped = [
            {"id": file.id, "reason": found} for file, found in pairs if isinstance(found, str)
        ]
        vectors = (
            extractor.encode_pixels(np.stack(pixels))
            if pixels
            else np.empty((0, extractor.dim), np.float32)
        )
        columns = {"path": pa.array([file.id for file in kept], pa.string())}
        if self.labelled:
            columns["label"] = pa.array([file.label for file in kept], pa.string())
        ids = pa.array([file.id for file in kept], pa.string())
        table = shard_table(ids, vectors, pa.table(columns))
        return Piece(table, skipped=skipped, counters={"skipped": len(skipped)})
