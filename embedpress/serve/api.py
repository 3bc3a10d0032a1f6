"""The paths under /v1: embeddings, compression, search, and what the page needs."""

from __future__ import annotations

import asyncio
import base64
import time
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from fastapi import APIRouter, Query, Request
from fastapi import Path as InPath
from numpy.typing import NDArray
from starlette.responses import Response

from embedpress.hub import model_name
from embedpress.plain import plain
from embedpress.serve.batcher import Batcher, pieces
from embedpress.serve.inputs import Floats, pictures_of, texts_of, vectors_of
from embedpress.serve.pictures import thumbnail
from embedpress.serve.refusal import RequestError, answer
from embedpress.serve.schemas import (
    ERRORS,
    CompressRequest,
    CompressResponse,
    EmbeddingsRequest,
    EmbeddingsResponse,
    Question,
    SearchRequest,
    SearchResponse,
)
from embedpress.serve.service import VECTORS_A_BATCH, Options, Service, Vectors

MOST_HITS = 100_000
router = APIRouter(prefix="/v1", responses=ERRORS)


def service_of(request: Request) -> Service:
    """The service, or 503 while it is not loaded."""
    service: Service | None = request.app.state.watcher.service
    if service is None:
        raise RequestError(503, "not ready: see /ready", retry_after=1)
    return service


@router.post("/embeddings", response_model=EmbeddingsResponse)
async def embeddings(body: EmbeddingsRequest, request: Request) -> Response:
    """Latents of texts, as OpenAI's API gives embeddings."""
    service = service_of(request)
    wanted = _wanted_of(service, body.model)
    if service.takes != "text":
        raise RequestError(
            422, "this server's extractor takes pictures: use /v1/compress", param="input"
        )
    texts = texts_of(body.input, param="input", most=service.settings.max_inputs)
    sizes = (service.compressor.dim,) if wanted == "embeddings" else service.compressor.latent_sizes
    if body.dimensions not in (None, *sizes):
        given = " or ".join(map(str, sizes))
        raise RequestError(
            422, f"dimensions must be {given}: {body.model} has no other", param="dimensions"
        )
    with service.texts.admit(len(texts)):
        vectors, tokens = await _embed_texts(service, texts)
        if wanted != "embeddings":
            vectors = await _compress(service, vectors, wanted)
        vectors = vectors[:, : body.dimensions]
    return answer(
        {
            "object": "list",
            "data": [
                {"object": "embedding", "index": place, "embedding": vector}
                for place, vector in enumerate(_encoded(vectors, body.encoding_format))
            ],
            "model": body.model,
            "usage": {"prompt_tokens": tokens, "total_tokens": tokens},
        }
    )


@router.get("/models")
async def models(request: Request) -> Response:
    """The names that /v1/embeddings knows."""
    names = model_names(service_of(request))
    return answer({"object": "list", "data": [_model(name) for name in names]})


@router.get("/models/{name}")
async def model(name: str, request: Request) -> Response:
    """One of those names."""
    _wanted_of(service_of(request), name)
    return answer(_model(name))


@router.post("/compress", response_model=CompressResponse)
async def compress(body: CompressRequest, request: Request) -> Response:
    """Codes or latents of vectors, or of texts or pictures."""
    service = service_of(request)
    compressor = service.compressor
    what = body.what or ("latents" if compressor.code_size is None else "codes")
    size = compressor.code_size if what == "codes" else compressor.n_components
    if size is None:
        raise RequestError(422, f"this compressor makes no {what}", param="what")
    asked = _Asked(body, service)
    with asked.admitted():
        found = await _compress(service, await asked.embedded(), what)
    return answer(
        {
            "what": what,
            "size": size,
            "dtype": found.dtype.name,
            "encoding_format": body.encoding_format,
            "data": _encoded(found, body.encoding_format),
        }
    )


@router.post("/search", response_model=SearchResponse)
async def search(body: SearchRequest, request: Request) -> Response:
    """The nearest of the index, for each text, vector or picture."""
    service = service_of(request)
    asked = _Asked(body, service)
    if asked.count * body.k > MOST_HITS:
        raise RequestError(
            413,
            f"{asked.count} questions of {body.k} hits: ask for {MOST_HITS:,} at most",
            param="k",
        )
    options = Options(body.k, body.filter, body.nprobe, body.oversample, body.rerank)
    started = time.perf_counter()
    with asked.admitted():
        vectors = await asked.embedded()
        hits: list[list[dict[str, Any]]] = []
        for part in pieces(vectors, VECTORS_A_BATCH):
            hits += await service.searches.run(Vectors(part, options), len(part))
    seconds = round(time.perf_counter() - started, 6)
    return answer({"k": body.k, "seconds": seconds, "hits": hits})


@router.get("/records/{row}")
async def record(row: Annotated[int, InPath(ge=0, lt=1 << 40)], request: Request) -> Response:
    """Id and metadata of a row of the index."""
    opened = service_of(request).opened
    live, rows = opened.index.live, opened.index.manifest.rows
    if row >= rows or (live is not None and not live[row]):
        raise RequestError(404, f"the index has no row {row}", param="row")
    found = opened.index.table.slice(row, 1).to_pylist()[0]
    point = None if opened.points is None else opened.points.of_row(row)
    return answer({**plain(found), "row": row, "point": point})


@router.get("/map")
async def points(request: Request) -> Response:
    """The 2-D map that the server was started with."""
    opened = service_of(request).opened
    if opened.points is None:
        raise RequestError(404, "this server has no map: start it with --map FOLDER")
    return answer(await asyncio.to_thread(opened.points.drawing))


@router.get("/pictures", response_class=Response, responses={200: {"content": {"image/jpeg": {}}}})
async def picture(path: Annotated[str, Query(max_length=4096)], request: Request) -> Response:
    """A small JPEG of a photo under the image root."""
    root = service_of(request).settings.image_root
    if root is None:
        raise RequestError(404, "this server shows no pictures: start it with --image-root FOLDER")
    async with request.app.state.painting:
        jpeg = await asyncio.to_thread(thumbnail, Path(root), path)
    return Response(
        jpeg, media_type="image/jpeg", headers={"Cache-Control": "private, max-age=3600"}
    )


class _Asked:
    """The question of a request: read, admitted, and made into embeddings."""

    def __init__(self, body: Question, service: Service) -> None:
        given = [name for name in ("text", "vector", "image") if getattr(body, name) is not None]
        if len(given) != 1:
            raise RequestError(422, "ask with exactly one of text, vector and image")
        self.kind = given[0]
        self.service = service
        value, most = getattr(body, self.kind), service.settings.max_inputs
        self.inputs: Any
        if self.kind == "vector":
            self.inputs = vectors_of(
                value,
                param="vector",
                dim=service.compressor.dim,
                metric=service.compressor.metric,
                most=most,
            )
        elif service.takes != self.kind:
            raise RequestError(422, _no_extractor(service, self.kind), param=self.kind)
        else:
            check = texts_of if self.kind == "text" else pictures_of
            self.inputs = check(value, param=self.kind, most=most)
        self.count = len(self.inputs)

    def admitted(self) -> AbstractContextManager[None]:
        """Places in the queue for all of it, from now to the end of the block."""
        batchers: dict[str, Batcher[Any, Any]] = {
            "text": self.service.texts,
            "image": self.service.pictures,
            "vector": self.service.vectors,
        }
        return batchers[self.kind].admit(self.count)

    async def embedded(self) -> Floats:
        """Embeddings (n, dim), float32."""
        if self.kind == "text":
            return (await _embed_texts(self.service, self.inputs))[0]
        if self.kind == "image":
            run = self.service.pictures.run
            return np.stack(await asyncio.gather(*(run(picture, 1) for picture in self.inputs)))
        vectors: Floats = self.inputs
        return vectors


async def _embed_texts(service: Service, texts: list[str]) -> tuple[Floats, int]:
    found = [
        await service.texts.run(part, len(part))
        for part in pieces(texts, service.settings.max_batch)
    ]
    return np.concatenate([part.vectors for part in found]), sum(part.tokens for part in found)


async def _compress(service: Service, vectors: Floats, what: str) -> NDArray[Any]:
    return np.concatenate(
        [
            await service.vectors.run(Vectors(part, what), len(part))
            for part in pieces(vectors, VECTORS_A_BATCH)
        ]
    )


def model_names(service: Service) -> list[str]:
    """Names of what /v1/embeddings gives: NAME for latents, NAME-queries, NAME-embeddings."""
    if service.takes != "text":
        return []
    name = model_name(Path(service.settings.model))
    latents = [name, f"{name}-queries"] if service.compressor.n_components else []
    return [*latents, f"{name}-embeddings"]


def _wanted_of(service: Service, name: str) -> str:
    names = model_names(service)
    if name not in names:
        known = ", ".join(names) or "none: " + _no_extractor(service, "text")
        raise RequestError(
            404,
            f"no model of that name here; there is {known}",
            param="model",
            code="model_not_found",
        )
    suffix = name.removeprefix(model_name(Path(service.settings.model)))
    return {"": "latents", "-queries": "queries", "-embeddings": "embeddings"}[suffix]


def _model(name: str) -> dict[str, Any]:
    return {"id": name, "object": "model", "created": 0, "owned_by": "embedpress"}


def _no_extractor(service: Service, kind: str) -> str:
    if service.takes is None:
        return (
            "the compressor was exported without its extractor, so that only vectors can be "
            "taken: export it again with --with-extractor"
        )
    word = {"text": "texts", "image": "pictures"}
    return f"this server's extractor takes {word[service.takes]}, not {word[kind]}"


def _encoded(values: NDArray[Any], encoding: str) -> list[Any]:
    if encoding == "float":
        found: list[Any] = values.tolist()
        return found
    little = np.ascontiguousarray(values, values.dtype.newbyteorder("<"))
    return [base64.b64encode(row.tobytes()).decode("ascii") for row in little]
