from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch_files
from PIL import Image

from embedpress.errors import InputError, MismatchError, UsageError
from embedpress.extract import torchvision_trap
from embedpress.extract.image import ImageExtractor, load_image
from embedpress.extract.job import extract_images, extract_text
from embedpress.extract.text import TextExtractor
from embedpress.vectors import open_vectors

pytest.importorskip("torch")
torchvision_trap.prepare()
pytest.importorskip("transformers")
pytest.importorskip("torchvision")


class Killed(BaseException):
    """Stands for a signal: nothing may catch it."""


def kill_after(rows: int) -> Callable[[int], None]:
    seen = 0

    def progress(more: int) -> None:
        nonlocal seen
        seen += more
        if seen >= rows:
            raise Killed

    return progress


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.suffix != ".lock"}


@pytest.fixture
def reviews(tmp_path: Path) -> Path:
    lines = [
        json.dumps({"key": f"r{n:02d}", "body": "abc " * (n % 7) + str(n), "stars": n % 5})
        for n in range(25)
    ]
    lines[7:7] = ["", " "]
    lines[20] = json.dumps({"key": "long", "body": "x" * 100, "stars": 1, "note": "é"})
    path = tmp_path / "reviews.jsonl"
    path.write_text("\n".join(lines))
    return path


def text_job(reviews: Path, out: Path, bert: Path, **options: object) -> object:
    given = {"column": "body", "id_column": "key", "rows_per_shard": 10, **options}
    return extract_text(reviews, out, model=bert, **given)  # type: ignore[arg-type]


@pytest.mark.filterwarnings("ignore:texts longer than")
def test_text_to_shards(reviews: Path, bert: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    counted: list[int] = []
    manifest = extract_text(
        reviews,
        out,
        model=bert,
        column="body",
        id_column="key",
        rows_per_shard=10,
        progress=counted.append,
    )
    assert manifest.count == sum(counted) == 25
    assert [shard.rows for shard in manifest.shards] == [10, 10, 5]
    assert manifest.counters == {"truncated": 1, "blank": 2}
    assert (manifest.dim, manifest.metric, manifest.normalized) == (32, "cosine", False)
    assert (manifest.pooling, manifest.model) == ("mean", str(bert))
    extractor = TextExtractor(bert)
    assert manifest.config == {
        "extractor": "text",
        "fingerprint": extractor.fingerprint,
        "weights_sha256": extractor.weights_sha256,
        "column": "body",
        "id_column": "key",
        "max_length": 48,
        "rows_per_shard": 10,
    }
    records = [json.loads(line) for line in reviews.read_text().splitlines() if line.strip()]
    batch = open_vectors(out).read()
    assert batch.ids.to_pylist() == [record["key"] for record in records]
    assert batch.metadata.column_names == ["text", "stars", "note"]
    assert batch.metadata["text"].to_pylist() == [record["body"] for record in records]
    assert batch.metadata["stars"].to_pylist() == [record["stars"] for record in records]
    expected = extractor.encode([record["body"] for record in records])
    np.testing.assert_allclose(batch.vectors, expected, atol=1e-5)
    schema = pq.read_schema(out / "part-00000.parquet")
    assert schema.names == ["id", "vector", "text", "stars", "note"]


@pytest.mark.filterwarnings("ignore:texts longer than")
def test_a_killed_text_job_goes_on_to_the_same_bytes(
    reviews: Path, bert: Path, tmp_path: Path
) -> None:
    text_job(reviews, tmp_path / "whole", bert)
    whole = contents(tmp_path / "whole")
    out = tmp_path / "out"
    for rows in (10, 20, 25):
        with pytest.raises(Killed):
            text_job(reviews, out, bert, progress=kill_after(rows))
    text_job(reviews, out, bert)
    assert contents(out) == whole
    text_job(reviews, out, bert, batch_tokens=48, num_threads=1)
    assert contents(out) == whole
    (out / "part-00001.parquet").write_bytes(b"spoilt")
    text_job(reviews, out, bert)
    assert contents(out) == whole


@pytest.mark.filterwarnings("ignore:texts longer than")
def test_other_options_or_inputs_are_refused(reviews: Path, bert: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    text_job(reviews, out, bert)
    with pytest.raises(MismatchError, match="pooling was 'mean', now 'cls'"):
        text_job(reviews, out, bert, pooling="cls")
    with pytest.raises(MismatchError, match="max_length was 48, now 20"):
        text_job(reviews, out, bert, max_length=20)
    reviews.write_text(reviews.read_text().replace("abc", "abd"))
    with pytest.raises(MismatchError, match="input data"):
        text_job(reviews, out, bert)


def test_bad_input_is_found_before_anything_is_written(
    reviews: Path, bert: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    with pytest.raises(UsageError, match="rows_per_shard"):
        text_job(reviews, out, bert, rows_per_shard=0)
    with pytest.raises(UsageError, match="batch_tokens"):
        text_job(reviews, out, bert, batch_tokens=10)
    with pytest.raises(UsageError, match="no such model folder"):
        text_job(reviews, out, tmp_path / "none")
    reviews.write_text(reviews.read_text() + "\n{")
    with pytest.raises(InputError, match=r"reviews\.jsonl, line 28: not JSON"):
        text_job(reviews, out, bert)
    assert not out.exists()


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return torch_files.save_resnet18(tmp_path_factory.mktemp("weights") / "resnet18.pth")


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    folder = tmp_path / "photos"
    for number in range(9):
        path = folder / ("cat" if number % 2 else "dog") / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (40, 50, 3), np.uint8)).save(path)
    (folder / "cat" / "bad.jpg").write_bytes(b"not an image")
    (folder / "dog" / "cut.png").write_bytes((folder / "dog" / "0.png").read_bytes()[:900])
    (folder / "dog" / "notes.txt").write_text("no photo")
    return folder


def image_job(photos: Path, out: Path, weights: Path, **options: object) -> object:
    given = {"model": "resnet18", "weights": weights, "rows_per_shard": 4, **options}
    return extract_images(photos, out, **given)  # type: ignore[arg-type]


def test_images_to_shards(photos: Path, weights: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    manifest = extract_images(
        photos, out, model="resnet18", weights=weights, batch_size=3, rows_per_shard=4
    )
    assert (manifest.count, manifest.dim, manifest.metric) == (9, 512, "cosine")
    assert [shard.rows for shard in manifest.shards] == [4, 3, 2]
    assert manifest.counters == {"skipped": 2}
    assert manifest.model == "resnet18"
    extractor = ImageExtractor("resnet18", weights=weights)
    assert manifest.revision == f"sha256:{extractor.weights_sha256}"
    assert manifest.config["weights_sha256"] == extractor.weights_sha256
    assert manifest.config["transform"] == extractor.transform.to_dict()
    assert str(tmp_path) not in manifest.to_json()
    skipped = [json.loads(line) for line in (out / "skipped.jsonl").read_text().splitlines()]
    assert [entry["id"] for entry in skipped] == ["cat/bad.jpg", "dog/cut.png"]
    assert skipped[0]["reason"] == "not an image of a known format"
    assert "truncated" in skipped[1]["reason"]
    batch = open_vectors(out).read()
    ids = batch.ids.to_pylist()
    assert ids == [f"cat/{n}.png" for n in (1, 3, 5, 7)] + [f"dog/{n}.png" for n in (0, 2, 4, 6, 8)]
    assert batch.metadata.to_pylist() == [
        {"path": name, "label": name.split("/")[0]} for name in ids
    ]
    expected = extractor.encode([load_image(photos / name) for name in ids])
    np.testing.assert_allclose(batch.vectors, expected, rtol=1e-4, atol=1e-5)


def test_a_killed_image_job_goes_on_to_the_same_bytes(
    photos: Path, weights: Path, tmp_path: Path
) -> None:
    image_job(photos, tmp_path / "whole", weights)
    whole = contents(tmp_path / "whole")
    out = tmp_path / "out"
    for rows in (4, 8):
        with pytest.raises(Killed):
            image_job(photos, out, weights, progress=kill_after(rows))
    image_job(photos, out, weights)
    assert contents(out) == whole
    assert set(whole) == {"manifest.json", "skipped.jsonl"} | {
        f"part-0000{n}.parquet" for n in range(3)
    }


def test_too_many_skipped_photos_end_the_job(photos: Path, weights: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    with pytest.raises(
        InputError, match=r"1 images cannot be read, more than max_skipped=0.*cat/bad\.jpg: not an"
    ):
        image_job(photos, out, weights, max_skipped=0)
    assert len(list(out.glob("*.parquet"))) == 1
    with pytest.raises(InputError, match=r"2 images cannot be read, .*dog/cut\.png"):
        image_job(photos, out, weights, max_skipped=1)
    assert len(list(out.glob("*.parquet"))) == 2
    # The first was skipped by the run before, and still counts.
    with pytest.raises(InputError, match="2 images cannot be read, more than max_skipped=1"):
        image_job(photos, out, weights, max_skipped=1)
    assert image_job(photos, out, weights, max_skipped=2)


def test_nothing_readable_is_an_error(tmp_path: Path, weights: Path) -> None:
    folder = tmp_path / "photos"
    folder.mkdir()
    for number in range(3):
        (folder / f"{number}.png").write_bytes(b"x")
    with pytest.raises(InputError, match=r"none of the 3 images can be read; .* 2\.png: not an"):
        image_job(folder, tmp_path / "out", weights)


def test_photos_without_folders_have_no_label(tmp_path: Path, weights: Path, photos: Path) -> None:
    out = tmp_path / "out"
    image_job(photos / "cat", out, weights)
    assert open_vectors(out).metadata_columns == ["path"]


def test_changed_photos_are_noticed(photos: Path, weights: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    image_job(photos, out, weights)
    # Of the same size in bytes, with another pixel: only the contents tell.
    path = photos / "dog" / "cut.png"
    path.write_bytes(path.read_bytes()[:-1] + b"\0")
    with pytest.raises(MismatchError, match="input data"):
        image_job(photos, out, weights)


def test_bad_options(photos: Path, weights: Path, tmp_path: Path) -> None:
    for options, message in (
        ({"batch_size": 0}, "batch_size"),
        ({"max_skipped": -1}, "max_skipped"),
        ({"rows_per_shard": 0}, "rows_per_shard"),
        ({"num_threads": 0}, "num_threads"),
    ):
        with pytest.raises(UsageError, match=message):
            image_job(photos, tmp_path / "out", weights, **options)
    assert not (tmp_path / "out").exists()
