"""Bodies of requests and responses, as the OpenAPI document describes them."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, WithJsonSchema

_NUMBERS = {"type": "array", "items": {"type": "number"}, "minItems": 1}
_TEXTS = {"type": "array", "items": {"type": "string", "minLength": 1}, "minItems": 1}
_ONE_TEXT = {"type": "string", "minLength": 1}

# Checked by our own code: a vector of floats is checked fastest as an array.
Texts = Annotated[Any, WithJsonSchema({"anyOf": [_ONE_TEXT, _TEXTS]})]
VectorsIn = Annotated[
    Any,
    WithJsonSchema(
        {
            "anyOf": [
                _ONE_TEXT,
                _TEXTS,
                _NUMBERS,
                {"type": "array", "items": _NUMBERS, "minItems": 1},
            ],
            "description": "A vector or several: numbers, or base64 of little-endian float32.",
        }
    ),
]
Pictures = Annotated[
    Any,
    WithJsonSchema(
        {"anyOf": [_ONE_TEXT, _TEXTS], "description": "Base64 of a photo's file, or several."}
    ),
]
Encoding = Literal["float", "base64"]


class EmbeddingsRequest(BaseModel):
    """OpenAI's request; fields that mean nothing here are passed over."""

    input: Texts
    model: str
    encoding_format: Encoding = "float"
    dimensions: int | None = Field(None, ge=1)


class Question(BaseModel):
    """Exactly one of texts, vectors and pictures; each one or a list."""

    model_config = ConfigDict(extra="forbid")

    text: Texts | None = None
    vector: VectorsIn | None = None
    image: Pictures | None = None


class CompressRequest(Question):
    """What to compress, and to what."""

    what: Literal["codes", "latents", "queries"] | None = Field(
        None,
        description=(
            "codes (uint8), latents (float32), or queries: the latents to search latents with. "
            "Codes where the compressor has them."
        ),
    )
    encoding_format: Encoding = "base64"


class SearchRequest(Question):
    """A search; a list of questions is answered as one batch."""

    k: int = Field(10, ge=1, le=1000, strict=True, description="Hits a question.")
    filter: str | None = Field(None, description='As in: label == "food" and year > 2000')
    nprobe: int | None = Field(None, ge=1, le=1 << 20, description="Inverted lists to visit.")
    oversample: int | None = Field(
        None, ge=1, le=100, description="Hits reordered, as a multiple of k."
    )
    rerank: bool | None = Field(
        None, description="By default, whether there is a rerank tier or a reranker."
    )


class ErrorDetail(BaseModel):
    """What was wrong."""

    message: str
    type: str
    param: str | None
    code: str | None


class ErrorBody(BaseModel):
    """OpenAI's shape of an error."""

    error: ErrorDetail


class Embedding(BaseModel):
    """One input's vector."""

    object: Literal["embedding"]
    index: int
    embedding: list[float] | str


class Usage(BaseModel):
    """Tokens of the input that were read, special ones counted."""

    prompt_tokens: int
    total_tokens: int


class EmbeddingsResponse(BaseModel):
    """OpenAI's response."""

    object: Literal["list"]
    data: list[Embedding]
    model: str
    usage: Usage


class CompressResponse(BaseModel):
    """Rows in the order of the request."""

    what: Literal["codes", "latents", "queries"]
    size: int = Field(description="Values a row.")
    dtype: Literal["uint8", "float32"]
    encoding_format: Encoding
    data: list[list[float]] | list[str]


class SearchResponse(BaseModel):
    """A list of hits a question, best first: id, score, row and the index's metadata."""

    k: int
    seconds: float
    hits: list[list[dict[str, Any]]]


ERRORS: dict[int | str, dict[str, Any]] = {
    status: {"model": ErrorBody, "description": why}
    for status, why in {
        400: "Not JSON.",
        401: "No key, or another.",
        404: "Not there.",
        408: "The body took too long.",
        413: "Too large, or too many inputs.",
        415: "Another Content-Type than JSON.",
        421: "Another Host.",
        422: "It cannot be used; the message says why.",
        429: "The queue is full; Retry-After says when to come again.",
        503: "Not ready.",
    }.items()
}
