"""Milvus, by its embedded form; a cluster takes the same calls."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from push_samples import GONE
from samples import curved

from embedpress.errors import MismatchError, StorageError, UsageError
from embedpress.index.search import open_index
from embedpress.onnx.runtime import load
from embedpress.push import milvus
from embedpress.push.milvus import MilvusTarget
from embedpress.push.rows import IndexRows
from embedpress.push.verb import push

pymilvus = pytest.importorskip("pymilvus")
pytest.importorskip("milvus_lite")

QUERIES = curved(6, seed=11)


@pytest.fixture
def target(tmp_path: Path) -> Iterator[MilvusTarget]:
    with MilvusTarget(str(tmp_path / "items.db"), "items", new=True) as opened:
        yield opened


@pytest.fixture
def rows(pushed_from: Callable[..., Path], saved: Callable[..., Path]) -> IndexRows:
    return IndexRows(pushed_from(), load(saved(), num_threads=1))


@pytest.mark.parametrize(
    ("what", "factory", "metric"),
    [("codes", "IVF5", "cosine"), ("codes", "Flat", "ip"), ("latents", "Flat", "cosine")],
)
def test_milvus_finds_what_the_index_finds(
    pushed_from: Callable[..., Path],
    saved: Callable[..., Path],
    target: MilvusTarget,
    what: str,
    factory: str,
    metric: str,
) -> None:
    index = pushed_from(what, factory, metric)
    compressor = load(saved(metric="ip", groups=2) if metric == "ip" else saved(), num_threads=1)
    rows = IndexRows(index, compressor)
    assert target.push(rows, batch_rows=20) == 81
    opened = open_index(index, compressor)
    for expression in ("", "year > 2000"):
        hits = opened.search(QUERIES, 5, filter=expression or None, nprobe=9)
        found = target.search(compressor, QUERIES, 5, filter=expression)
        for line, records in zip(found, opened.records(hits), strict=True):
            np.testing.assert_allclose(
                [hit["score"] for hit in line], [r["score"] for r in records], atol=1e-4
            )
            by_id = {hit["id"]: hit for hit in line}
            shared = [record for record in records if record["id"] in by_id]
            assert len(shared) >= 3
            for record in shared:
                present = {k: v for k, v in record.items() if v is not None and k != "score"}
                assert {k: by_id[record["id"]][k] for k in present} == present
            assert not set(by_id) & set(GONE)


def test_restored_embeddings(
    pushed_from: Callable[..., Path], saved: Callable[..., Path], target: MilvusTarget
) -> None:
    compressor = load(saved(), num_threads=1)
    target.push(IndexRows(pushed_from(), compressor, "embeddings"))
    found = target.search(compressor, QUERIES, 5)
    restored = compressor.decode(compressor.encode(curved(90, seed=2)[9:]))
    restored /= np.linalg.norm(restored, axis=1, keepdims=True)
    asked = QUERIES / np.linalg.norm(QUERIES, axis=1, keepdims=True)
    best = -np.sort(-(asked @ restored.T), axis=1)[:, :5]
    np.testing.assert_allclose([[hit["score"] for hit in line] for line in found], best, atol=1e-4)


class Flaky:
    """A client whose calls of one kind fail at the times that are named."""

    def __init__(self, client: Any, name: str, failing: set[int], error: BaseException) -> None:
        self.client, self.name, self.failing, self.error = client, name, failing, error
        self.calls = 0

    def __getattr__(self, name: str) -> Any:
        found = getattr(self.client, name)
        if name != self.name:
            return found

        def call(*arguments: Any, **options: Any) -> Any:
            if arguments[0] != "items":
                return found(*arguments, **options)
            self.calls += 1
            if self.calls in self.failing:
                raise self.error
            return found(*arguments, **options)

        return call


def test_what_fails_is_tried_again_and_a_stopped_push_goes_on(
    rows: IndexRows, target: MilvusTarget, monkeypatch: pytest.MonkeyPatch
) -> None:
    waits: list[float] = []
    monkeypatch.setattr(milvus, "time", SimpleNamespace(sleep=waits.append))
    busy = pymilvus.exceptions.MilvusException(message="busy")
    client = target._client
    target._client = Flaky(client, "upsert", {1, 2, 5}, busy)
    assert target.push(rows, batch_rows=30) == 81
    # Two waits for the first batch, the second longer, and one for the third.
    assert len(waits) == 3
    assert waits[0] < 0.7 < waits[1]
    assert waits[2] < 0.7

    target._client = Flaky(client, "upsert", {2}, KeyboardInterrupt())
    with pytest.raises(KeyboardInterrupt):
        target.push(rows, overwrite=True, batch_rows=30)
    origin = target.origin()
    assert origin is not None
    assert (origin.rows, origin.whole) == (81, False)
    target._client = client
    seen: list[int] = []
    assert target.push(rows, batch_rows=30, progress=seen.append) == 51
    assert sum(seen) == 81
    origin = target.origin()
    assert origin is not None
    assert origin.whole
    assert target.push(rows, batch_rows=30) == 0
    held = client.query("items", filter="", output_fields=["count(*)"])
    assert held[0]["count(*)"] == 81

    forever = set(range(1, 99))
    target._client = Flaky(client, "upsert", forever, busy)
    waits.clear()
    with pytest.raises(StorageError, match=r"Milvus at .*: busy"):
        target.push(rows, overwrite=True)
    assert len(waits) == milvus.ATTEMPTS - 1


def test_a_collection_of_something_else(
    pushed_from: Callable[..., Path],
    saved: Callable[..., Path],
    rows: IndexRows,
    target: MilvusTarget,
) -> None:
    target._client.create_collection("items", dimension=4)
    with pytest.raises(MismatchError, match="was not made by embedpress"):
        target.push(rows)
    with pytest.raises(MismatchError, match="was not made by embedpress"):
        target.search(rows.compressor, QUERIES)
    target.push(rows, overwrite=True)
    with pytest.raises(MismatchError, match="rows of another index"):
        target.push(IndexRows(pushed_from("codes", "IVF5"), rows.compressor))
    with pytest.raises(MismatchError, match="by another compressor"):
        target.search(load(saved(groups=1)), QUERIES)
    other = MilvusTarget(target.target, "nothing")
    with pytest.raises(MismatchError, match="there is no collection 'nothing'"):
        other.search(rows.compressor, QUERIES)


def test_addresses(tmp_path: Path) -> None:
    assert milvus._address("milvus://host:19530") == {"uri": "http://host:19530"}
    found = milvus._address("milvus+tls://host:443/sales")
    assert found == {"uri": "https://host:443", "db_name": "sales"}
    assert milvus._address(str(tmp_path / "a" / "b.db")) == {"uri": str(tmp_path / "a" / "b.db")}


def test_a_server_that_is_not_there(
    pushed_from: Callable[..., Path], saved: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(**options: Any) -> None:
        raise pymilvus.exceptions.MilvusException(message="Fail connecting to\nserver")

    monkeypatch.setattr(milvus, "time", SimpleNamespace(sleep=lambda seconds: None))
    monkeypatch.setattr(pymilvus, "MilvusClient", refuse)
    with pytest.raises(StorageError, match="Milvus at milvus://localhost:1: Fail connecting to s"):
        push(pushed_from(), saved(), "milvus://localhost:1")


def test_whole_numbers_as_ids(saved: Callable[..., Path], tmp_path: Path) -> None:
    from samples import write_embeddings

    from embedpress.index.build import build_index
    from embedpress.onnx.compress import compress

    write_embeddings(tmp_path / "x", curved(30), ids=[2**60 + i for i in range(30)])
    compress(tmp_path / "x", saved(), tmp_path / "codes", num_threads=1)
    build_index(tmp_path / "codes", saved(), tmp_path / "index", num_threads=1)
    pushed = push(tmp_path / "index", saved(), str(tmp_path / "items.db"))
    assert (pushed.rows, pushed.written, pushed.metric) == (30, 30, "ip")
    with MilvusTarget(str(tmp_path / "items.db"), "embedpress") as target:
        found = target.search(load(saved()), curved(30), 30)
    assert {hit["id"] for hit in found[0]} == {2**60 + i for i in range(30)}
    with pytest.raises(UsageError, match="push an index to it first"):
        MilvusTarget(str(tmp_path / "nothing.db"), "embedpress")
    assert not (tmp_path / "nothing.db").exists()
