from __future__ import annotations

import base64
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import numpy as np
import pytest
from live import Live, live, post

from embedpress.onnx.runtime import OnnxCompressor
from embedpress.serve.settings import Settings

openai = pytest.importorskip("openai", reason="needs the package openai")


@pytest.fixture
def client(server: Live) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(
        api_key="any",
        base_url=f"{server.url}/v1",
        max_retries=0,
        http_client=httpx.Client(trust_env=False),
    ) as client:
        yield client


@pytest.fixture(scope="module")
def latents(model: Path, vectors: np.ndarray) -> np.ndarray:
    return OnnxCompressor(model, num_threads=1).transform(vectors)


def test_a_list_of_texts_by_the_real_client(
    client: openai.OpenAI, texts: list[str], latents: np.ndarray
) -> None:
    # The client asks for base64 by itself, and makes floats of it.
    answer = client.embeddings.create(model="glosses", input=texts[:70])
    assert [one.index for one in answer.data] == list(range(70))
    found = np.array([one.embedding for one in answer.data], np.float32)
    np.testing.assert_allclose(found, latents[:70], atol=1e-4)
    assert answer.model == "glosses"
    assert answer.usage.prompt_tokens == answer.usage.total_tokens >= 70 * 3


def test_one_text_as_floats_and_as_base64(
    client: openai.OpenAI, texts: list[str], latents: np.ndarray
) -> None:
    floats = client.embeddings.create(model="glosses", input=texts[3], encoding_format="float")
    packed = client.embeddings.create(model="glosses", input=texts[3], encoding_format="base64")
    assert isinstance(floats.data[0].embedding, list)
    raw = np.frombuffer(base64.b64decode(packed.data[0].embedding), "<f4")
    np.testing.assert_array_equal(raw, np.asarray(floats.data[0].embedding, np.float32))
    np.testing.assert_allclose(raw, latents[3], atol=1e-4)


def test_the_models_give_latents_query_latents_and_embeddings(
    client: openai.OpenAI, texts: list[str], vectors: np.ndarray, model: Path
) -> None:
    assert [one.id for one in client.models.list()] == [
        "glosses",
        "glosses-queries",
        "glosses-embeddings",
    ]
    assert client.models.retrieve("glosses-queries").owned_by == "embedpress"
    compressor = OnnxCompressor(model, num_threads=1)
    for name, expected in (
        ("glosses-queries", compressor.transform_queries(vectors[:5])),
        ("glosses-embeddings", vectors[:5]),
    ):
        answer = client.embeddings.create(model=name, input=texts[:5])
        found = np.array([one.embedding for one in answer.data], np.float32)
        np.testing.assert_allclose(found, expected, atol=1e-4)


def test_dimensions_are_those_there_are(client: openai.OpenAI) -> None:
    whole = client.embeddings.create(model="glosses", input="cats", dimensions=6)
    assert len(whole.data[0].embedding) == 6
    short = client.embeddings.create(model="glosses", input="cats", dimensions=2)
    np.testing.assert_allclose(
        short.data[0].embedding, whole.data[0].embedding[:2], rtol=1e-5, atol=1e-6
    )
    with pytest.raises(openai.UnprocessableEntityError, match="must be 2 or 6") as error:
        client.embeddings.create(model="glosses", input="cats", dimensions=3)
    assert error.value.param == "dimensions"
    assert error.value.type == "invalid_request_error"


def test_a_model_of_another_name_is_not_found(client: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError, match="glosses-queries") as error:
        client.embeddings.create(model="text-embedding-3-small", input="cats")
    assert error.value.code == "model_not_found"
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("other")


@pytest.mark.parametrize("tokens", [[1, 2, 3], [[1, 2], [3]]])
def test_token_numbers_are_refused(client: openai.OpenAI, tokens: list[int]) -> None:
    with pytest.raises(openai.UnprocessableEntityError, match="another tokenizer") as error:
        client.embeddings.create(model="glosses", input=tokens)
    assert error.value.code == "token_input"


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ("", "empty"),
        ("  \n", "empty"),
        ([], "must be a text"),
        (["a", ""], r"input\[1\] is empty"),
        (["a", None], r"input\[1\] is not a text"),
        ({"a": 1}, "must be a text"),
        (True, "must be a text"),
        ("half \ud800 a pair", "surrogate"),
    ],
)
def test_what_is_no_text_is_refused(http: httpx.Client, value: object, said: str) -> None:
    answer = post(http, "/v1/embeddings", {"model": "glosses", "input": value})
    assert answer.status_code == 422
    assert answer.json()["error"]["param"] == "input"
    assert re.search(said, answer.json()["error"]["message"])


def test_a_text_that_is_too_long_and_too_many_texts(http: httpx.Client) -> None:
    for value in ("a" * 100_001, ["a"] * 1025):
        answer = http.post("/v1/embeddings", json={"model": "glosses", "input": value})
        assert answer.status_code == 413


def test_a_wrong_key_is_refused_and_the_right_one_is_not(
    settings: Callable[..., Settings],
) -> None:
    with live(settings(), api_key="secret-1") as running:
        options = {
            "base_url": f"{running.url}/v1",
            "max_retries": 0,
            "http_client": httpx.Client(trust_env=False),
        }
        right = openai.OpenAI(api_key="secret-1", **options)
        assert right.embeddings.create(model="glosses", input="cats").usage.total_tokens > 2
        for key in ("secret-2", "secret-", "secret-11", "Bearer"):
            wrong = openai.OpenAI(api_key=key, **options)
            with pytest.raises(openai.AuthenticationError, match="API key") as error:
                wrong.embeddings.create(model="glosses", input="cats")
            assert error.value.code == "invalid_api_key"
