from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from samples import curved, write_embeddings

from embedpress.errors import InputError, MismatchError, UsageError
from embedpress.onnx.compress import compress
from embedpress.onnx.compressor import BATCH_ROWS, load
from embedpress.vectors import open_vectors, verify


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    metadata = {"label": ["a", "b", None] * 200, "year": list(range(600))}
    ids = [f"id {i}" for i in range(600)]
    about = {"model": "bert", "revision": "r1", "pooling": "mean", "normalized": False}
    folder = tmp_path_factory.mktemp("x")
    return write_embeddings(folder, curved(600, seed=3), ids=ids, metadata=metadata, **about)


def content(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in sorted(folder.iterdir())}


@pytest.mark.parametrize("what", ["codes", "latents"])
def test_rows_ids_and_metadata_are_kept(
    saved: Callable[..., Path], source: Path, tmp_path: Path, what: str
) -> None:
    rows: list[int] = []
    manifest = compress(source, saved(), tmp_path / "out", what=what, progress=rows.append)
    assert sum(rows) == 600
    runtime = load(saved(), num_threads=1)
    batch = open_vectors(tmp_path / "out").read()
    run = runtime.encode if what == "codes" else runtime.transform
    expected = run(curved(600, seed=3))
    assert batch.vectors.dtype == expected.dtype
    if what == "codes":
        assert (batch.vectors != expected).any(axis=1).mean() < 0.01
    else:
        np.testing.assert_allclose(batch.vectors, expected, atol=1e-6)
    assert batch.ids.to_pylist() == [f"id {i}" for i in range(600)]
    assert batch.metadata["label"].to_pylist() == ["a", "b", None] * 200
    assert batch.metadata["year"].to_pylist() == list(range(600))
    assert (manifest.kind, manifest.dim, manifest.count) == (what, expected.shape[1], 600)
    assert (manifest.model, manifest.revision, manifest.pooling) == ("bert", "r1", "mean")
    assert manifest.config["compressor"] == runtime.fingerprint
    assert verify(tmp_path / "out") == []


def test_a_second_run_smaller_blocks_and_more_threads_give_the_same_bytes(
    saved: Callable[..., Path], source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, rows, threads in (("one", 1024, 1), ("two", 100, 1), ("three", 100, 3)):
        monkeypatch.setattr("embedpress.onnx.compress.ROW_GROUP", rows)
        compress(source, saved(), tmp_path / name, num_threads=threads)
    compress(source, saved(), tmp_path / "one", memory_budget="1G")
    assert content(tmp_path / "one") == content(tmp_path / "two") == content(tmp_path / "three")


def test_shards_of_any_size_hold_the_same_rows(
    saved: Callable[..., Path], source: Path, tmp_path: Path
) -> None:
    whole = compress(source, saved(), tmp_path / "whole")
    parts = compress(source, saved(), tmp_path / "parts", rows_per_shard=130)
    assert [shard.rows for shard in whole.shards] == [600]
    assert [shard.rows for shard in parts.shards] == [130] * 4 + [80]
    first, second = (open_vectors(tmp_path / name).read() for name in ("whole", "parts"))
    assert np.array_equal(first.vectors, second.vectors)
    assert first.ids.equals(second.ids)


def test_a_stopped_job_goes_on(
    saved: Callable[..., Path], source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    compress(source, saved(), tmp_path / "whole", rows_per_shard=130, num_threads=1)
    from embedpress.onnx.compressor import OnnxCompressor

    run, calls = OnnxCompressor.encode, []

    def stop_at_third(self: OnnxCompressor, X: np.ndarray) -> np.ndarray:
        if len(X) == BATCH_ROWS:  # the runtime's memory is measured first
            return run(self, X)
        calls.append(len(X))
        if len(calls) == 3:
            raise KeyboardInterrupt
        return run(self, X)

    monkeypatch.setattr(OnnxCompressor, "encode", stop_at_third)
    with pytest.raises(KeyboardInterrupt):
        compress(source, saved(), tmp_path / "out", rows_per_shard=130, num_threads=1)
    with pytest.raises(InputError, match="is not finished"):
        open_vectors(tmp_path / "out")
    with pytest.raises(MismatchError, match="rows_per_shard was 130, now 100"):
        compress(source, saved(), tmp_path / "out", rows_per_shard=100)
    del calls[2:]
    monkeypatch.setattr(
        OnnxCompressor, "encode", lambda self, X: calls.append(len(X)) or run(self, X)
    )
    compress(source, saved(), tmp_path / "out", rows_per_shard=130, num_threads=1)
    assert [rows for rows in calls if rows != BATCH_ROWS] == [130, 130, 130, 130, 80]
    assert content(tmp_path / "out") == content(tmp_path / "whole")


def test_another_compressor_does_not_go_on(
    saved: Callable[..., Path], source: Path, tmp_path: Path
) -> None:
    compress(source, saved(), tmp_path / "out")
    with pytest.raises(MismatchError, match="compressor was "):
        compress(source, saved(groups=1), tmp_path / "out")
    with pytest.raises(MismatchError, match="kind was 'codes', now 'latents'"):
        compress(source, saved(), tmp_path / "out", what="latents")


def test_a_plain_file(saved: Callable[..., Path], tmp_path: Path) -> None:
    x = curved(50, seed=3)
    x[7] = 0
    np.save(tmp_path / "x.npy", x)
    folder = saved(metric="l2", hidden_sizes=(16, 8), dropout=0.2)
    manifest = compress(tmp_path / "x.npy", folder, tmp_path / "out")
    assert manifest.metric == "l2"
    assert manifest.model is None
    batch = open_vectors(tmp_path / "out").read()
    assert np.array_equal(batch.vectors, load(folder).encode(x))
    assert batch.ids.to_pylist() == list(range(50))
    with pytest.raises(InputError, match="row 7 is all zeros"):
        compress(tmp_path / "x.npy", saved(), tmp_path / "cosine")
    x[7, 3] = 1
    np.save(tmp_path / "x.npy", x)
    with pytest.raises(MismatchError, match="the input data"):
        compress(tmp_path / "x.npy", folder, tmp_path / "out")


def test_what_cannot_be_compressed(
    saved: Callable[..., Path], source: Path, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match="what='floats' must be codes or latents"):
        compress(source, saved(), tmp_path / "out", what="floats")
    with pytest.raises(UsageError, match="rows_per_shard must be at least 1"):
        compress(source, saved(), tmp_path / "out", rows_per_shard=0)
    with pytest.raises(UsageError, match=r"a memory budget of 50M is too small: .* at least"):
        compress(source, saved(), tmp_path / "out", memory_budget="50M")
    with pytest.raises(UsageError, match="'much' is not a size"):
        compress(source, saved(), tmp_path / "out", memory_budget="much")
    with pytest.raises(InputError, match="gives no latents"):
        compress(source, saved(n_components=None, groups=1), tmp_path / "out", what="latents")
    with pytest.raises(InputError, match="gives no codes"):
        compress(source, saved(code_size=None, hidden_sizes=()), tmp_path / "out")
    np.save(tmp_path / "x.npy", curved(5, dim=31))
    with pytest.raises(MismatchError, match=r"has 31 dimensions, the compressor at .* takes 32"):
        compress(tmp_path / "x.npy", saved(), tmp_path / "out")
    assert not (tmp_path / "out").exists()
    compress(source, saved(), tmp_path / "codes")
    with pytest.raises(InputError, match="holds codes: give the embeddings"):
        compress(tmp_path / "codes", saved(), tmp_path / "out")
    with pytest.raises(UsageError, match="no compressor folder"):
        compress(source, tmp_path / "nothing", tmp_path / "out")


def test_manifests_do_not_name_places_on_this_machine(
    saved: Callable[..., Path], source: Path, tmp_path: Path
) -> None:
    compress(source, saved(), tmp_path / "out")
    text = json.dumps(json.loads((tmp_path / "out" / "manifest.json").read_text()))
    assert str(tmp_path) not in text
    assert str(saved()) not in text
