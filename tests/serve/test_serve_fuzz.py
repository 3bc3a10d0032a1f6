"""Whatever is sent, the server answers, and never with its own failure."""

from __future__ import annotations

import json
from contextlib import suppress
from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.errors import Unsatisfiable
from live import Live

QUICK = settings(
    max_examples=40,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=list(HealthCheck),
)
LONG = settings(QUICK, max_examples=1000, derandomize=False)
PATHS = ("/v1/embeddings", "/v1/compress", "/v1/search")

numbers = st.floats() | st.integers() | st.sampled_from([1e300, 5e-324, 10**400, -(2**63)])
texts = st.text(st.characters(), max_size=40)
values = st.recursive(
    st.none() | st.booleans() | numbers | texts,
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(texts, inner, max_size=4),
    max_leaves=25,
)
SEARCH = ["text", "vector", "image", "k", "filter", "nprobe", "oversample", "rerank", "what"]
fields = st.sampled_from([*SEARCH, "input", "model", "encoding_format", "dimensions"])
likely = st.fixed_dictionaries(
    {},
    optional={
        "text": texts | st.lists(texts, max_size=4),
        "vector": st.lists(numbers, min_size=32, max_size=32) | st.lists(st.lists(numbers)),
        "image": texts | st.just("iVBORw0KGgoAAAANSUhEUgAA"),
        "k": st.integers(-5, 2000),
        "filter": texts | st.just('subject == "soup"'),
        "nprobe": st.integers(-1, 1 << 70),
        "model": st.just("glosses"),
        "input": texts | st.lists(texts, max_size=4) | st.lists(st.integers()),
        "dimensions": numbers,
    },
)
deep = st.builds(
    lambda opening, closing, depth: (opening * depth + closing * depth).encode(),
    st.sampled_from(["[", '{"a":', '{"text":[', '{"vector":[[']),
    st.sampled_from(["]", "}", "]}", ""]),
    st.integers(1, 20_000),
)
bodies = (
    st.builds(lambda value: json.dumps(value).encode(), values)
    | st.builds(lambda value: json.dumps(value).encode(), st.dictionaries(fields, values))
    | st.builds(lambda value: json.dumps(value).encode(), likely)
    | st.binary(max_size=200)
    | deep
)
types = st.sampled_from(["application/json"] * 9 + ["text/plain", "application/json; charset=x"])


def check(server: Live, path: str, body: bytes, kind: str) -> None:
    with server.client(headers={"Content-Type": kind}) as http:
        answer = http.post(path, content=body)
    assert answer.status_code < 500, answer.text
    told = answer.json()
    if answer.status_code >= 400:
        assert set(told["error"]) == {"message", "type", "param", "code"}
        assert len(told["error"]["message"]) < 12_000
    else:
        json.dumps(told, allow_nan=False)


@pytest.mark.parametrize("path", PATHS)
@QUICK
@given(body=bodies, kind=types)
def test_bodies_of_any_kind(server: Live, path: str, body: bytes, kind: str) -> None:
    check(server, path, body, kind)


@pytest.mark.slow
@pytest.mark.parametrize("path", PATHS)
@LONG
@given(body=bodies, kind=types)
def test_many_bodies_of_any_kind(server: Live, path: str, body: bytes, kind: str) -> None:
    check(server, path, body, kind)


@pytest.mark.parametrize("path", PATHS)
def test_huge_bodies(http: httpx.Client, path: str) -> None:
    for body in (b'{"text": "' + b"a" * (17 << 20) + b'"}', b"[" * (15 << 20)):
        answer = http.post(path, content=body, headers={"Content-Type": "application/json"})
        assert answer.status_code in (400, 413, 422)


def from_the_document(server: Live, examples: int) -> None:
    """Requests that the OpenAPI document allows, and such that it forbids, against the server."""
    schemathesis = pytest.importorskip("schemathesis", reason="needs the package schemathesis")
    from schemathesis import checks

    with server.client() as http:
        document = http.get("/openapi.json").json()
    schema = schemathesis.openapi.from_dict(document)
    schema.config.update(base_url=server.url)
    held = [
        checks.not_a_server_error,
        checks.status_code_conformance,
        checks.content_type_conformance,
        checks.response_schema_conformance,
    ]
    operations = [found.ok() for found in schema.get_all_operations()]
    assert {operation.path for operation in operations} >= {*PATHS, "/info", "/v1/map"}
    for operation in operations:
        for mode in schemathesis.GenerationMode:
            strategy = operation.as_strategy(generation_mode=mode)

            @settings(QUICK, max_examples=examples)
            @given(case=strategy)
            def send(case: Any) -> None:
                case.validate_response(case.call(timeout=30), checks=held)

            with suppress(Unsatisfiable):  # a path without parameters takes nothing wrong
                send()


def test_requests_made_of_the_openapi_document(server: Live) -> None:
    from_the_document(server, 8)


@pytest.mark.slow
def test_many_requests_made_of_the_openapi_document(server: Live) -> None:
    from_the_document(server, 300)
