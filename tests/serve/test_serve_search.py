from __future__ import annotations

import base64
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import numpy as np
import pytest
from live import Live, live, post

from embedpress.index.search import SearchIndex, open_index
from embedpress.serve.settings import Settings


@pytest.fixture(scope="module")
def opened(index: Path, model: Path) -> SearchIndex:
    return open_index(index, model, num_threads=1)


def search(http: httpx.Client, **body: object) -> list[list[dict[str, object]]]:
    return http.post("/v1/search", json=body).raise_for_status().json()["hits"]


def test_the_hits_of_vectors_are_those_of_the_index(
    http: httpx.Client, opened: SearchIndex, vectors: np.ndarray
) -> None:
    expected = opened.search(vectors[:20], k=7)
    found = search(http, vector=vectors[:20].tolist(), k=7)
    assert [[hit["row"] for hit in hits] for hits in found] == expected.rows.tolist()
    scores = [[hit["score"] for hit in hits] for hits in found]
    np.testing.assert_allclose(scores, expected.scores, rtol=1e-5)
    records = opened.records(expected)
    assert [hit["text"] for hit in found[3]] == [record["text"] for record in records[3]]
    assert [hit["id"] for hit in found[3]] == [record["id"] for record in records[3]]


def test_a_text_finds_what_its_embedding_finds(
    http: httpx.Client, texts: list[str], opened: SearchIndex, vectors: np.ndarray
) -> None:
    expected = opened.records(opened.search(vectors[:3], k=5))
    found = search(http, text=texts[:3], k=5)
    for hits, records in zip(found, expected, strict=True):
        np.testing.assert_allclose(
            [hit["score"] for hit in hits], [one["score"] for one in records], atol=1e-4
        )
    packed = base64.b64encode(vectors[0].astype("<f4").tobytes()).decode()
    assert [hit["id"] for hit in search(http, vector=packed, k=5)[0]] == [
        record["id"] for record in expected[0]
    ]


def test_a_filter_keeps_only_what_fits(http: httpx.Client, texts: list[str]) -> None:
    kept = search(http, text=["cats", "soup"], k=10, filter='subject == "soup" and words > 4')
    assert all(len(hits) == 10 for hits in kept)
    assert {hit["subject"] for hits in kept for hit in hits} == {"soup"}
    assert search(http, text="cats", filter='subject == "nobody"') == [[]]
    assert len(search(http, text="cats", k=1000)[0]) == len(texts)


def test_clients_at_the_same_time_get_each_their_own(
    server: Live, opened: SearchIndex, vectors: np.ndarray
) -> None:
    asked = [(row, 1 + row % 4, None if row % 3 else "words > 4") for row in range(60)]

    with server.client() as http, ThreadPoolExecutor(12) as pool:

        def ask(one: tuple[int, int, str | None]) -> list[object]:
            row, k, filter = one
            body = {"vector": vectors[row].tolist(), "k": k}
            return [
                hit["row"]
                for hit in search(http, **body, **({"filter": filter} if filter else {}))[0]
            ]

        found = list(pool.map(ask, asked))
    for (row, k, filter), rows in zip(asked, found, strict=True):
        assert rows == opened.search(vectors[row : row + 1], k, filter=filter).rows[0].tolist()
    text = httpx.get(f"{server.url}/metrics", trust_env=False).text
    assert 'embedpress_batch_size_bucket{kind="search",le="1.0"}' in text


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ({"text": "a", "filter": "subject ="}, "not an expression"),
        ({"text": "a", "filter": "__import__('os').system('true')"}, "cannot contain"),
        ({"text": "a", "filter": "colour == 1"}, "columns id, "),
        ({"text": "a", "filter": 'words == "x"'}, "unlike types"),
        ({"text": "a", "filter": "\ud800"}, "not an expression"),
        ({"text": "a", "filter": 7}, "string"),
        ({"text": "a", "k": 0}, "greater than or equal to 1"),
        ({"text": "a", "k": 1001}, "less than or equal to 1000"),
        ({"text": "a", "k": "ten"}, "integer"),
        ({"text": "a", "k": 2.5}, "integer"),
        ({"text": "a", "nprobe": 0}, "greater"),
        ({"text": "a", "rerank": True}, "nothing reranks"),
        ({"image": "AAAA"}, "takes texts, not pictures"),
        ({"k": 3}, "exactly one of"),
        ({"text": "a", "image": "AAAA"}, "exactly one of"),
    ],
)
def test_searches_that_cannot_be_answered(
    http: httpx.Client, body: dict[str, object], said: str
) -> None:
    answer = post(http, "/v1/search", body)
    assert answer.status_code == 422
    assert said in answer.json()["error"]["message"]


def test_a_bad_filter_is_not_its_neighbours_matter(server: Live) -> None:
    with server.client() as http, ThreadPoolExecutor(16) as pool:
        filters = ["nothing == 1" if i % 2 else "words > 0" for i in range(48)]
        answers = list(
            pool.map(
                lambda one: http.post("/v1/search", json={"text": "cats", "filter": one}), filters
            )
        )
    assert [answer.status_code for answer in answers] == [200, 422] * 24


def test_too_many_hits_in_all(http: httpx.Client) -> None:
    answer = http.post("/v1/search", json={"text": ["cats"] * 101, "k": 1000})
    assert answer.status_code == 413


def test_a_row_and_the_map(http: httpx.Client, texts: list[str]) -> None:
    record = http.get("/v1/records/7").raise_for_status().json()
    assert (record["id"], record["text"], record["row"]) == ("id 7", texts[7], 7)
    assert http.get("/v1/records/300").status_code == 404
    drawing = http.get("/v1/map").raise_for_status().json()
    assert drawing["count"] == drawing["drawn"] == 300
    assert sorted(drawing["groups"]) == sorted({text.split()[0] for text in texts})

    def column(name: str, dtype: str) -> np.ndarray:
        return np.frombuffer(base64.b64decode(drawing[name]), dtype)

    place = column("row", "<u4").tolist().index(7)
    point = [column("x", "<u2")[place] / 65535, column("y", "<u2")[place] / 65535]
    np.testing.assert_allclose(point, record["point"], atol=2e-5)
    assert drawing["groups"][column("group", "<u2")[place]] == texts[7].split()[0]
    hit = search(http, text=texts[7], k=300)[0]
    assert next(one["point"] for one in hit if one["row"] == 7) == record["point"]


def test_without_an_extractor_only_vectors_are_taken(
    settings: Callable[..., Settings],
    model: Path,
    vectors: np.ndarray,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("embedpress.serve.service.open_encoder", lambda *_, **__: None)
    with live(settings()) as running, running.client() as http:
        assert http.get("/info").json()["extractor"] is None
        assert http.get("/v1/models").json()["data"] == []
        assert len(search(http, vector=vectors[0].tolist())[0]) == 10
        answer = http.post("/v1/search", json={"text": "cats"})
        assert answer.status_code == 422
        assert "--with-extractor" in answer.json()["error"]["message"]
        answer = http.post("/v1/embeddings", json={"model": "glosses", "input": "cats"})
        assert answer.status_code == 404
        assert "--with-extractor" in answer.json()["error"]["message"]
        assert http.get("/v1/map").status_code == 404
        assert http.get("/v1/pictures", params={"path": "a.jpg"}).status_code == 404
