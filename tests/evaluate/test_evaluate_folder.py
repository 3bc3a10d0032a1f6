"""The verb on folders: judgements, a real index, photos."""

from __future__ import annotations

import itertools
import json

import numpy as np
import pyarrow as pa
import pytest
from samples import curved, write_embeddings

from embedpress.errors import InputError, MismatchError, UsageError
from embedpress.evaluate.folder_index import FolderIndex
from embedpress.evaluate.metrics import recall_at_k, true_neighbors
from embedpress.evaluate.result import Evaluation
from embedpress.evaluate.verb import evaluate_folder
from embedpress.index.build import build_index
from embedpress.onnx.compress import compress
from embedpress.onnx.compressor import load
from embedpress.vectors import open_vectors

pytest.importorskip("matplotlib")


@pytest.fixture(scope="module")
def work(tmp_path_factory, saved):
    """Embeddings, their codes and an index with a rerank tier, all of one compressor."""
    folder = tmp_path_factory.mktemp("work")
    x = curved(700)
    write_embeddings(folder / "emb", x, ids=[f"d{i}" for i in range(len(x))])
    write_embeddings(folder / "asking", curved(40, seed=5), ids=[f"q{i}" for i in range(40)])
    compress(folder / "emb", saved(), folder / "codes", num_threads=1)
    build_index(
        folder / "codes", saved(), folder / "index", factory="IVF8", rerank="float32",
        vectors=folder / "emb", num_threads=1,
    )  # fmt: skip
    return folder


def figures_of(out):
    return Evaluation.from_dict(json.loads((out / "evaluation.json").read_text()))


def test_the_index_loses_apart_from_compression(work, saved, tmp_path):
    result = evaluate_folder(work / "emb", saved(), tmp_path, index=work / "index", num_threads=1)
    e = figures_of(tmp_path)
    loss = e.index
    assert loss.form == "codes"
    assert loss.scan == e.row("codes").recall
    by_lists = [p for p in loss.points if not p.reranked]
    assert [p.nprobe for p in by_lists][-1] <= 8
    for p in loss.points:
        assert p.difference == pytest.approx(p.recall - loss.scan)
    assert all(a.recall <= b.recall + 0.02 for a, b in itertools.pairwise(by_lists))
    best = next(p for p in loss.points if p.default)
    assert best.reranked
    assert best.recall > loss.scan
    assert result["index"]["scan"] == loss.scan
    assert "index loss" in (tmp_path / "report.html").read_text()


def test_hits_of_an_index_are_rows_of_the_base(work, saved):
    compressor = load(saved(), num_threads=1)
    batch = open_vectors(work / "emb").read()
    kept = np.random.default_rng(0).permutation(700)[:200]
    index = FolderIndex(work / "index", compressor, batch.ids.take(kept))
    base, queries = batch.vectors[kept], curved(20, seed=6)
    found = index.search(queries, 10, nprobe=8, rerank=True)
    assert (found >= 0).all()
    truth = true_neighbors(queries, base, 10, metric="cosine")
    # All lists are visited and embeddings put the hits in order: nearly the exact search, though
    # most rows of the index are not in the base.
    assert recall_at_k(found, truth).mean() > 0.95
    few = FolderIndex(work / "index", compressor, batch.ids.slice(0, 3))
    hits = few.search(queries, 3, nprobe=8, rerank=False)
    assert (np.sort(hits, axis=1) == [0, 1, 2]).all()
    with pytest.raises(MismatchError, match="does not hold all 1 vectors"):
        FolderIndex(work / "index", compressor, pa.array(["stranger"]))


def test_judgements_of_a_beir_folder(work, saved, tmp_path):
    base = open_vectors(work / "emb").read()
    queries = open_vectors(work / "asking").read()
    nearest = true_neighbors(queries.vectors, base.vectors, 1, metric="cosine")[:, 0]
    lines = [f"q{i}\td{nearest[i]}\t1" for i in range(30)] + ["q1\tgone\t1"]
    (tmp_path / "qrels").mkdir()
    (tmp_path / "qrels" / "test.tsv").write_text(
        "query-id\tcorpus-id\tscore\n" + "\n".join(lines) + "\n"
    )
    (tmp_path / "queries.jsonl").write_text(
        "\n".join(json.dumps({"_id": f"q{i}", "text": f"why {i}?"}) for i in range(40)) + "\n"
    )
    out = tmp_path / "out"
    evaluate_folder(
        work / "emb", saved(), out, queries=work / "asking", beir=tmp_path, num_threads=1
    )
    e = figures_of(out)
    assert (e.query_rows, e.missing_judged) == (30, 1)
    exact = e.relevance[0]
    assert exact.name == "embeddings"
    assert exact.mrr == 1
    # One query has a second relevant document, which is not there to be found.
    ideal = 1 / (1 + 1 / np.log2(3))
    assert exact.ndcg == pytest.approx((29 + ideal) / 30)
    assert all(row.ndcg <= exact.ndcg for row in e.relevance)
    assert all(query.text.startswith("why ") for query in e.worst)
    with pytest.raises(UsageError, match="--queries"):
        evaluate_folder(work / "emb", saved(), out, beir=tmp_path)
    with pytest.raises(InputError, match="none of the queries"):
        evaluate_folder(work / "emb", saved(), out, queries=work / "emb", beir=tmp_path)


def test_worst_queries_are_photos_where_their_folder_is_given(saved, tmp_path):
    from PIL import Image

    x = curved(400, seed=3)
    (tmp_path / "photos").mkdir()
    names = [f"p{i}.png" for i in range(len(x))]
    for name in names:
        Image.new("RGB", (8, 8), "red").save(tmp_path / "photos" / name)
    write_embeddings(tmp_path / "emb", x, ids=names, metadata={"path": names})
    evaluate_folder(tmp_path / "emb", saved(), tmp_path / "out", images=tmp_path / "photos")
    html = (tmp_path / "out" / "report.html").read_text()
    assert html.count("data:image/jpeg") >= 10
    with pytest.raises(UsageError, match="not a folder of photos"):
        evaluate_folder(tmp_path / "emb", saved(), tmp_path / "out", images=tmp_path / "none")


def test_money_is_told_for_what_is_planned(work, saved, tmp_path):
    evaluate_folder(work / "emb", saved(), tmp_path, planned_vectors=10**10, price=2.0)
    assert "$2,560" in (tmp_path / "report.html").read_text()  # 128 bytes, 10^10 times, 2 dollars
    for options in ({"planned_vectors": 0}, {"price": -1.0}, {"price": float("nan")}):
        with pytest.raises(UsageError, match="planned_vectors"):
            evaluate_folder(work / "emb", saved(), tmp_path, **options)
