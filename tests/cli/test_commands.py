"""Every command on small real files, one after the other, as a user chains them."""

from __future__ import annotations

import json
from pathlib import Path

import faiss
import numpy as np
import pyarrow.parquet as pq
import pytest
from commands import Cli, sentences

import embedpress
from embedpress.vectors import open_vectors

N = 400
FIT = ("--n-components", 8, "--code-size", 8, "--hidden-sizes", "16", "--epochs", 2)


@pytest.fixture
def embeddings(cli: Cli, bert: Path, tmp_path: Path) -> Path:
    texts = sentences(N)
    lines = [
        json.dumps({"key": f"t{i}", "text": text, "label": text.split()[0], "words": len(text)})
        for i, text in enumerate(texts)
    ]
    (tmp_path / "texts.jsonl").write_text("\n".join(lines) + "\n")
    out = tmp_path / "embeddings"
    ended = cli(
        "extract", "text", tmp_path / "texts.jsonl", "-o", out, "--model", bert,
        "--id-column", "key", "--json",
    )  # fmt: skip
    assert ended.code == 0, ended.err
    assert (ended.json["count"], ended.json["dim"]) == (N, 32)
    return out


@pytest.fixture
def model(cli: Cli, embeddings: Path, tmp_path: Path) -> Path:
    ended = cli("fit", embeddings, "-o", tmp_path / "model", *FIT, "--json")
    assert ended.code == 0, ended.err
    held = ended.json["held_out"]["codes"]
    assert held["trained"] >= held["start"] > 0
    assert held["start_method"] == "OPQ"
    return tmp_path / "model"


@pytest.fixture
def codes(cli: Cli, embeddings: Path, model: Path, tmp_path: Path) -> Path:
    ended = cli("compress", embeddings, "-m", model, "-o", tmp_path / "codes", "--json")
    assert ended.code == 0, ended.err
    return tmp_path / "codes"


def test_compress_writes_what_the_library_encodes(
    codes: Path, model: Path, embeddings: Path
) -> None:
    expected = embedpress.load(model).encode(open_vectors(embeddings).read().vectors)
    batch = open_vectors(codes).read()
    assert np.array_equal(batch.vectors, expected)
    assert batch.ids.to_pylist() == [f"t{i}" for i in range(N)]
    assert batch.metadata["text"].to_pylist() == sentences(N)


def test_export_can_stand_alone(cli: Cli, model: Path, embeddings: Path, tmp_path: Path) -> None:
    ended = cli("export", model, "-o", tmp_path / "deploy", "--json")
    assert ended.code == 0
    assert {"encoder.onnx", "query_encoder.onnx", "decoder.onnx"} <= set(ended.json["files"])
    x = open_vectors(embeddings).read().vectors
    ours, theirs = embedpress.load(tmp_path / "deploy"), embedpress.load(model)
    assert np.array_equal(ours.encode(x), theirs.encode(x))


def test_search_by_text_by_vectors_and_with_a_filter(
    cli: Cli, codes: Path, model: Path, embeddings: Path, bert: Path, tmp_path: Path
) -> None:
    index = tmp_path / "index"
    ended = cli(
        "index", codes, "-m", model, "-o", index,
        "--rerank", "float32", "--vectors", embeddings, "--json",
    )  # fmt: skip
    assert ended.code == 0, ended.err
    assert faiss.read_index(str(index / "index.faiss")).ntotal == N
    text = sentences(N)[17]
    ended = cli("search", index, "-m", model, "--text", text, "-k", 3, "--oversample", N, "--json")
    assert ended.code == 0, ended.err
    first = ended.json["hits"][0][0]
    assert (first["id"], first["text"]) == ("t17", text)
    assert first["score"] == pytest.approx(1, abs=1e-5)

    np.save(tmp_path / "q.npy", open_vectors(embeddings).read().vectors[:5])
    asked = ("search", index, "-m", model, "--vectors", tmp_path / "q.npy", "--oversample", N)
    hits = cli(*asked, "-k", 1, "--json").json["hits"]
    assert [line[0]["id"] for line in hits] == [f"t{i}" for i in range(5)]
    hits = cli(*asked, "-k", 5, "--filter", 'label == "soup" and words > 10', "--json").json["hits"]
    assert len(hits) == 5
    assert all(hit["label"] == "soup" and hit["words"] > 10 for line in hits for hit in line)


def test_cluster_outliers_evaluate_and_map(
    cli: Cli, model: Path, embeddings: Path, tmp_path: Path
) -> None:
    latents = tmp_path / "latents"
    assert cli("compress", embeddings, "-m", model, "-o", latents, "--what", "latents").code == 0

    ended = cli("cluster", latents, "-o", tmp_path / "clusters", "--n-clusters", 6, "--json")
    assert ended.code == 0, ended.err
    labels = pq.read_table(tmp_path / "clusters" / "labels.parquet")
    sizes = [entry["size"] for entry in ended.json["clusters"]]
    assert np.bincount(labels["cluster"].to_numpy()).tolist() == sizes
    assert 0 < ended.json["agreement"]["nmi"] <= 1

    ended = cli(
        "outliers", embeddings, "-m", model, "-o", tmp_path / "scores",
        "--contamination", "0.1", "--json",
    )  # fmt: skip
    scores = pq.read_table(tmp_path / "scores" / "scores.parquet")
    score = scores["score"].to_numpy()
    called = scores["outlier"].to_numpy(zero_copy_only=False)
    assert called.sum() == ended.json["n_outliers"] == round(N * 0.1)
    assert score[called].min() > ended.json["threshold"] >= score[~called].max()
    assert [top["score"] for top in ended.json["top"]] == sorted(score, reverse=True)[:10]

    ended = cli("evaluate", embeddings, "-m", model, "-o", tmp_path / "report", "--json")
    assert ended.code == 0, ended.err
    assert "<html" in (tmp_path / "report" / "report.html").read_text()
    recalls = {row["name"]: row["recall"] for row in ended.json["recall"]}
    assert recalls["embeddings"] == 1
    assert 0 < recalls["codes"] < 1

    ended = cli("map", latents, "-o", tmp_path / "map", "--method", "pca", "--json")
    assert ended.code == 0, ended.err
    assert (tmp_path / "map" / "map.png").read_bytes().startswith(b"\x89PNG")
    table = pq.read_table(tmp_path / "map" / "map.parquet")
    assert table.num_rows == N
    assert {"x", "y", "neighbors", "text"} <= set(table.column_names)


def test_info_finds_the_damaged_file(cli: Cli, codes: Path, model: Path) -> None:
    assert cli("info", model, "--json").json["bad_files"] == []
    assert cli("info", codes, "--json").json["bad_files"] == []
    shard = next(codes.glob("*.parquet"))
    raw = bytearray(shard.read_bytes())
    raw[len(raw) // 2] ^= 1
    shard.write_bytes(raw)
    ended = cli("info", codes, "--json")
    assert ended.code == 1
    assert ended.json["bad_files"] == [shard.name]


def test_duplicates_and_drift(
    cli: Cli, model: Path, codes: Path, embeddings: Path, tmp_path: Path
) -> None:
    ended = cli("duplicates", embeddings, "-o", tmp_path / "same", "--threshold", 0.999, "--json")
    assert ended.code == 0, ended.err
    table = pq.read_table(tmp_path / "same" / "duplicates.parquet")
    assert table.num_rows == ended.json["n_members"]
    assert table["keep"].to_pylist().count(True) == ended.json["n_groups"]
    asked = ("duplicates", codes, "-o", tmp_path / "coded", "-m", model)
    assert cli(*asked, "--threshold", 0.9999, "--json").json["count"] == N
    assert cli("duplicates", codes, "-o", tmp_path / "coded").code == 2

    # So few rows leave too few out of training to tell drift by; others are named instead.
    x = open_vectors(embeddings).read().vectors
    np.save(tmp_path / "then.npy", x[:200])
    np.save(tmp_path / "now.npy", x[200:])
    np.save(tmp_path / "noise.npy", np.random.default_rng(0).normal(size=(200, x.shape[1])))
    assert cli("drift", embeddings, "-m", model).code == 1
    against = ("-m", model, "--reference", tmp_path / "then.npy")
    ended = cli("drift", tmp_path / "now.npy", *against, "--json")
    assert (ended.code, ended.json["drifted"]) == (0, False), ended.json
    ended = cli("drift", tmp_path / "noise.npy", *against, "--json")
    assert (ended.code, ended.json["drifted"]) == (1, True)
    assert cli("drift", tmp_path / "now.npy", *against, "--false-alarm-rate", 2).code == 2


def test_shares_are_joined_by_the_last_one(
    cli: Cli, codes: Path, embeddings: Path, model: Path, tmp_path: Path
) -> None:
    rows = ("--rows-per-shard", 150, "--memory-budget", "1G")
    whole, out = tmp_path / "whole", tmp_path / "shares"
    assert cli("compress", embeddings, "-m", model, "-o", whole, *rows).code == 0
    line = ("compress", embeddings, "-m", model, "-o", out, *rows, "--json")
    first = cli(*line, "--shard", "1/2")
    assert (first.code, first.json["count"], first.json["finished"]) == (0, 150, False)
    unfinished = cli("info", out, "--json").json
    assert (unfinished["kind"], unfinished["shards"]) == ("unfinished codes", 1)
    assert unfinished["bad_files"] == []
    last = cli(*line, "--shard", "0/2")
    assert (last.json["count"], last.json["finished"]) == (N, True)
    for file in whole.iterdir():
        assert (out / file.name).read_bytes() == file.read_bytes()
    assert len(list(out.iterdir())) == len(list(whole.iterdir()))
    ended = cli(*line, "--shard", "2/2")
    assert ended.code == 2
    assert "shard 2/2 is none of 0/2 to 1/2" in ended.err
