"""Whatever is done to a file, the answer is rows or an EmbedpressError in one line."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from formats_on_disk import SAVERS
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from embedpress.errors import EmbedpressError
from embedpress.vectors import open_vectors

TARGETS = [
    *(name for name in sorted(SAVERS) if name not in ("folder", "saved-dataset")),
    "folder/manifest.json",
    "folder/part-00001.parquet",
    "saved-dataset/state.json",
    "saved-dataset/data-00001-of-00002.arrow",
    "foreign",
]

# Half of the damage falls near the start and the end of a file, where the headers are.
PLACE = st.floats(0, 1, exclude_max=True) | st.floats(0, 0.1) | st.floats(0.8, 1, exclude_max=True)
DAMAGE = st.one_of(
    st.tuples(st.just("flip"), PLACE, st.integers(1, 255)),
    st.tuples(st.just("set"), PLACE, st.sampled_from([0, 255, 127, 128])),
    st.tuples(st.just("cut"), PLACE, st.sampled_from([1, 4, 60, 10**9])),
    st.tuples(st.just("insert"), PLACE, st.binary(min_size=1, max_size=12)),
    st.tuples(st.just("number"), PLACE, st.sampled_from([2**31 - 1, 2**32 - 1, 2**63 - 1, 2**40])),
)


def damaged(content: bytes, damage: list[tuple[str, float, object]]) -> bytes:
    data = bytearray(content)
    for what, place, value in damage:
        at = int(place * len(data))
        if what == "flip" and data:
            data[at] ^= value  # type: ignore[operator]
        elif what == "set" and data:
            data[at] = value  # type: ignore[call-overload]
        elif what == "cut":
            del data[at : at + value]  # type: ignore[operator]
        elif what == "insert":
            data[at:at] = value  # type: ignore[call-overload]
        elif what == "number":
            data[at : at + 8] = int(value).to_bytes(8, "little")  # type: ignore[call-overload]
    return bytes(data)


@pytest.fixture(scope="module")
def target_files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, Path, bytes]]:
    """By target: what to open, which file to damage, its sound content."""
    x = np.random.default_rng(0).normal(size=(20, 6)).astype(np.float32)
    files = {}
    for target in TARGETS:
        folder = tmp_path_factory.mktemp("target")
        name, _, inner = target.partition("/")
        if name == "foreign":
            path = folder / "x.parquet"
            columns = {"id": [f"é{i}" for i in range(20)], "v": x.astype(float).tolist()}
            pq.write_table(pa.table(columns), path, compression="snappy")
        else:
            path = SAVERS[name](folder, x)
        broken = path / inner if inner else path
        files[target] = (path, broken, broken.read_bytes())
    return files


@pytest.mark.parametrize("target", TARGETS)
@given(damage=st.lists(DAMAGE, min_size=1, max_size=3))
@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_damage_is_answered(
    target_files: dict[str, tuple[Path, Path, bytes]], target: str, damage: list
) -> None:
    path, broken, content = target_files[target]
    broken.write_bytes(damaged(content, damage))
    message = ""
    try:
        vectors = open_vectors(path)
        for batch in vectors.iter_batches(8):
            assert np.isfinite(batch.vectors).all()
            assert len(batch.ids) == len(batch.vectors) == batch.metadata.num_rows
            batch.ids.to_pylist()
            batch.metadata.to_pylist()
        vectors.read(3)
    except EmbedpressError as error:
        message = str(error)
    finally:
        broken.write_bytes(content)
    assert "\n" not in message
    assert len(message) < 800


@pytest.mark.parametrize("target", TARGETS)
def test_every_truncation_of_a_small_file(
    target_files: dict[str, tuple[Path, Path, bytes]], target: str
) -> None:
    path, broken, content = target_files[target]
    # A .fvecs file cut between two rows is a shorter .fvecs file: nothing can tell.
    row = 4 + 4 * 6
    try:
        for length in range(0, len(content), 29 if len(content) < 3000 else 97):
            broken.write_bytes(content[:length])
            if target == "fvecs" and length % row == 0 and length:
                continue
            with pytest.raises(EmbedpressError):
                open_vectors(path).read()
    finally:
        broken.write_bytes(content)
