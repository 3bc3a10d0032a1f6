from __future__ import annotations

import json
import os
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from formats_on_disk import SAVERS, Save, save_folder
from hypothesis import given, settings
from hypothesis import strategies as st

from embedpress.errors import FormatError, InputError, MismatchError, UsageError
from embedpress.vectors import Vectors, open_vectors, verify


def all_rows(vectors: Vectors, rows: int) -> tuple[list[int], np.ndarray]:
    batches = list(vectors.iter_batches(rows))
    ids = [i for b in batches for i in b.ids.to_pylist()]
    return ids, np.concatenate([b.vectors for b in batches])


@pytest.fixture(scope="module")
def formats(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Vectors]:
    x = np.random.default_rng(0).normal(size=(43, 6)).astype(np.float32)
    folder = tmp_path_factory.mktemp("formats")
    return {name: open_vectors(save(folder, x)) for name, save in SAVERS.items()}


@given(rows=st.integers(1, 60), span=st.tuples(st.integers(0, 43), st.integers(0, 43)))
@settings(max_examples=40)
def test_batches_do_not_depend_on_their_size(
    formats: dict[str, Vectors], rows: int, span: tuple[int, int]
) -> None:
    x = np.random.default_rng(0).normal(size=(43, 6)).astype(np.float32)
    start, stop = min(span), max(span)
    for vectors in formats.values():
        low = start
        for batch in vectors.iter_batches(rows, start=start, stop=stop):
            high = min(low + rows, stop)
            np.testing.assert_array_equal(batch.vectors, x[low:high])
            assert batch.ids.equals(pa.array(np.arange(low, high)))
            assert batch.metadata.num_rows == high - low
            if vectors.metadata_columns:
                expected = [f"row {i}" for i in range(low, high)]
                assert batch.metadata.column("text").to_pylist() == expected
            assert batch.vectors.dtype == np.float32
            assert batch.vectors.flags.c_contiguous
            assert batch.vectors.flags.writeable
            low = high
        assert low == stop


@given(limit=st.integers(1, 60), seed=st.integers(0, 2**32))
@settings(max_examples=30)
def test_a_sample_is_drawn_without_replacement_and_kept_in_order(
    formats: dict[str, Vectors], limit: int, seed: int
) -> None:
    x = np.random.default_rng(0).normal(size=(43, 6)).astype(np.float32)
    drawn = []
    for vectors in formats.values():
        batch = vectors.read(limit, seed=seed)
        rows = batch.ids.to_numpy()
        assert len(rows) == min(limit, 43)
        assert (np.diff(rows) > 0).all()
        np.testing.assert_array_equal(batch.vectors, x[rows])
        assert batch.metadata.num_rows == len(rows)
        drawn.append(rows.tolist())
    assert all(rows == drawn[0] for rows in drawn)


def test_samples_differ_by_seed_and_cover_all_rows(formats: dict[str, Vectors]) -> None:
    seen: set[int] = set()
    for seed in range(40):
        seen.update(formats["npy"].read(10, seed=seed).ids.to_pylist())
    assert seen == set(range(43))


def test_what_is_there(formats: dict[str, Vectors]) -> None:
    for name, vectors in formats.items():
        assert (vectors.count, len(vectors), vectors.dim) == (43, 43, 6)
        assert (vectors.kind, vectors.metric) == ("embeddings", "cosine")
        assert (vectors.manifest is not None) == (name == "folder")


def test_a_batch_is_not_a_window_on_the_file(save: Save, tmp_path: Path, x: np.ndarray) -> None:
    vectors = open_vectors(save(tmp_path, x))
    next(vectors.iter_batches(43)).vectors[:] = 7
    np.testing.assert_array_equal(vectors.read().vectors, x)


@pytest.mark.parametrize("bad", ["NaN", "infinity", "zeros"])
def test_bad_rows_are_named_by_their_global_number(
    save: Save, tmp_path: Path, x: np.ndarray, bad: str
) -> None:
    x[31] = {"NaN": np.nan, "infinity": np.inf, "zeros": 0}[bad]
    vectors = open_vectors(save(tmp_path, x), metric="cosine")
    batches = vectors.iter_batches(10)
    for low in (0, 10, 20):
        np.testing.assert_array_equal(next(batches).vectors, x[low : low + 10])
    with pytest.raises(InputError, match=rf"row 31 .*{bad}"):
        next(batches)
    with pytest.raises(InputError, match=rf"row 31 .*{bad}"):
        vectors.read()
    for seed in range(20):
        chosen = vectors.read(5, seed=seed).ids if 31 not in draw(seed) else None
        assert chosen is None or chosen.to_pylist() == draw(seed)
    seed = next(s for s in range(100) if 31 in draw(s))
    with pytest.raises(InputError, match="row 31 "):
        vectors.read(5, seed=seed)


def draw(seed: int) -> list[int]:
    found = np.random.default_rng(seed).choice(43, 5, replace=False, shuffle=False)
    return sorted(found.tolist())


@pytest.mark.parametrize("metric", ["ip", "l2"])
def test_zero_rows_are_fine_under_other_metrics(
    save: Save, tmp_path: Path, x: np.ndarray, metric: str
) -> None:
    x[3] = 0
    options = {"metric": metric}
    if save is save_folder:
        path, options = save_folder(tmp_path, x, metric=metric), {}
    else:
        path = save(tmp_path, x)
    vectors = open_vectors(path, **options)
    assert vectors.metric == metric
    np.testing.assert_array_equal(vectors.read().vectors, x)


@pytest.mark.parametrize(
    "span", [(-1, 5, 1), (0, 44, 1), (5, 4, 1), (0, 5, 0), (0, 5, -3)], ids=str
)
def test_impossible_ranges(formats: dict[str, Vectors], span: tuple[int, int, int]) -> None:
    start, stop, rows = span
    with pytest.raises(UsageError):
        formats["npy"].iter_batches(rows, start=start, stop=stop)
    with pytest.raises(UsageError):
        formats["npy"].read(0)


def test_latents_and_codes(tmp_path: Path, x: np.ndarray) -> None:
    x[2] = 0
    latents = open_vectors(save_folder(tmp_path, x, kind="latents"))
    assert latents.kind == "latents"
    np.testing.assert_array_equal(latents.read().vectors, x)
    codes = np.arange(86, dtype=np.uint8).reshape(43, 2)
    found = open_vectors(save_folder(tmp_path, codes, kind="codes", dtype="uint8"))
    assert (found.kind, found.dim) == ("codes", 2)
    ids, values = all_rows(found, 9)
    assert ids == list(range(43))
    assert values.dtype == np.uint8
    np.testing.assert_array_equal(values, codes)


@pytest.mark.parametrize("name", sorted(SAVERS))
def test_memory_is_bounded_by_the_batch(tmp_path: Path, name: str) -> None:
    x = np.random.default_rng(0).normal(size=(30_000, 64)).astype(np.float32)
    path = save_folder(tmp_path, x, rows=30_000) if name == "folder" else SAVERS[name](tmp_path, x)
    vectors = open_vectors(path)
    arrow, peak, low = pa.total_allocated_bytes(), 0, 0
    tracemalloc.start()
    for batch in vectors.iter_batches(1000):
        assert (batch.vectors == x[low : low + 1000]).all()
        peak = max(peak, pa.total_allocated_bytes() - arrow)
        low += 1000
    numpy_peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert numpy_peak < x.nbytes / 4
    assert peak < x.nbytes / 2


def edit(folder: Path, **changes: object) -> None:
    path = folder / "manifest.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def grow(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b"x")


def swap(folder: Path) -> None:
    text = (folder / "manifest.json").read_text()
    data = json.loads(text)
    data["shards"][1]["rows"], data["shards"][4]["rows"] = 3, 10
    (folder / "manifest.json").write_text(json.dumps(data))


def link_out(folder: Path) -> None:
    shard = folder / "part-00001.parquet"
    shard.rename(folder.parent / "elsewhere.parquet")
    shard.symlink_to(folder.parent / "elsewhere.parquet")


def other_columns(folder: Path) -> None:
    other = save_folder(folder.parent / "other", np.ones((43, 6), np.float32))
    data = json.loads((folder / "manifest.json").read_text())
    replace = other / "part-00001.parquet"
    pq.write_table(pq.read_table(replace).drop(["text"]), folder / "part-00001.parquet")
    data["shards"][1]["bytes"] = (folder / "part-00001.parquet").stat().st_size
    (folder / "manifest.json").write_text(json.dumps(data))


@pytest.mark.parametrize(
    ("damage", "text"),
    [
        (lambda f: (f / "part-00002.parquet").unlink(), "part-00002.parquet is missing"),
        (lambda f: grow(f / "part-00003.parquet"), "bytes, its manifest says"),
        (lambda f: edit(f, dim=7), "has dimension 6, its manifest 7"),
        (lambda f: edit(f, kind="codes", dtype="uint8"), "one column 'id' and one 'code'"),
        (lambda f: edit(f, count=0, shards=[]), "counts no rows"),
        (link_out, "leads out of its folder"),
        (swap, "part-00001.parquet has 10 rows, 3 were expected"),
        (other_columns, "part-00001.parquet has other columns"),
        (lambda f: (f / "manifest.json").unlink(), r"no manifest\.json"),
        (lambda f: (f / "manifest.json").write_text("{"), "not valid JSON"),
    ],
)
def test_a_folder_that_is_not_as_its_manifest_says(
    tmp_path: Path, x: np.ndarray, damage: Callable[[Path], None], text: str
) -> None:
    (tmp_path / "other").mkdir()
    folder = save_folder(tmp_path, x)
    damage(folder)

    def read() -> None:
        open_vectors(folder).read()

    with pytest.raises((InputError, UsageError), match=text):
        read()


def test_options_that_make_no_sense_for_a_folder(tmp_path: Path, x: np.ndarray) -> None:
    folder = save_folder(tmp_path, x)
    with pytest.raises(MismatchError, match="made for the metric 'cosine', not 'l2'"):
        open_vectors(folder, metric="l2")
    with pytest.raises(UsageError, match="leave the column out"):
        open_vectors(folder, column="vector")
    with pytest.raises(UsageError, match="'angle' is not one of"):
        open_vectors(folder, metric="angle")


def test_an_unfinished_job_is_called_so(tmp_path: Path) -> None:
    (tmp_path / "journal.jsonl").write_text("{}\n")
    with pytest.raises(InputError, match="not finished: run the command"):
        open_vectors(tmp_path)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_without_permission(tmp_path: Path, x: np.ndarray) -> None:
    path = SAVERS["npy"](tmp_path, x)
    path.chmod(0)
    with pytest.raises(OSError, match="permission denied"):
        open_vectors(path)


def test_verify_names_the_shards_that_do_not_hold(tmp_path: Path, x: np.ndarray) -> None:
    folder = save_folder(tmp_path, x)
    assert verify(folder) == []
    flipped = bytearray((folder / "part-00001.parquet").read_bytes())
    flipped[100] ^= 1
    (folder / "part-00001.parquet").write_bytes(flipped)
    (folder / "part-00004.parquet").unlink()
    assert verify(folder) == ["part-00001.parquet", "part-00004.parquet"]
    edit(folder, dim="x")
    with pytest.raises(FormatError):
        verify(folder)


def test_flipped_vectors_are_found_while_reading(tmp_path: Path, x: np.ndarray) -> None:
    folder = save_folder(tmp_path, x)
    path = folder / "part-00002.parquet"
    content = path.read_bytes()
    at = content.index(x[22].tobytes())
    path.write_bytes(content[:at] + b"\x01" + content[at + 1 :])
    with pytest.raises(FormatError, match="CRC"):
        open_vectors(folder).read()
