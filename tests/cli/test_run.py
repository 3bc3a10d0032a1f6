"""The whole pipeline on a .txt, a .jsonl and a folder of photos."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch_files
from commands import Cli, sentences
from PIL import Image

from embedpress.index.search import open_index
from embedpress.vectors import open_vectors

SMALL = ("--n-components", 6, "--code-size", 4, "--epochs", 1, "--json")


def check_work(work: Path, count: int) -> None:
    """All folders are there and belong together."""
    assert open_vectors(work / "embeddings").count == count
    assert open_vectors(work / "codes").count == count
    assert (work / "map" / "map.png").read_bytes().startswith(b"\x89PNG")
    assert (work / "report" / "report.html").stat().st_size > 10_000
    index = open_index(work / "index", work / "model")
    queries = open_vectors(work / "embeddings").read().vectors[:20]
    found = index.search(queries, 10).rows
    assert np.mean([row in line for row, line in enumerate(found)]) > 0.5


def test_run_on_lines_and_again(cli: Cli, bert: Path, tmp_path: Path) -> None:
    source, work = tmp_path / "texts.txt", tmp_path / "work"
    source.write_text("\n".join(sentences(300)) + "\n")
    first = cli("run", source, "-o", work, "--model", bert, *SMALL)
    assert first.code == 0, first.err
    check_work(work, 300)
    before = {file: file.stat().st_mtime_ns for file in work.rglob("*") if file.is_file()}
    second = cli("run", source, "-o", work, "--model", bert, *SMALL)
    assert second.code == 0, second.err
    assert second.json == first.json
    after = {file: file.stat().st_mtime_ns for file in work.rglob("*") if file.is_file()}
    assert {f: t for f, t in after.items() if f.name != "job.lock"} == {
        f: t for f, t in before.items() if f.name != "job.lock"
    }
    other = cli("run", source, "-o", work, "--model", bert, "--seed", 1, *SMALL)
    assert other.code == 0, other.err
    check_work(work, 300)
    model = work / "model" / "model.safetensors"
    assert model.stat().st_mtime_ns != before[model]


def test_run_on_records(cli: Cli, bert: Path, tmp_path: Path) -> None:
    source = tmp_path / "texts.jsonl"
    lines = [json.dumps({"id": f"r{i}", "body": t}) for i, t in enumerate(sentences(300))]
    source.write_text("\n".join(lines) + "\n")
    ended = cli(
        "run", source, "-o", tmp_path / "work", "--model", bert,
        "--column", "body", "--id-column", "id", "--log-dir", tmp_path / "log", *SMALL,
    )  # fmt: skip
    assert ended.code == 0, ended.err
    check_work(tmp_path / "work", 300)
    assert list((tmp_path / "log").glob("events.out.tfevents.*"))


def test_run_finds_a_code_size(cli: Cli, bert: Path, tmp_path: Path) -> None:
    source, work = tmp_path / "texts.txt", tmp_path / "work"
    source.write_text("\n".join(sentences(300)) + "\n")
    command = ("run", source, "-o", work, "--model", bert, "--n-components", 6, "--epochs", 1)
    first = cli(*command, "--target-recall", 0.3, "--json")
    assert first.code == 0, first.err
    check_work(work, 300)
    made = first.json["compressor"]
    size = made["code_size"]
    assert made["target_reached"] is True
    assert open_vectors(work / "codes").dim == size == first.json["report"]["code_size"]
    words = cli(*command, "--code-size", "auto", "--target-recall", 0.3)
    assert f"OPQ at the same {size} bytes" in words.out


def test_run_on_photos(cli: Cli, tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    rng = np.random.default_rng(0)
    for label in ("red", "blue"):
        (photos / label).mkdir(parents=True)
        for i in range(30):
            pixels = rng.integers(0, 80, (40, 40, 3), dtype=np.uint8)
            pixels[..., 0 if label == "red" else 2] += 150
            Image.fromarray(pixels).save(photos / label / f"{i}.png")
    (photos / "red" / "broken.jpg").write_bytes(b"\xff\xd8\xff not a photo")
    weights = torch_files.save_resnet18(tmp_path / "resnet18.pth")
    ended = cli(
        "run", photos, "-o", tmp_path / "work", "--model", "resnet18", "--weights", weights, *SMALL
    )
    assert ended.code == 0, ended.err
    assert ended.json["count"] == 60
    skipped = (tmp_path / "work" / "embeddings" / "skipped.jsonl").read_text()
    assert json.loads(skipped)["id"] == "red/broken.jpg"
    vectors = open_vectors(tmp_path / "work" / "embeddings")
    assert set(vectors.read().metadata["label"].to_pylist()) == {"red", "blue"}


def test_run_refuses_a_missing_input(cli: Cli, tmp_path: Path) -> None:
    ended = cli("run", tmp_path / "none.txt", "-o", tmp_path / "work")
    assert ended.code == 2
    assert "none.txt" in ended.err
    assert not (tmp_path / "work").exists()


@pytest.mark.parametrize("name", ["a.txt", "b.jsonl"])
def test_run_refuses_an_empty_input(cli: Cli, bert: Path, tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("")
    ended = cli("run", tmp_path / name, "-o", tmp_path / "work", "--model", bert)
    assert ended.code in (1, 2)
    assert len(ended.err.strip().splitlines()) == 1
