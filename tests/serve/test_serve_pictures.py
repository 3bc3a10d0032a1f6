"""Search by a picture, and pictures of what was found."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from browser import chromium
from live import Live, live, post, wait_until
from PIL import Image
from samples import SMALL
from torch_files import save_resnet18

from embedpress.index.search import open_index
from embedpress.serve.pictures import thumbnail
from embedpress.serve.refusal import RequestError
from embedpress.serve.settings import Settings
from embedpress.vectors import open_vectors

ASKED = ("even/04.png", "odd/07.png", "odd/09.png")


def drawn(number: int) -> Image.Image:
    """A picture of soft waves, unlike every other."""
    rng = np.random.default_rng(number)
    x = np.linspace(0, 1, 96)
    waves = [
        np.outer(np.sin(a * x + b), np.cos(c * x + d)) for a, b, c, d in rng.uniform(0, 20, (3, 4))
    ]
    return Image.fromarray(np.uint8(127 + 127 * np.stack(waves, axis=2)))


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("photos")
    for number in range(40):
        place = folder / ("even" if number % 2 == 0 else "odd")
        place.mkdir(exist_ok=True)
        drawn(number).save(place / f"{number:02}.png")
    return folder


@pytest.fixture(scope="module")
def made(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the embeddings, the exported compressor and the index of photos."""
    from embedpress.autoencoder.estimator import Compressor
    from embedpress.autoencoder.pretrained import save
    from embedpress.extract.job import extract_images
    from embedpress.index.build import build_index
    from embedpress.onnx.compress import compress
    from embedpress.onnx.export import export

    work = tmp_path_factory.mktemp("pictures")
    weights = str(save_resnet18(work / "resnet18.pt"))
    extract_images(photos, work / "embeddings", model="resnet18", weights=weights)
    x = open_vectors(work / "embeddings").read(columns=()).vectors
    options = {**SMALL, "epochs": 1, "code_size": None, "n_components": 16}
    save(Compressor(**options).fit(x), work / "trained")
    export(
        work / "trained", work / "model", with_extractor="resnet18", weights=weights, num_threads=1
    )
    compress(work / "embeddings", work / "model", work / "latents", what="latents")
    build_index(work / "latents", work / "model", work / "index", num_threads=1)
    return work


@pytest.fixture(scope="module")
def shown(made: Path, photos: Path) -> Iterator[Live]:
    """A server over photos, asked by photos."""
    settings = Settings(
        str(made / "index"), str(made / "model"), image_root=str(photos), num_threads=1
    )
    with live(settings) as running:
        yield running


def encoded(image: Image.Image, kind: str = "PNG") -> str:
    out = io.BytesIO()
    image.save(out, kind)
    return base64.b64encode(out.getvalue()).decode()


def test_a_picture_finds_what_its_embedding_finds(shown: Live, made: Path) -> None:
    embeddings = open_vectors(made / "embeddings").read()
    rows = [embeddings.ids.to_pylist().index(name) for name in ASKED]
    index = open_index(made / "index", made / "model", num_threads=1)
    expected = index.search(embeddings.vectors[rows], 3)
    with shown.client() as http:
        body = {"image": [encoded(drawn(number)) for number in (4, 7, 9)], "k": 3}
        hits = post(http, "/v1/search", body).raise_for_status().json()["hits"]
        scores = [[hit["score"] for hit in line] for line in hits]
        np.testing.assert_allclose(scores, expected.scores, atol=1e-4)
        assert hits[0][0]["path"] == index.records(expected)[0][0]["path"]
        url = f"data:image/png;base64,{encoded(drawn(4))}"
        one = post(http, "/v1/search", {"image": url, "k": 3}).json()["hits"]
        assert [hit["row"] for hit in one[0]] == [hit["row"] for hit in hits[0]]
        latents = post(http, "/v1/compress", {"image": body["image"]}).json()
        assert (latents["what"], latents["size"], len(latents["data"])) == ("latents", 16, 3)


def bomb() -> str:
    """A small file of very many pixels."""
    return encoded(Image.new("1", (9000, 9000)))


@pytest.mark.parametrize(
    ("value", "status", "said"),
    [
        ("", 422, "known format"),
        ("AAAA", 422, "known format"),
        ("no base64!", 422, "base64"),
        (base64.b64encode(b"%!PS-Adobe-3.0 EPSF-3.0\n").decode(), 422, "known format"),
        (encoded(drawn(1))[:400], 422, "image: "),
        (bomb(), 422, "pixels"),
        ([], 422, "base64 of a picture"),
        ([7], 422, "base64"),
        ({"a": 1}, 422, "base64 of a picture"),
        (["AAAA"] * 33, 413, "at most 32"),
    ],
)
def test_what_is_no_picture(shown: Live, value: object, status: int, said: str) -> None:
    with shown.client() as http:
        answer = post(http, "/v1/search", {"image": value})
        assert answer.status_code == status
        assert said in answer.json()["error"]["message"]


def test_one_bad_picture_of_a_batch_is_named_and_others_go_on(shown: Live) -> None:
    with shown.client() as http:
        body = {"image": [encoded(drawn(1)), "AAAA"]}
        assert post(http, "/v1/search", body).status_code == 422
        assert post(http, "/v1/search", {"image": encoded(drawn(1))}).status_code == 200
        assert 'queue_depth{kind="image"} 0.0' in http.get("/metrics").text


def test_texts_are_not_taken(shown: Live) -> None:
    with shown.client() as http:
        answer = post(http, "/v1/search", {"text": "cats"})
        assert answer.status_code == 422
        assert "takes pictures, not texts" in answer.json()["error"]["message"]
        assert post(http, "/v1/embeddings", {"model": "model", "input": "a"}).status_code == 404


def test_a_small_picture_of_a_hit(shown: Live, photos: Path) -> None:
    Image.new("RGB", (3000, 1000), "red").save(photos / "large.png")
    with shown.client() as http:
        answer = http.get("/v1/pictures", params={"path": "large.png"})
        assert answer.headers["Content-Type"] == "image/jpeg"
        assert Image.open(io.BytesIO(answer.content)).size == (320, 107)
        for path in ("../large.png", "nothing.png", "", ".", "even", "/etc/passwd", "a\0b", "%2e"):
            answer = http.get("/v1/pictures", params={"path": path})
            assert (answer.status_code, answer.json()["error"]["param"]) == (404, "path")
        assert http.get("/v1/pictures").status_code == 422
        assert http.get("/v1/pictures", params={"path": "a" * 5000}).status_code == 422


def test_nothing_outside_of_the_root_is_shown(photos: Path, tmp_path: Path) -> None:
    inside, outside = tmp_path / "root", tmp_path / "outside"
    (inside / "sub").mkdir(parents=True)
    outside.mkdir()
    for folder in (inside, outside):
        drawn(0).save(folder / "a.png")
    (inside / "text.png").write_text("no picture")
    assert thumbnail(inside, "a.png") == thumbnail(inside, str(inside / "a.png"))
    assert thumbnail(inside, "sub/../a.png")
    (inside / "link.png").symlink_to(outside / "a.png")
    (inside / "sub" / "link").symlink_to(outside)
    (inside / "loop").symlink_to(inside / "loop")
    for name in (
        "link.png",
        "sub/link/a.png",
        "loop",
        "../outside/a.png",
        "sub/../../outside/a.png",
        str(outside / "a.png"),
        "text.png",
        "sub",
        "a" * 300,
        "~/a.png",
        "\ud800",
    ):
        with pytest.raises(RequestError) as error:
            thumbnail(inside, name)
        assert error.value.status == 404
        assert str(tmp_path) not in error.value.message
    with pytest.raises(RequestError):
        thumbnail(tmp_path / "gone", "a.png")


def test_the_page_shows_them_and_searches_by_one(shown: Live, photos: Path, tmp_path: Path) -> None:
    with chromium(tmp_path / "profile") as page:
        page.get(shown.url)
        wait_until(lambda: page.execute_script("return document.documentElement.dataset.state"))

        def pictures() -> list[list[Any]]:
            """Alternative texts and widths."""
            tell = "image => [image.alt, image.naturalWidth]"
            found: list[list[Any]] = page.execute_script(
                f"return [...document.querySelectorAll('#hits img')].map({tell})"
            )
            return found

        photo = page.find_element("css selector", "#photo")
        photo.send_keys(str(photos / "even" / "04.png"))
        wait_until(lambda: [width for _, width in pictures()] == [96] * 10)
        first = pictures()
        assert first[0][0] == "even/04.png"
        assert not page.find_element("css selector", "#query").is_displayed()
        page.find_elements("css selector", "#hits li")[1].click()
        wait_until(lambda: pictures()[0][0] == first[1][0])
        assert page.get_log("browser") == []
