"""What is served: a compressor, its extractor's graph, and an index that can be exchanged."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from embedpress.errors import InputError, MismatchError
from embedpress.extract.images import decode_image
from embedpress.index.search import SearchIndex
from embedpress.onnx.runtime import ImageEncoder, OnnxCompressor, TextEncoder, open_encoder
from embedpress.plain import plain
from embedpress.serve.batcher import Batcher
from embedpress.serve.metrics import Metrics
from embedpress.serve.points import Points
from embedpress.serve.refusal import RequestError
from embedpress.serve.settings import Settings

Floats = NDArray[np.float32]
VECTORS_A_BATCH = 256
MOST_PIXELS = 24_000_000


class Embedded(NamedTuple):
    """Embeddings of texts (n, d), and the tokens of all of them."""

    vectors: Floats
    tokens: int


@dataclass(frozen=True)
class Options:
    """What a search is asked with, besides its queries."""

    k: int = 10
    filter: str | None = None
    nprobe: int | None = None
    oversample: int | None = None
    rerank: bool | None = None


class Vectors(NamedTuple):
    """A part of a batch: vectors (n, d), and what is wanted of them."""

    x: Floats
    wanted: Any


@dataclass(frozen=True)
class Opened:
    """An index as it was loaded: never changed, only exchanged for another."""

    index: SearchIndex
    points: Points | None
    bytes: int


class Service:
    """A compressor and an index, asked by many clients at once.

    Parameters
    ----------
    settings : Settings
    metrics : Metrics

    Attributes
    ----------
    encoder : TextEncoder, ImageEncoder or None
        None where the compressor was exported without its extractor.
    opened : Opened
        The index that answers now.

    Raises
    ------
    EmbedpressError
        Files that are missing, damaged, or of different compressors; canary inputs whose
        results on this machine differ from those at the export.
    """

    def __init__(self, settings: Settings, metrics: Metrics) -> None:
        self.settings = settings
        model = Path(settings.model)
        self.encoder = open_encoder(model, num_threads=settings.threads)
        self.compressor: OnnxCompressor = (
            OnnxCompressor(model, num_threads=settings.threads)
            if self.encoder is None
            else self.encoder.compressor
        )
        self.canaries = (self.encoder or self.compressor).check_canaries()
        self._warm_up()
        self.opened = self.open()
        size = settings.max_batch
        self.texts = Batcher("text", self._embed_texts, size, settings, metrics)
        self.pictures = Batcher("image", self._embed_pictures, size, settings, metrics)
        self.vectors = Batcher("vector", self._compress, VECTORS_A_BATCH, settings, metrics)
        self.searches = Batcher("search", self._search, VECTORS_A_BATCH, settings, metrics)

    @property
    def takes(self) -> str | None:
        """What the extractor's graph takes: "text", "image", or None where there is none."""
        if isinstance(self.encoder, TextEncoder):
            return "text"
        return None if self.encoder is None else "image"

    def open(self) -> Opened:
        """The index folder as it is now, and the map over it."""
        index = SearchIndex(
            self.settings.index,
            self.compressor,
            memory_map=self.settings.memory_map or None,
            num_threads=self.settings.threads,
        )
        known = index.manifest.extractor.get("fingerprint")
        if self.encoder is not None and known not in (None, self.encoder.config.fingerprint):
            raise MismatchError(
                f"the index at {index.path} is of embeddings of another extractor than "
                f"{self.settings.model} was exported with: export it with that one"
            )
        points = None if self.settings.map is None else Points(self.settings.map, index)
        files = (file for file in index.path.rglob("*") if file.is_file())
        return Opened(index, points, sum(file.stat().st_size for file in files))

    def close(self) -> None:
        """Let the threads end."""
        for batcher in (self.texts, self.pictures, self.vectors, self.searches):
            batcher.close()

    def _warm_up(self) -> None:
        """Load every graph that requests will need, and find the damaged ones now."""
        x = np.ones((1, self.compressor.dim), np.float32)
        if self.compressor.code_size is not None:
            self.compressor.encode(x)
            self.compressor.encode_queries(x)
        if self.compressor.n_components is not None:
            self.compressor.transform(x)
            self.compressor.transform_queries(x)

    def _embed_texts(self, parts: list[list[str]]) -> list[Embedded | Exception]:
        if not isinstance(self.encoder, TextEncoder):
            raise RequestError(422, "this server embeds no texts", code="no_text_encoder")
        texts = [text for part in parts for text in part]
        tokens = self.encoder.tokenize(texts)
        vectors = self.encoder.embed_tokens(tokens)
        found: list[Embedded | Exception] = []
        low = 0
        for part in parts:
            high = low + len(part)
            found.append(Embedded(vectors[low:high], sum(map(len, tokens[low:high]))))
            low = high
        return found

    def _embed_pictures(self, parts: list[bytes]) -> list[Floats | Exception]:
        if not isinstance(self.encoder, ImageEncoder):
            raise RequestError(422, "this server embeds no pictures", code="no_image_encoder")
        found: dict[int, Floats | Exception] = {}
        held: dict[int, Any] = {}
        for place, raw in enumerate(parts):
            try:
                held[place] = decode_image(io.BytesIO(raw), max_pixels=MOST_PIXELS)
            except InputError as error:
                found[place] = RequestError(422, f"image: {error}", param="image")
            # Few are decoded at a time: they are far larger than their files.
            pixels = sum(picture.width * picture.height for picture in held.values())
            if held and (pixels > MOST_PIXELS or place == len(parts) - 1):
                found |= dict(zip(held, self.encoder.embed(list(held.values())), strict=True))
                held = {}
        return [found[place] for place in range(len(parts))]

    def _compress(self, parts: list[Vectors]) -> list[NDArray[Any] | Exception]:
        run = {
            "codes": self.compressor.encode,
            "latents": self.compressor.transform,
            "queries": self.compressor.transform_queries,
        }
        return _by_wanted(parts, lambda wanted, x: run[wanted](x))

    def _search(self, parts: list[Vectors]) -> list[list[list[dict[str, Any]]] | Exception]:
        opened = self.opened  # the same for the whole batch, whatever comes in meanwhile

        def search(options: Options, x: Floats) -> list[list[dict[str, Any]]]:
            hits = opened.index.search(x, **asdict(options))
            found = opened.index.records(hits)
            for (rows, _), records in zip(hits.lines(), found, strict=True):
                for row, record in zip(rows.tolist(), records, strict=True):
                    record.update(plain(record))
                    record["row"] = row
                    if opened.points is not None:
                        record["point"] = opened.points.of_row(row)
            return found

        return _by_wanted(parts, search)


def _by_wanted(parts: list[Vectors], run: Callable[[Any, Floats], Any]) -> list[Any]:
    """Run the parts that want the same together; what one group raises is not the others'."""
    found: list[Any] = [None] * len(parts)
    for wanted, places in _groups(parts):
        try:
            result = run(wanted, np.concatenate([parts[place].x for place in places]))
        except Exception as error:
            for place in places:
                found[place] = error
            continue
        low = 0
        for place in places:
            high = low + len(parts[place].x)
            found[place] = result[low:high]
            low = high
    return found


def _groups(parts: list[Vectors]) -> Iterator[tuple[Any, list[int]]]:
    groups: dict[Any, list[int]] = {}
    for place, part in enumerate(parts):
        groups.setdefault(part.wanted, []).append(place)
    yield from groups.items()
