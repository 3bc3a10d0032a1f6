from __future__ import annotations

import http.client
import json
import re
import socket
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest
from live import Live, live, post

from embedpress.serve import guard
from embedpress.serve.settings import Settings

LIMIT = 20_000
DATA = ("/info", "/metrics", "/v1/models", "/v1/records/0", "/v1/map", "/v1/pictures?path=a")


@pytest.fixture(scope="module")
def small(settings: Callable[..., Settings]) -> Iterator[Live]:
    """A server of small limits, with a key."""
    limits = settings(max_body=LIMIT, max_queue=8, max_inputs=8)
    with live(limits, api_key="key") as running:
        yield running


KEY = {"Authorization": "Bearer key"}


def test_only_what_tells_nothing_is_open_without_the_key(small: Live) -> None:
    with small.client() as http:
        for path in guard.OPEN:
            assert http.get(path).status_code == 200, path
        for path in (*DATA, "/nothing", "/v1/embeddings"):
            answer = http.get(path)
            assert answer.status_code == 401, path
            assert answer.headers["WWW-Authenticate"] == "Bearer"
        for value in (b"key", b"Bearer", b"Basic key", b"bearer key", b"Bearer k\xe9"):
            assert http.get("/info", headers={"Authorization": value}).status_code == 401
        assert http.get("/info", headers=KEY).status_code == 200


def test_a_body_that_is_too_large(small: Live) -> None:
    with small.client(headers=KEY) as http:
        fits = {"text": "cats", "filter": "words > 0" + " " * 9000}
        assert post(http, "/v1/search", fits).status_code == 200
        answer = post(http, "/v1/search", {"text": "a" * LIMIT})
        assert answer.status_code == 413
        assert "20,000 bytes" in answer.json()["error"]["message"]
        # Without a Content-Length it is counted as it comes.
        chunks = (b"[" * 1000 for _ in range(100))
        assert http.post("/v1/search", content=chunks).status_code == 413


def test_a_body_that_never_ends_in_time(
    settings: Callable[..., Settings], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(guard, "BODY_SECONDS", 0.2)
    with live(settings()) as running:
        place = urlsplit(running.url)
        with socket.create_connection((place.hostname, place.port), timeout=10) as client:
            head = (
                f"POST /v1/search HTTP/1.1\r\nHost: {place.netloc}\r\nContent-Length: 100\r\n\r\n"
            )
            client.sendall(head.encode() + b'{"text":')
            assert client.recv(65_536).startswith(b"HTTP/1.1 408 ")


def test_large_bodies_together_hold_bounded_memory(
    settings: Callable[..., Settings], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(guard, "BODIES_HELD", 2)
    with live(settings(max_body=LIMIT)) as running:
        place = urlsplit(running.url)
        head = (
            f"POST /v1/search HTTP/1.1\r\nHost: {place.netloc}\r\nContent-Length: {LIMIT}\r\n\r\n"
        )
        open_ends = [socket.create_connection((place.hostname, place.port)) for _ in range(2)]
        for client in open_ends:
            client.sendall(head.encode() + b" " * (LIMIT - 1))
        with running.client() as http:
            statuses = {post(http, "/v1/search", {"text": "a"}).status_code for _ in range(20)}
            assert 429 in statuses
            for client in open_ends:
                client.close()
            statuses = [post(http, "/v1/search", {"text": "a"}).status_code for _ in range(20)]
            assert statuses[-1] == 200


def test_a_full_queue_answers_429_and_nothing_else(small: Live) -> None:
    with small.client(headers=KEY) as http, ThreadPoolExecutor(32) as pool:
        body = {"text": ["cats like soup at night"] * 3}
        answers = list(pool.map(lambda _: post(http, "/v1/search", body), range(200)))
        statuses = [answer.status_code for answer in answers]
        assert set(statuses) == {200, 429}
        refused = answers[statuses.index(429)]
        assert 1 <= int(refused.headers["Retry-After"]) <= 60
        assert refused.json()["error"]["type"] == "rate_limit_error"
        assert post(http, "/v1/search", body).status_code == 200
        depth = re.findall(r'queue_depth{kind="text"} (\S+)', http.get("/metrics").text)
        assert depth == ["0.0"]


@pytest.mark.parametrize(
    ("host", "status"),
    [("localhost", 200), ("LOCALHOST:1", 200), ("[::1]:80", 200), ("evil.example", 421), ("", 421)],
)
def test_names_that_are_not_the_loopbacks_are_not_answered(
    server: Live, host: str, status: int
) -> None:
    with server.client() as http:
        assert http.get("/info", headers={"Host": host}).status_code == status


def test_hosts_can_be_allowed(settings: Callable[..., Settings]) -> None:
    with live(settings(allowed_hosts=("search.example",))) as running, running.client() as http:
        assert http.get("/info", headers={"Host": "search.example:8080"}).status_code == 200
        assert http.get("/info").status_code == 421


def test_every_response_is_guarded(http: httpx.Client) -> None:
    for path in ("/", "/info", "/nothing", "/v1/records/999999"):
        headers = http.get(path).headers
        policy = headers["Content-Security-Policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        assert headers["X-Content-Type-Options"] == "nosniff"


@pytest.mark.parametrize("body", [b"", b"{", b"\xff\xfe", b"\x00" * 100, b"[" * 100_000, b"nul"])
def test_bodies_that_are_no_json(http: httpx.Client, body: bytes) -> None:
    for path in ("/v1/search", "/v1/compress", "/v1/embeddings"):
        answer = http.post(path, content=body, headers={"Content-Type": "application/json"})
        assert answer.status_code in (400, 422)
        assert set(answer.json()["error"]) == {"message", "type", "param", "code"}


def test_a_body_that_does_not_say_that_it_is_json(http: httpx.Client) -> None:
    for headers in ({}, {"Content-Type": "text/plain"}):
        answer = http.post("/v1/search", content=b'{"text": "cats"}', headers=headers)
        assert answer.status_code == 415
        assert "Content-Type: application/json" in answer.json()["error"]["message"]


def test_other_methods_and_paths(http: httpx.Client) -> None:
    assert http.get("/v1/search").status_code == 405
    assert http.delete("/info").status_code == 405
    for path in ("/nothing", "/v1/nothing", "/..%2f..%2fetc/passwd", "/docs", "/redoc"):
        answer = http.get(path)
        assert answer.status_code == 404
        assert answer.json()["error"]["type"] == "not_found_error"


def test_states_and_counters(http: httpx.Client, index: Path) -> None:
    assert http.get("/health").json() == {"status": "ok"}
    assert http.get("/ready").json()["status"] == "ready"
    info = http.get("/info").json()
    assert (info["index"]["count"], info["index"]["embedding_bytes"]) == (300, 128)
    assert info["index"]["columns"]["subject"] == "string"
    assert info["compressor"]["code_size"] == 4
    assert http.get("/metrics").headers["Content-Type"].startswith("text/plain")
    post(http, "/v1/search", {"text": "cats"})
    text = http.get("/metrics").text
    assert 'requests_total{method="POST",path="/v1/search",status="200"}' in text
    assert 'request_seconds_bucket{le="0.5",path="/v1/search"}' in text
    assert "embedpress_index_vectors 300.0" in text
    size = sum(file.stat().st_size for file in index.iterdir())
    assert f"embedpress_index_bytes {float(size)}" in text
    assert "wp-admin" not in http.get("/wp-admin.php").text
    assert 'path="other"' in http.get("/metrics").text or 'path="/{name}"' in text


def test_keep_alive_goes_on_after_a_refusal(server: Live) -> None:
    place = urlsplit(server.url)
    client = http.client.HTTPConnection(str(place.hostname), place.port, timeout=10)
    for text, status in (("", 422), ("cats", 200), (7, 422), ("cats", 200)):
        head = {"Content-Type": "application/json"}
        client.request("POST", "/v1/search", json.dumps({"text": text}), head)
        answer = client.getresponse()
        assert answer.status == status
        answer.read()
    client.close()
