"""One callable for every engine: the codes of the library, whatever the form of the batch."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from samples import DIM, curved

from embedpress.engine import EncodeBatch
from embedpress.errors import InputError, MismatchError, UsageError
from embedpress.onnx.runtime import load
from embedpress.vectors import shard_table

ROOT = Path(__file__).parents[2]
N = 60


@pytest.fixture(scope="module")
def x() -> np.ndarray:
    return curved(N, seed=5)


@pytest.fixture(scope="module")
def codes(saved: Callable[..., Path], x: np.ndarray) -> np.ndarray:
    return load(saved(), num_threads=1).encode(x)


def test_arrow(saved: Callable[..., Path], x: np.ndarray, codes: np.ndarray) -> None:
    encode = EncodeBatch(saved())
    extra = pa.table({"n": list(range(N))})
    table = shard_table([f"id{i}" for i in range(N)], x, extra)
    variable = table.set_column(1, "vector", pa.array(list(x)))
    chunked = pa.concat_tables([table.slice(0, 7), table.slice(7)])
    for given in (table, variable, chunked):
        found = encode(given)
        assert found.column_names == ["id", "n", "code"]
        assert found.schema.field("code").type == pa.binary(4)
        assert found.column("code").to_pylist() == [row.tobytes() for row in codes]
        assert found.select(["id", "n"]).equals(given.select(["id", "n"]))
    assert encode(table.slice(0, 0)).schema == encode(table).schema


def test_arrays_and_latents(saved: Callable[..., Path], x: np.ndarray) -> None:
    encode = EncodeBatch(saved(), what="latents", column="emb")
    found = encode({"id": np.arange(N), "emb": x})
    assert set(found) == {"id", "vector"}
    np.testing.assert_array_equal(found["vector"], load(saved(), num_threads=1).transform(x))
    rows = np.empty(N, object)
    rows[:] = list(x)
    np.testing.assert_array_equal(encode({"emb": rows})["vector"], found["vector"])
    assert encode({"emb": x[:0]})["vector"].shape == (0, encode.size)


def test_frames(saved: Callable[..., Path], x: np.ndarray, codes: np.ndarray) -> None:
    pandas = pytest.importorskip("pandas")
    encode = EncodeBatch(saved())
    frame = pandas.DataFrame({"id": range(N), "vector": list(x), "n": "a"})
    for given in (frame, frame.assign(vector=[row.tolist() for row in x])):
        found = encode(given)
        assert list(found.columns) == ["id", "n", "code"]
        assert found["code"].tolist() == [row.tobytes() for row in codes]
    assert list(frame.columns) == ["id", "vector", "n"]
    assert encode(frame.iloc[:0]).columns.tolist() == ["id", "n", "code"]


def test_pickled_it_is_small_and_opens_the_compressor_anew(
    saved: Callable[..., Path], x: np.ndarray, codes: np.ndarray, tmp_path: Path
) -> None:
    data = pickle.dumps(EncodeBatch(saved()))
    assert len(data) < 1000
    np.save(tmp_path / "x.npy", x)
    (tmp_path / "encode").write_bytes(data)
    program = (
        "import pickle, sys, numpy as np; from pathlib import Path; work = Path(sys.argv[1]);"
        "encode = pickle.loads((work / 'encode').read_bytes());"
        "np.save(work / 'codes.npy', encode({'vector': np.load(work / 'x.npy')})['code']);"
        "assert 'torch' not in sys.modules"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    subprocess.run(
        [sys.executable, "-c", program, str(tmp_path)], check=True, env=environment, cwd="/"
    )
    np.testing.assert_array_equal(np.load(tmp_path / "codes.npy"), codes)


def test_another_compressor_in_the_same_folder_is_noticed(
    saved: Callable[..., Path], x: np.ndarray, tmp_path: Path
) -> None:
    import shutil

    folder = Path(shutil.copytree(saved(), tmp_path / "model"))
    encode = pickle.loads(pickle.dumps(EncodeBatch(folder)))
    shutil.rmtree(folder)
    shutil.copytree(saved(groups=1), folder)
    from embedpress.engine import batch

    batch._opened.cache_clear()
    with pytest.raises(MismatchError, match="another compressor than when the job began"):
        encode({"vector": x})
    assert not np.array_equal(EncodeBatch(folder).encode(x), load(saved()).encode(x))


def test_what_cannot_be_encoded(saved: Callable[..., Path], x: np.ndarray) -> None:
    encode = EncodeBatch(saved())
    with pytest.raises(UsageError, match="must be codes or latents"):
        EncodeBatch(saved(), what="floats")
    with pytest.raises(InputError, match="gives no codes"):
        EncodeBatch(saved(code_size=None, hidden_sizes=()))
    with pytest.raises(InputError, match="no column 'vector' in a batch of v"):
        encode({"v": x})
    with pytest.raises(InputError, match="not ndarray"):
        encode(x)
    ragged = np.empty(2, object)
    ragged[:] = [x[0], x[1][:-1]]
    with pytest.raises(InputError, match=f"not all rows of a batch are vectors of {DIM}"):
        encode({"vector": ragged})
    with pytest.raises(InputError, match="row 1"):
        encode(pa.table({"vector": [x[0].tolist(), None]}))
    with pytest.raises(InputError, match="NaN"):
        encode({"vector": np.full_like(x, np.nan)})


def test_dask(saved: Callable[..., Path], x: np.ndarray, codes: np.ndarray) -> None:
    dask = pytest.importorskip("dask.dataframe")
    pandas = pytest.importorskip("pandas")
    encode = EncodeBatch(saved())
    frame = pandas.DataFrame({"id": range(N), "vector": list(x)})
    # Dask would make text of columns of objects.
    with pytest.importorskip("dask").config.set({"dataframe.convert-string": False}):
        parts = dask.from_pandas(frame, npartitions=3)
        found = parts.map_partitions(encode, meta=encode(parts._meta))
        computed = found.compute(scheduler="synchronous")
    assert computed["code"].tolist() == [row.tobytes() for row in codes]
    assert computed["id"].tolist() == list(range(N))


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_spark(saved: Callable[..., Path], x: np.ndarray, codes: np.ndarray) -> None:
    pytest.importorskip("pandas")
    pyspark = pytest.importorskip("pyspark")
    import shutil

    if shutil.which("java") is None:
        pytest.skip("Spark needs Java")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYSPARK_PYTHON", sys.executable)
        patch.setenv("PYTHONPATH", str(ROOT))
        session = (
            pyspark.sql.SparkSession.builder.master("local[1]")
            .config("spark.ui.enabled", "false")
            .config("spark.driver.host", "127.0.0.1")
            .config("spark.driver.bindAddress", "127.0.0.1")
            .getOrCreate()
        )
        try:
            rows = [(i, row.tolist()) for i, row in enumerate(x)]
            frame = session.createDataFrame(rows, "id long, vector array<float>").repartition(3)
            encode = EncodeBatch(saved())
            found = frame.mapInPandas(
                lambda frames: map(encode, frames), "id long, code binary"
            ).collect()
        finally:
            session.stop()
    assert {row["id"]: bytes(row["code"]) for row in found} == {
        i: row.tobytes() for i, row in enumerate(codes)
    }


ON_RAY = """
import sys, numpy as np, ray, ray.data
from pathlib import Path
from embedpress.engine import EncodeBatch
from embedpress.vectors import shard_table
work = Path(sys.argv[1])
x, codes = np.load(work / "x.npy"), np.load(work / "codes.npy")
ray.init(address="local", num_cpus=1, object_store_memory=80 * 2**20, include_dashboard=False)
dataset = ray.data.from_arrow(shard_table(np.arange(len(x)), x))
for form in ("pyarrow", "pandas", "numpy"):
    found = dataset.map_batches(EncodeBatch(sys.argv[2]), batch_format=form, batch_size=25)
    rows = sorted(found.take_all(), key=lambda row: row["id"])
    assert [bytes(row["code"]) for row in rows] == [row.tobytes() for row in codes], form
"""


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_ray_data(
    saved: Callable[..., Path], x: np.ndarray, codes: np.ndarray, tmp_path: Path
) -> None:
    pytest.importorskip("ray")
    np.save(tmp_path / "x.npy", x)
    np.save(tmp_path / "codes.npy", codes)
    done = subprocess.run(
        [sys.executable, "-c", ON_RAY, str(tmp_path), str(saved())],
        capture_output=True, text=True, env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
