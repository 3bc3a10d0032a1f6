"""Datasets of Hugging Face's own library, in and out."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from samples import SMALL, curved, write_embeddings

from embedpress import Compressor, compress, extract_text, open_vectors
from embedpress.autoencoder.fit import fit
from embedpress.engine import EncodeBatch
from embedpress.errors import FormatError, InputError, UsageError
from embedpress.extract import torchvision_trap
from embedpress.vectors import read_manifest
from embedpress.vectors.hf_datasets import to_dataset

torchvision_trap.prepare()
datasets = pytest.importorskip("datasets")
N = 300


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    datasets.disable_progress_bars()
    yield
    datasets.enable_progress_bars()


@pytest.fixture
def dataset() -> Any:
    """Embeddings in the order of their ids, with a text each."""
    return datasets.Dataset.from_dict(
        {
            "id": [f"doc {i}" for i in range(N)],
            "vector": curved(N),
            "text": [f"text {i}" for i in range(N)],
            "label": [i % 3 for i in range(N)],
        },
    )


def saved_to(folder: Path, dataset: Any, **options: Any) -> Path:
    dataset.save_to_disk(folder, **options)
    return folder


def test_a_saved_dataset_is_read_as_any_vectors(dataset: Any, tmp_path: Path) -> None:
    shuffled = dataset.shuffle(seed=3)
    vectors = open_vectors(saved_to(tmp_path / "saved", shuffled, num_shards=3))
    assert (vectors.kind, vectors.dim, vectors.count) == ("embeddings", 32, N)
    assert vectors.metadata_columns == ["text", "label"]
    batch = vectors.read()
    order = [int(name.removeprefix("doc ")) for name in batch.ids.to_pylist()]
    assert sorted(order) == list(range(N))
    assert order != sorted(order)
    assert np.array_equal(batch.vectors, curved(N)[order])
    assert batch.metadata.column("text").to_pylist() == [f"text {i}" for i in order]
    part = next(vectors.iter_batches(7, start=95, stop=205))
    assert np.array_equal(part.vectors, batch.vectors[95:102])


def test_the_column_is_chosen_among_several(dataset: Any, tmp_path: Path) -> None:
    doubled = dataset.rename_column("vector", "a").add_column("b", list(curved(N, seed=1)))
    saved_to(tmp_path / "saved", doubled)
    with pytest.raises(InputError, match="2 columns that can be vectors, not one"):
        open_vectors(tmp_path / "saved")
    found = open_vectors(tmp_path / "saved", column="b").read(columns=()).vectors
    assert np.array_equal(found, curved(N, seed=1))


def test_splits_and_damage_are_answered(dataset: Any, tmp_path: Path) -> None:
    saved_to(tmp_path / "splits", datasets.DatasetDict({"train": dataset, "test": dataset}))
    with pytest.raises(UsageError, match="holds the splits train, test: give the folder of one"):
        open_vectors(tmp_path / "splits")
    assert open_vectors(tmp_path / "splits" / "test").count == N
    saved = saved_to(tmp_path / "saved", dataset)
    state = json.loads((saved / "state.json").read_text())
    for files in ([], [{"filename": "../saved/x.arrow"}], [{"filename": "x.pkl"}], [{}], 3):
        (saved / "state.json").write_text(json.dumps({**state, "_data_files": files}))
        with pytest.raises(FormatError, match=r"names no \.arrow files of its folder"):
            open_vectors(saved)
    indices = {**state, "_indices_data_files": [{"filename": "indices.arrow"}]}
    (saved / "state.json").write_text(json.dumps(indices))
    with pytest.raises(InputError, match="rows in another order: load and save again"):
        open_vectors(saved)


def test_fit_and_compress_take_it(dataset: Any, tmp_path: Path) -> None:
    saved = saved_to(tmp_path / "saved", dataset, num_shards=2)
    np.save(tmp_path / "x.npy", curved(N))
    config = fit(saved, tmp_path / "model", Compressor(**SMALL))
    assert config["source"]["rows"] == N
    compress(saved, tmp_path / "model", tmp_path / "codes", rows_per_shard=70, num_threads=1)
    compress(tmp_path / "x.npy", tmp_path / "model", tmp_path / "same", num_threads=1)
    codes = open_vectors(tmp_path / "codes").read()
    assert np.array_equal(codes.vectors, open_vectors(tmp_path / "same").read().vectors)
    assert codes.ids.to_pylist() == dataset["id"][:]
    assert codes.metadata.column("label").to_pylist() == dataset["label"][:]
    # Its content is part of the job's identity.
    before = read_manifest(tmp_path / "codes").fingerprint
    other = saved_to(tmp_path / "other", dataset.select(range(N - 1, -1, -1)))
    compress(other, tmp_path / "model", tmp_path / "more", rows_per_shard=70, num_threads=1)
    assert read_manifest(tmp_path / "more").fingerprint != before


def test_texts_of_a_saved_dataset_are_embedded(bert: Path, tmp_path: Path) -> None:
    texts = ["a cat", "two trains", "soup", "", "by the river"]
    table = {"text": texts, "key": list("vwxyz"), "stars": [1, 2, 3, 4, 5]}
    saved = saved_to(tmp_path / "saved", datasets.Dataset.from_dict(table), num_shards=2)
    manifest = extract_text(saved, tmp_path / "from_saved", model=bert, id_column="key")
    assert manifest.count == 5
    rows = [dict(zip(table, row, strict=True)) for row in zip(*table.values(), strict=True)]
    (tmp_path / "x.jsonl").write_text("\n".join(map(json.dumps, rows)))
    extract_text(tmp_path / "x.jsonl", tmp_path / "from_lines", model=bert, id_column="key")
    mine, theirs = (open_vectors(tmp_path / n).read() for n in ("from_saved", "from_lines"))
    assert np.array_equal(mine.vectors, theirs.vectors)
    assert mine.ids.equals(theirs.ids)
    assert mine.metadata.equals(theirs.metadata)
    assert mine.metadata.column("stars").to_pylist() == [1, 2, 3, 4, 5]


@pytest.mark.parametrize("form", [None, "numpy", "arrow", "pandas", "torch"])
def test_map_encodes_batches(dataset: Any, saved: Callable[..., Path], form: str | None) -> None:
    from embedpress.onnx.compressor import load

    expected = load(saved(), num_threads=1).encode(curved(N))
    encode = EncodeBatch(saved())
    mapped = dataset.with_format(form).map(
        encode, batched=True, batch_size=70, remove_columns="vector"
    )
    plain = mapped.with_format(None)
    assert "vector" not in plain.column_names
    assert plain["id"][:] == dataset["id"][:]
    codes = plain["code"][:]
    assert [bytes(code) for code in codes] == [row.tobytes() for row in expected]
    stream = dataset.to_iterable_dataset(num_shards=2).map(
        EncodeBatch(saved(), what="latents", column="vector"), batched=True, batch_size=70
    )
    latents = np.array([row["vector"] for row in stream], np.float32)
    np.testing.assert_allclose(latents, load(saved()).transform(curved(N)), atol=1e-6)


def test_a_column_is_an_array_to_the_estimator(dataset: Any) -> None:
    expected = Compressor(**SMALL).fit(curved(N)).encode(curved(N))
    found = Compressor(**SMALL).fit(dataset["vector"])
    assert np.array_equal(found.encode(dataset.with_format("numpy")["vector"]), expected)


@pytest.mark.parametrize("streaming", [False, True])
def test_a_folder_becomes_a_dataset(tmp_path: Path, streaming: bool) -> None:
    x = curved(N)
    words = [f"é{i}" for i in range(N)]
    folder = write_embeddings(
        tmp_path / "x", x, ids=words, metadata={"n": range(N)}, rows_per_shard=130
    )
    dataset = to_dataset(folder, streaming=streaming)
    assert dataset.column_names == ["id", "vector", "n"]
    rows = list(dataset)
    assert [row["id"] for row in rows] == words
    assert [row["n"] for row in rows] == list(range(N))
    assert np.array_equal(np.array([row["vector"] for row in rows], np.float32), x)
    if streaming:
        assert not list((tmp_path / "cache").rglob("*.arrow"))


def test_codes_become_bytes(saved: Callable[..., Path], tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", curved(N))
    compress(tmp_path / "x.npy", saved(), tmp_path / "codes", num_threads=1)
    codes = open_vectors(tmp_path / "codes").read().vectors
    dataset = to_dataset(tmp_path / "codes")
    assert dataset[7] == {"id": 7, "code": codes[7].tobytes()}
    table = dataset.with_format("arrow")[:]
    assert table.schema.field("code").type == pa.binary(4)
    shard = tmp_path / "codes" / "part-00000.parquet"
    shard.write_bytes(shard.read_bytes()[:-1])
    with pytest.raises(FormatError, match="not as its manifest says"):
        to_dataset(tmp_path / "codes")
