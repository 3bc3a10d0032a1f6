"""Files that other databases read."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from push_samples import GONE, IDS, METADATA
from samples import curved

from embedpress.errors import MismatchError, UsageError
from embedpress.index.search import open_index
from embedpress.onnx.runtime import load
from embedpress.push.rows import query_vectors
from embedpress.push.verb import push
from embedpress.vectors import open_vectors, verify

QUERIES = curved(6, seed=11)
LIVE = IDS[len(GONE) :]


def expected_of(index: Path, model: Path, k: int = 5) -> tuple[list[Any], np.ndarray]:
    opened = open_index(index, model, num_threads=1)
    hits = opened.search(QUERIES, k, nprobe=99)
    return opened.ids(hits.rows), hits.scores


@pytest.mark.parametrize(
    ("what", "factory", "metric"),
    [
        ("codes", "Flat", "cosine"),
        ("codes", "IVF5", "cosine"),
        ("codes", "Flat", "ip"),
        ("latents", "IVF5", "cosine"),
    ],
)
def test_parquet_shards_give_the_scores_of_the_index(
    pushed_from: Callable[..., Path],
    saved: Callable[..., Path],
    tmp_path: Path,
    what: str,
    factory: str,
    metric: str,
) -> None:
    index = pushed_from(what, factory, metric)
    model = saved(metric="ip", groups=2) if metric == "ip" else saved()
    done: list[int] = []
    out = tmp_path / "out"
    pushed = push(index, model, f"parquet:{out}", progress=done.append)
    assert (pushed.rows, sum(done), pushed.metric) == (81, 81, "ip")
    found = open_vectors(out)
    batch = found.read()
    assert found.kind == "latents"
    assert batch.ids.to_pylist() == LIVE
    assert batch.metadata["label"].to_pylist() == METADATA["label"][9:]
    asked = query_vectors(load(model), what, "latents", QUERIES, found.dim)
    scores = asked @ batch.vectors.T
    ids, best = expected_of(index, model)
    np.testing.assert_allclose(-np.sort(-scores, axis=1)[:, :5], best, atol=1e-4)
    own = [[scores[q, LIVE.index(i)] for i in line] for q, line in enumerate(ids)]
    np.testing.assert_allclose(own, best, atol=1e-4)


def test_restored_embeddings_are_asked_with_plain_ones(
    pushed_from: Callable[..., Path], saved: Callable[..., Path], tmp_path: Path
) -> None:
    pushed = push(pushed_from(), saved(), f"parquet:{tmp_path / 'out'}", form="embeddings")
    assert (pushed.dim, pushed.metric) == (32, "cosine")
    found = open_vectors(tmp_path / "out")
    assert (found.kind, found.dim, found.metric) == ("embeddings", 32, "cosine")
    compressor = load(saved())
    codes = compressor.encode(curved(90, seed=2)[9:])
    np.testing.assert_allclose(found.read().vectors, compressor.decode(codes), atol=1e-5)


def test_a_push_goes_on_and_refuses_another_index(
    pushed_from: Callable[..., Path],
    saved: Callable[..., Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from embedpress.push import files

    monkeypatch.setattr(files, "ROWS_PER_SHARD", 20)
    monkeypatch.setattr(files, "_ROWS", 7)
    whole, out = tmp_path / "whole", tmp_path / "out"
    push(pushed_from(), saved(), f"parquet:{whole}")

    def stop(rows: int) -> None:
        seen.append(rows)
        if len(seen) == 5:
            raise KeyboardInterrupt

    seen: list[int] = []
    with pytest.raises(KeyboardInterrupt):
        push(pushed_from(), saved(), f"parquet:{out}", progress=stop)
    push(pushed_from(), saved(), f"parquet:{out}")
    assert verify(out) == []
    content = [{f.name: f.read_bytes() for f in folder.iterdir()} for folder in (whole, out)]
    assert content[0] == content[1]
    with pytest.raises(MismatchError):
        push(pushed_from("codes", "IVF5"), saved(), f"parquet:{out}")


def test_duckdb_reads_and_searches_the_shards(
    pushed_from: Callable[..., Path], saved: Callable[..., Path], tmp_path: Path
) -> None:
    duckdb = pytest.importorskip("duckdb")
    index = pushed_from("codes", "IVF5")
    out = tmp_path / "out"
    pushed = push(index, saved(), f"parquet:{out}")
    asked = query_vectors(load(saved()), "codes", "latents", QUERIES, pushed.dim)
    ids, scores = expected_of(index, saved())
    # In the README, with one query.
    sql = f"""
        SELECT id, array_inner_product(vector::FLOAT[{pushed.dim}], ?::FLOAT[{pushed.dim}]) AS score
        FROM '{out}/*.parquet' {{where}} ORDER BY score DESC LIMIT 5
    """
    for query, line, best in zip(asked, ids, scores, strict=True):
        rows = duckdb.execute(sql.format(where=""), [query.tolist()]).fetchall()
        np.testing.assert_allclose([score for _, score in rows], best, atol=1e-4)
        assert {i for i, _ in rows} <= set(LIVE)
        assert len({i for i, _ in rows} & set(line)) >= 3
    where = "WHERE label = 'food' AND year > 2000"
    rows = duckdb.execute(sql.format(where=where), [asked[0].tolist()]).fetchall()
    opened = open_index(index, saved())
    hits = opened.search(QUERIES[:1], 5, filter='label == "food" and year > 2000', nprobe=5)
    np.testing.assert_allclose([score for _, score in rows], hits.scores[0], atol=1e-4)


def test_lancedb_takes_the_shards(
    pushed_from: Callable[..., Path], saved: Callable[..., Path], tmp_path: Path
) -> None:
    lancedb = pytest.importorskip("lancedb")
    import pyarrow.dataset as ds

    index, out = pushed_from(), tmp_path / "out"
    pushed = push(index, saved(), f"parquet:{out}")
    shards = ds.dataset(sorted(out.glob("*.parquet")), format="parquet")
    table = lancedb.connect(tmp_path / "lance").create_table("items", shards.to_table())
    assert table.count_rows() == 81
    asked = query_vectors(load(saved()), "codes", "latents", QUERIES, pushed.dim)
    ids, scores = expected_of(index, saved())
    for query, line, best in zip(asked, ids, scores, strict=True):
        found = table.search(query.tolist()).distance_type("dot").limit(5).to_list()
        np.testing.assert_allclose([1 - hit["_distance"] for hit in found], best, atol=1e-4)
        assert len({hit["id"] for hit in found} & set(line)) >= 3
    found = table.search(asked[0].tolist()).where("year > 2015").limit(50).to_list()
    assert found
    assert all(hit["year"] > 2015 for hit in found)


def test_a_csv_file_as_copy_reads_it(
    pushed_from: Callable[..., Path], saved: Callable[..., Path], tmp_path: Path
) -> None:
    index, out = pushed_from(), tmp_path / "items.csv"
    pushed = push(index, saved(), f"csv:{out}")
    assert pushed.sql.splitlines() == [
        "CREATE EXTENSION IF NOT EXISTS vector;",
        'CREATE TABLE embedpress ("id" text PRIMARY KEY, "vector" vector(32), "year" bigint, '
        '"label" text);',
        "COPY embedpress FROM STDIN WITH (FORMAT csv, HEADER);",
    ]
    with out.open(newline="", encoding="utf-8") as file:
        header, *lines = list(csv.reader(file))
    assert header == ["id", "vector", "year", "label"]
    assert [line[0] for line in lines] == LIVE
    vectors = np.array([[float(v) for v in line[1][1:-1].split(",")] for line in lines])
    assert all(line[1][0] + line[1][-1] == "[]" for line in lines)
    push(index, saved(), f"parquet:{tmp_path / 'out'}")
    assert np.array_equal(vectors.astype(np.float32), open_vectors(tmp_path / "out").read().vectors)
    labels = METADATA["label"][9:]
    assert [line[3] for line in lines] == [label or "" for label in labels]
    # COPY tells a missing value from an empty text by the quotes.
    ends = [text[-1] for text in out.read_text(encoding="utf-8").split("\n") if text.endswith(",")]
    assert len(ends) == labels.count(None)


@pytest.mark.parametrize(
    ("to", "options", "message"),
    [
        ("here", {}, "cannot push to 'here'"),
        ("csv:", {}, "cannot push to 'csv:'"),
        ("s3://bucket", {}, "cannot push to"),
        ("parquet:x", {"form": "floats"}, "form='floats'"),
        ("x.db", {"batch_rows": 0}, "batch_rows=0"),
        ("x.db", {"collection": "a b"}, "must be letters"),
        ("x.db", {"collection": "x; DROP"}, "must be letters"),
    ],
)
def test_targets_that_cannot_be(
    pushed_from: Callable[..., Path],
    saved: Callable[..., Path],
    to: str,
    options: dict[str, Any],
    message: str,
) -> None:
    with pytest.raises(UsageError, match=message):
        push(pushed_from(), saved(), to, **options)


def test_another_compressor(
    pushed_from: Callable[..., Path], saved: Callable[..., Path], tmp_path: Path
) -> None:
    with pytest.raises(MismatchError, match="another compressor"):
        push(pushed_from(), saved(groups=1), f"parquet:{tmp_path / 'out'}")
    assert not (tmp_path / "out").exists()
