from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from live import post

from embedpress.onnx.runtime import OnnxCompressor


@pytest.fixture(scope="module")
def compressor(model: Path) -> OnnxCompressor:
    return OnnxCompressor(model, num_threads=1)


def rows(answer: httpx.Response) -> np.ndarray:
    body = answer.raise_for_status().json()
    if body["encoding_format"] == "float":
        return np.array(body["data"], body["dtype"])
    dtype = np.dtype(body["dtype"]).newbyteorder("<")
    return np.array([np.frombuffer(base64.b64decode(row), dtype) for row in body["data"]])


@pytest.mark.parametrize("encoding", ["float", "base64"])
@pytest.mark.parametrize("packed", ["numbers", "a row each", "all rows at once"])
def test_codes_and_latents_of_vectors(
    http: httpx.Client,
    compressor: OnnxCompressor,
    vectors: np.ndarray,
    packed: str,
    encoding: str,
) -> None:
    x = vectors[:40]
    given: Any = x.tolist()
    if packed == "a row each":
        given = [base64.b64encode(row.astype("<f4").tobytes()).decode() for row in x]
    elif packed == "all rows at once":
        given = base64.b64encode(x.astype("<f4").tobytes()).decode()
    expected = {
        "codes": compressor.encode(x),
        "latents": compressor.transform(x),
        "queries": compressor.transform_queries(x),
    }
    for what, truth in expected.items():
        body = {"vector": given, "what": what, "encoding_format": encoding}
        answer = http.post("/v1/compress", json=body)
        assert answer.json()["size"] == truth.shape[1]
        np.testing.assert_allclose(rows(answer), truth, atol=1e-5)


def test_one_vector_and_the_defaults(
    http: httpx.Client, compressor: OnnxCompressor, vectors: np.ndarray
) -> None:
    answer = http.post("/v1/compress", json={"vector": vectors[7].tolist()})
    assert answer.json()["what"] == "codes"
    np.testing.assert_array_equal(rows(answer), compressor.encode(vectors[7:8]))


def test_codes_of_texts(
    http: httpx.Client, compressor: OnnxCompressor, texts: list[str], vectors: np.ndarray
) -> None:
    answer = http.post("/v1/compress", json={"text": texts[:9]})
    assert (rows(answer) == compressor.encode(vectors[:9])).mean() > 0.97


def test_whole_numbers_are_numbers(http: httpx.Client, compressor: OnnxCompressor) -> None:
    x = np.eye(32, dtype=np.float32)[:3]
    answer = http.post("/v1/compress", json={"vector": x.astype(int).tolist()})
    np.testing.assert_array_equal(rows(answer), compressor.encode(x))


GOOD = [0.1] * 32


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ([*GOOD[:-1], float("nan")], "NaN"),
        ([*GOOD[:-1], float("inf")], "infinity"),
        ([*GOOD[:-1], 1e300], "too large for float32"),
        ([*GOOD[:-1], 10**400], "something else than numbers"),
        ([0.0] * 32, "all zeros"),
        (GOOD[:-1], "31 dimensions, 32 were expected"),
        ([GOOD, GOOD[:-1]], "unequal length"),
        ([GOOD, "x"], "unequal length|numbers"),
        ([GOOD, None], "unequal length|numbers"),
        ([[GOOD]], "2-d"),
        ([*GOOD[:-1], "x"], "numbers"),
        ([*GOOD[:-1], None], "numbers"),
        ([True] * 32, "numbers"),
        ([], "a vector or a list"),
        ([[]], "empty"),
        ({"a": 1}, "a vector or a list"),
        (7, "a vector or a list"),
        ("!!!", "base64"),
        ("é", "base64"),
        ("AAAA", "base64 of 3 bytes"),
        ("", "base64 of 0 bytes"),
        (base64.b64encode(np.full(32, np.nan, "<f4").tobytes()).decode(), "NaN"),
    ],
)
def test_vectors_that_cannot_be_used(http: httpx.Client, value: object, said: str) -> None:
    answer = post(http, "/v1/compress", {"vector": value})
    assert answer.status_code == 422
    error = answer.json()["error"]
    assert error["param"] == "vector"
    assert any(word in error["message"] for word in said.split("|")), error


def test_too_many_vectors(http: httpx.Client) -> None:
    answer = http.post("/v1/compress", json={"vector": [GOOD] * 1025})
    assert answer.status_code == 413
    assert "at most 1,024" in answer.json()["error"]["message"]


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"text": "a", "vector": GOOD},
        {"vector": GOOD, "what": "floats"},
        {"vector": GOOD, "encoding_format": "int"},
        {"vector": GOOD, "waht": "codes"},
        [],
        7,
        None,
    ],
)
def test_bodies_that_ask_for_nothing_there_is(http: httpx.Client, body: object) -> None:
    answer = post(http, "/v1/compress", body)
    assert answer.status_code == 422
    assert answer.json()["error"]["type"] == "invalid_request_error"
