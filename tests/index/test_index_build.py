from __future__ import annotations

import errno
import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from samples import curved, write_embeddings

from embedpress.errors import (
    FormatError,
    InputError,
    MismatchError,
    StorageError,
    UsageError,
)
from embedpress.index import build, folder
from embedpress.index.build import build_index
from embedpress.index.layout import parse_factory
from embedpress.index.search import open_index
from embedpress.info import describe
from embedpress.onnx.compress import compress
from embedpress.onnx.compressor import load
from embedpress.vectors import open_vectors


def content(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in sorted(folder.iterdir())}


def test_what_the_manifest_says(
    built: Callable[..., Path], saved: Callable[..., Path], compressed: Callable[..., Path]
) -> None:
    manifest = json.loads((built("codes", "IVF12", "int8") / "manifest.json").read_text())
    sums = manifest.pop("sha256")
    assert set(sums) == {"index.faiss", "ids.parquet", "rerank.npy", "rerank_scales.npy"}
    per_vector = manifest.pop("bytes_per_vector")
    size = (built("codes", "IVF12", "int8") / "index.faiss").stat().st_size
    assert per_vector == round(size / 500, 3)
    nprobe, choice, frame = (manifest.pop(name) for name in ("nprobe", "choice", "frame"))
    assert len(manifest.pop("job")) == 64
    assert 1 <= nprobe <= 12
    assert (choice["agreement"] >= choice["target"] == 0.993) or nprobe == 12
    assert frame["start"] + 500 * (4 + 8) == size == frame["start"] + frame["size"]
    assert manifest == {
        "kind": "index",
        "format_version": 3,
        "generation": 1,
        "what": "codes",
        "compressor": load(saved()).fingerprint,
        "metric": "cosine",
        "dim": 32,
        "count": 500,
        "deleted": 0,
        "factory": "IVF12",
        "rerank": "int8",
        "rerank_dim": 32,
        "extractor": {},
        "files": {
            "index": "index.faiss",
            "ids": "ids.parquet",
            "rerank": "rerank.npy",
            "rerank_scales": "rerank_scales.npy",
        },
    }
    assert describe(built("codes", "IVF12", "int8")) == {
        "kind": "index",
        "of": "codes",
        "count": 500,
        "metric": "cosine",
        "factory": "IVF12",
        "rerank": "int8",
        "bytes_per_vector": per_vector,
        "compressor": load(saved()).fingerprint,
        "bad_files": [],
    }


@pytest.mark.parametrize(
    ("what", "factory"), [("codes", "IVF12"), ("latents", "IVF5"), ("codes", "Flat")]
)
def test_an_index_is_always_the_same_bytes(
    compressed: Callable[..., Path],
    saved: Callable[..., Path],
    embedded: Callable[..., Path],
    tmp_path: Path,
    what: str,
    factory: str,
) -> None:
    source, vectors = compressed(what), embedded()
    progress: list[int] = []
    for name, options in (
        ("one", {"memory_budget": "1G", "progress": progress.append}),
        ("two", {"memory_budget": 40_000, "num_threads": 1}),
    ):
        options |= {"factory": factory, "rerank": "int8", "vectors": vectors}
        build_index(source, saved(), tmp_path / name, **options)
    one, two = content(tmp_path / "one"), content(tmp_path / "two")
    assert sum(progress) == 500
    # Row groups of the ids follow the blocks that memory allows.
    assert one.pop("ids.parquet") != b""
    assert two.pop("ids.parquet") != b""
    sums = [json.loads(files.pop("manifest.json"))["sha256"] for files in (one, two)]
    assert one == two
    assert sums[0]["index.faiss"] == sums[1]["index.faiss"]
    build_index(source, saved(), tmp_path / "one", factory=factory, rerank="int8", vectors=vectors)
    assert content(tmp_path / "one")["index.2.faiss"] == one["index.faiss"]


def test_lists_to_visit_are_taken_as_given(
    compressed: Callable[..., Path], saved: Callable[..., Path], tmp_path: Path
) -> None:
    for given, taken in ((3, 3), (99, 12)):
        out = tmp_path / str(given)
        manifest = build_index(compressed(), saved(), out, factory="IVF12", nprobe=given)
        assert (manifest.nprobe, "agreement" in manifest.choice) == (taken, False)
        assert open_index(out, saved()).search(curved(2), 3).rows.min() >= 0


def test_lists_follow_the_seed(
    compressed: Callable[..., Path], saved: Callable[..., Path], tmp_path: Path
) -> None:
    for seed in (0, 1):
        build_index(compressed(), saved(), tmp_path / str(seed), factory="IVF12", seed=seed)
    one, other = (content(tmp_path / str(seed))["index.faiss"] for seed in (0, 1))
    assert one != other


@pytest.mark.parametrize(("n", "factory"), [(1, "Flat"), (1, "IVF1"), (3, "IVF3"), (3, "auto")])
def test_few_vectors(saved: Callable[..., Path], tmp_path: Path, n: int, factory: str) -> None:
    write_embeddings(tmp_path / "x", curved(n))
    for what in ("codes", "latents"):
        compress(tmp_path / "x", saved(), tmp_path / what, what=what)
        build_index(tmp_path / what, saved(), tmp_path / f"{what}.index", factory=factory)
        hits = open_index(tmp_path / f"{what}.index", saved()).search(curved(n), 5, nprobe=n)
        assert hits.rows.shape == (n, 5)
        assert sorted(hits.rows[0, :n].tolist()) == list(range(n))
        assert (hits.rows[:, n:] == -1).all()


def test_what_made_the_embeddings_is_kept(saved: Callable[..., Path], tmp_path: Path) -> None:
    about = {"model": "bert", "revision": "r1", "pooling": "cls", "config": {"max_length": 9}}
    write_embeddings(tmp_path / "x", curved(20), **about)
    compress(tmp_path / "x", saved(), tmp_path / "codes")
    manifest = build_index(tmp_path / "codes", saved(), tmp_path / "index")
    extractor = manifest.extractor
    assert (extractor["model"], extractor["revision"], extractor["pooling"]) == (
        "bert",
        "r1",
        "cls",
    )
    assert extractor["max_length"] == 9
    assert open_index(tmp_path / "index", saved()).manifest == manifest


def test_rebuilding_over_an_old_index(
    built: Callable[..., Path],
    compressed: Callable[..., Path],
    saved: Callable[..., Path],
    embedded: Callable[..., Path],
    tmp_path: Path,
) -> None:
    out = tmp_path / "index"
    build_index(compressed(), saved(), out, factory="IVF12", rerank="int8", vectors=embedded())
    build_index(compressed("latents"), saved(), out, num_threads=1)
    # Not the old index's large files, and nothing temporary.
    assert sorted(content(out)) == ["ids.2.parquet", "index.2.faiss", "manifest.json"]
    assert content(out)["index.2.faiss"] == content(built("latents"))["index.faiss"]
    build_index(compressed(groups=1), saved(groups=1), out)
    with pytest.raises(MismatchError):
        open_index(out, saved())
    (out / "index.3.faiss").write_bytes(b"damaged")
    (out / "manifest.json").write_text("damaged")
    build_index(compressed("latents"), saved(), out, num_threads=1)
    assert content(out)["index.faiss"] == content(built("latents"))["index.faiss"]
    assert describe(out)["bad_files"] == []


STEPS = [
    (build, "write_flat", "Flat"),
    (build, "as_table", "Flat"),
    (build, "train_centroids", "IVF4"),
    (build, "assigned_parts", "IVF4"),
    (build, "first_hits", "IVF4"),
    (build, "write_tier", "IVF4"),
    (folder, "sha256_of", "IVF4"),
    (folder, "write_atomic", "Flat"),
]


@pytest.mark.parametrize(("module", "step", "factory"), STEPS)
@pytest.mark.parametrize("over_an_old_one", [False, True])
def test_a_build_that_is_stopped_leaves_what_was_there_and_goes_on(
    compressed: Callable[..., Path],
    saved: Callable[..., Path],
    embedded: Callable[..., Path],
    queries: np.ndarray,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    module: Any,
    step: str,
    over_an_old_one: bool,
    factory: str,
) -> None:
    out, whole = tmp_path / "index", tmp_path / "whole"
    options: dict[str, Any] = {"rerank": "int8", "vectors": embedded(), "num_threads": 1}
    options["factory"] = factory
    for place in (out, whole) if over_an_old_one else ():
        build_index(compressed("latents"), saved(), place)
    before = content(out) if over_an_old_one else {}

    def killed(*arguments: Any, **options: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(module, step, killed)
        with pytest.raises(KeyboardInterrupt):
            build_index(compressed(), saved(), out, **options)
    assert {name: (out / name).read_bytes() for name in before} == before
    begun = (out / ".unfinished").is_dir()
    # Nothing is left where nothing was done.
    assert begun == (step != "as_table")
    if over_an_old_one:
        assert open_index(out, saved()).manifest.what == "latents"
    else:
        text = "is not finished: run the command" if begun else r"it has no manifest\.json"
        with pytest.raises(FormatError, match=text):
            open_index(out, saved())
    if begun:
        told = describe(out)
        assert told["kind"] == ("index" if over_an_old_one else "unfinished index")
        assert told["next"] == "the same `embedpress index` goes on where it was"
    for place in (out, whole):
        build_index(compressed(), saved(), place, **options)
    assert content(out) == content(whole)
    assert open_index(out, saved()).search(queries, 3).rows.min() >= 0
    assert describe(out)["bad_files"] == []


def test_a_full_disk_is_told_in_one_line(
    compressed: Callable[..., Path],
    saved: Callable[..., Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def full(*arguments: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(build, "write_flat", full)
        with pytest.raises(StorageError, match="the disk is full") as caught:
            build_index(compressed(), saved(), tmp_path / "index")
    assert "\n" not in str(caught.value)
    for name in ("index", "whole"):
        build_index(compressed(), saved(), tmp_path / name)
    assert content(tmp_path / "index") == content(tmp_path / "whole")


def test_places_that_hold_something_else_are_left_alone(
    compressed: Callable[..., Path], saved: Callable[..., Path], tmp_path: Path
) -> None:
    codes = Path(shutil.copytree(compressed(), tmp_path / "codes"))
    model = Path(shutil.copytree(saved(), tmp_path / "model"))
    (tmp_path / "unfinished").mkdir()
    (tmp_path / "unfinished" / "journal.jsonl").touch()
    for place in (codes, model, tmp_path / "unfinished"):
        before = content(place)
        with pytest.raises(UsageError, match="give a folder of its own"):
            build_index(codes, model, place)
        assert content(place) == before
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match="is a file"):
        build_index(codes, model, tmp_path / "file")


def test_an_impossible_call_leaves_the_old_index(
    compressed: Callable[..., Path], saved: Callable[..., Path], tmp_path: Path
) -> None:
    out = tmp_path / "index"
    build_index(compressed(), saved(), out)
    before = content(out)
    for arguments in (
        {"rerank": "int8"},
        {"rerank": "int8", "vectors": tmp_path / "nothing"},
        {"factory": "HNSW32"},
        {"factory": "IVF501"},
        {"memory_budget": "much"},
        {"num_threads": 0},
    ):
        with pytest.raises(UsageError):
            build_index(compressed(), saved(), out, **arguments)
        assert content(out) == before


def test_sources_that_cannot_be_indexed(
    compressed: Callable[..., Path],
    saved: Callable[..., Path],
    embedded: Callable[..., Path],
    base: np.ndarray,
    tmp_path: Path,
) -> None:
    out = tmp_path / "index"
    with pytest.raises(InputError, match="holds embeddings: compress them first"):
        build_index(embedded(), saved(), out)
    np.save(tmp_path / "x.npy", base)
    with pytest.raises(InputError, match="compress them first"):
        build_index(tmp_path / "x.npy", saved(), out)
    with pytest.raises(MismatchError, match="was compressed by another compressor"):
        build_index(compressed(), saved(groups=1), out)
    with pytest.raises(UsageError, match="does not exist"):
        build_index(tmp_path / "nothing", saved(), out)
    assert not out.exists()


def test_codes_of_another_width_than_the_compressor_gives(
    compressed: Callable[..., Path], saved: Callable[..., Path], tmp_path: Path
) -> None:
    made_by = load(saved()).fingerprint
    from embedpress.engine.job import Job, Piece
    from embedpress.engine.run import run_job
    from embedpress.vectors import Manifest, shard_table

    table = shard_table(list(range(9)), np.zeros((9, 3), np.uint8))
    header = Manifest(kind="codes", dim=3, dtype="uint8", config={"compressor": made_by})
    run_job(
        Job(tmp_path / "codes", header, "", lambda done: iter([(0, None)]), lambda _: Piece(table))
    )
    with pytest.raises(FormatError, match="has 3 values a row, its compressor gives 4"):
        build_index(tmp_path / "codes", saved(), tmp_path / "index")


def test_codebooks_that_were_changed_do_not_get_into_an_index(
    compressed: Callable[..., Path], saved: Callable[..., Path], tmp_path: Path
) -> None:
    model = Path(shutil.copytree(saved(), tmp_path / "model"))
    weights = bytearray((model / "model.safetensors").read_bytes())
    weights[-9] ^= 1
    (model / "model.safetensors").write_bytes(weights)
    with pytest.raises(FormatError, match="was changed since it was saved"):
        build_index(compressed(), model, tmp_path / "index")


def test_metadata_lies_beside_the_ids(
    built: Callable[..., Path], compressed: Callable[..., Path]
) -> None:
    import pyarrow.parquet as pq

    table = pq.read_table(built() / "ids.parquet")
    batch = open_vectors(compressed()).read()
    assert table.column_names == ["id", *batch.metadata.column_names]
    assert table["id"].to_pylist() == batch.ids.to_pylist()
    assert table.drop_columns("id").to_pylist() == batch.metadata.to_pylist()


@pytest.mark.parametrize(
    ("text", "count", "name"),
    [
        ("auto", 10, "Flat"),
        ("auto", 200_000, "Flat"),
        ("auto", 200_001, "IVF2048_HNSW32"),
        ("auto", 1_000_000, "IVF4096_HNSW32"),
        ("AUTO", 10**8, "IVF32768_HNSW32"),
        ("Flat", 10, "Flat"),
        ("flat", 10**9, "Flat"),
        ("PQ32", 10, "Flat"),
        ("PQ32x8", 10, "Flat"),
        ("IVF4", 10, "IVF4"),
        ("IVF100,PQ32", 1000, "IVF100"),
        (" IVF1024 , Flat", 2000, "IVF1024"),
        ("IVF64_HNSW16,PQ32", 2000, "IVF64_HNSW16"),
    ],
)
def test_factory_strings(text: str, count: int, name: str) -> None:
    layout = parse_factory(text, count)
    assert layout.name == name
    assert replace(parse_factory(name, count), why=layout.why) == layout
    assert bool(layout.why) == (text.lower() == "auto")


@pytest.mark.parametrize(
    "text",
    ["", "IVF", "IVF0", "IVF-3", "IVF99999999", "HNSW32", "IVF11", "ivf4x", "PQ32x4", "IVF4_HNSW0"],
)
def test_factory_strings_that_are_none(text: str) -> None:
    with pytest.raises(UsageError, match="factory"):
        parse_factory(text, 10)
