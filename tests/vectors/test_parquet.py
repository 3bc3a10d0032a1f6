from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from embedpress.errors import FormatError, InputError, UsageError
from embedpress.vectors import open_vectors

X = (np.arange(1, 41).reshape(10, 4) - 20.5).astype(np.float32)


def save(folder: Path, **columns: Any) -> Path:
    pq.write_table(pa.table(columns), folder / "x.parquet", row_group_size=3)
    return folder / "x.parquet"


def fixed(x: np.ndarray, found: pa.DataType | None = None) -> pa.Array:
    return pa.FixedSizeListArray.from_arrays(pa.array(x.reshape(-1), found), x.shape[1])


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, np.int8])
@pytest.mark.parametrize("kind", [pa.ListArray, pa.LargeListArray, pa.FixedSizeListArray])
def test_list_types(tmp_path: Path, dtype: type, kind: Any) -> None:
    x = (np.arange(1, 41).reshape(10, 4) - 20).astype(dtype)
    flat = pa.array(x.reshape(-1))
    if kind is pa.FixedSizeListArray:
        path = save(tmp_path, vector=kind.from_arrays(flat, 4))
    else:
        offsets = np.arange(0, 41, 4, dtype=np.int64 if kind is pa.LargeListArray else np.int32)
        path = save(tmp_path, vector=kind.from_arrays(pa.array(offsets), flat))
    vectors = open_vectors(path)
    assert (vectors.count, vectors.dim, vectors.kind) == (10, 4, "embeddings")
    batches = list(vectors.iter_batches(4))
    assert [len(b.ids) for b in batches] == [4, 4, 2]
    np.testing.assert_array_equal(np.concatenate([b.vectors for b in batches]), x)


def test_a_fixed_shape_tensor_column(tmp_path: Path) -> None:
    tensors = pa.ExtensionArray.from_storage(pa.fixed_shape_tensor(pa.float32(), [4]), fixed(X))
    np.testing.assert_array_equal(open_vectors(save(tmp_path, vector=tensors)).read().vectors, X)


def test_ids_and_metadata(tmp_path: Path) -> None:
    names = [f"n{i}" for i in range(10)]
    path = save(
        tmp_path,
        label=pa.array(names).dictionary_encode(),
        vector=fixed(X),
        id=pa.array(names, pa.large_string()),
        tags=[["a"]] * 10,
    )
    vectors = open_vectors(path, metric="l2")
    assert vectors.metadata_columns == ["label", "tags"]
    assert vectors.metric == "l2"
    batch = vectors.read()
    assert batch.ids.equals(pa.array(names))
    assert batch.metadata.to_pylist() == [{"label": n, "tags": ["a"]} for n in names]
    assert batch.metadata.schema.field("label").type == pa.string()
    some = vectors.read(columns=["tags"])
    assert some.metadata.column_names == ["tags"]
    none = next(vectors.iter_batches(6, columns=()))
    assert (none.metadata.num_rows, none.metadata.num_columns) == (6, 0)
    with pytest.raises(UsageError, match="no metadata column 'x'"):
        vectors.iter_batches(columns=["x"])


def test_row_numbers_are_global(tmp_path: Path) -> None:
    batches = list(open_vectors(save(tmp_path, v=fixed(X))).iter_batches(2, start=3, stop=8))
    assert [b.ids.to_pylist() for b in batches] == [[3, 4], [5, 6], [7]]
    np.testing.assert_array_equal(np.concatenate([b.vectors for b in batches]), X[3:8])


def test_which_column(tmp_path: Path) -> None:
    path = save(tmp_path, a=fixed(X), b=fixed(-X), c=[[1]] * 10, d=list(range(10)))
    with pytest.raises(InputError, match=r"2 columns that can be vectors.*there are a, b"):
        open_vectors(path)
    np.testing.assert_array_equal(open_vectors(path, column="b").read().vectors, -X)
    assert open_vectors(path, column="b").metadata_columns == ["a", "c", "d"]
    with pytest.raises(UsageError, match="no column 'z'; it has a, b, c, d"):
        open_vectors(path, column="z")
    for column in ("c", "d"):
        with pytest.raises(InputError, match=f"column '{column}' is of type"):
            open_vectors(path, column=column)
    both = save(tmp_path, a=fixed(-X), vector=fixed(X))
    np.testing.assert_array_equal(open_vectors(both).read().vectors, X)


def test_a_fixed_size_binary_beside_a_list_is_metadata(tmp_path: Path) -> None:
    digest = pa.array([bytes([i] * 4) for i in range(10)], pa.binary(4))
    vectors = open_vectors(save(tmp_path, embedding=fixed(X), digest=digest))
    assert vectors.metadata_columns == ["digest"]
    codes = open_vectors(save(tmp_path, code=digest))
    assert (codes.kind, codes.dim) == ("codes", 4)
    np.testing.assert_array_equal(codes.read(3, seed=1).vectors[:, 0], codes.read(3, seed=1).ids)


@pytest.mark.parametrize(
    ("columns", "text"),
    [
        ({"vector": [[1.0, 2.0]] * 4 + [[1.0]]}, "row 4 has 1 dimensions, row 0 has 2"),
        ({"vector": [[1.0, 2.0]] * 4 + [None]}, "row 4 has no vector"),
        ({"vector": [[1.0, 2.0]] * 4 + [[1.0, None]]}, "row 4 holds a null"),
        ({"vector": [[1.0, 2.0]] * 4 + [[1.0, np.nan]]}, "row 4 holds NaN"),
        ({"vector": [[1.0, 2.0]] * 4 + [[0.0, 0.0]]}, "row 4 is all zeros"),
        ({"vector": [[], [1.0]]}, "row 0 of column 'vector' has 0 dimensions"),
        ({"vector": pa.array([None, [1.0]])}, "row 0 of column 'vector' has 0 dimensions"),
        ({"vector": pa.array([], pa.list_(pa.float32(), 2))}, "no rows"),
        ({"text": ["a"]}, "0 columns that can be vectors"),
        ({"vector": [[1.0]] * 5, "id": [1, 2, 3, 4, 1]}, "id 1 of row 4"),
        ({"vector": [[1.0]] * 5, "id": ["a", "b", "c", "d", "b"]}, "id 'b' of row 4"),
        ({"vector": [[1.0]] * 5, "id": ["a", "b", "c", "d", None]}, "row 4 is null"),
        ({"vector": [[1.0]] * 5, "id": [1.0] * 5}, "integers or strings"),
    ],
)
@pytest.mark.parametrize("whole", [True, False])
def test_bad_content_is_named(
    tmp_path: Path, columns: dict[str, Any], text: str, whole: bool
) -> None:
    path = save(tmp_path, **columns)

    def read() -> None:
        vectors = open_vectors(path)
        vectors.read() if whole else list(vectors.iter_batches(2))

    with pytest.raises(InputError, match=text) as caught:
        read()
    assert str(path) in str(caught.value) or "ids are of type" in str(caught.value)


def test_nulls_in_fixed_size_lists_are_named(tmp_path: Path) -> None:
    lists = pa.array([[1.0, 2.0]] * 4 + [None], pa.list_(pa.float32(), 2))
    # Older versions of Arrow cannot read such a column at all, and say so.
    with pytest.raises(InputError, match=r"row 4 has no vector|Expected all lists to be"):
        open_vectors(save(tmp_path, vector=lists)).read()
    lists = pa.array([[1.0, 2.0]] * 4 + [[1.0, None]], pa.list_(pa.float32(), 2))
    with pytest.raises(InputError, match="row 4 holds a null"):
        open_vectors(save(tmp_path, vector=lists)).read()


def test_two_columns_of_one_name_are_refused(tmp_path: Path) -> None:
    table = pa.Table.from_arrays([fixed(X), pa.array(range(10)), pa.array(range(10))], list("vaa"))
    pq.write_table(table, tmp_path / "x.parquet")
    with pytest.raises(InputError, match="two columns of one name"):
        open_vectors(tmp_path / "x.parquet")


def test_columns_whose_names_have_dots(tmp_path: Path) -> None:
    path = save(tmp_path, **{"vector": fixed(X), "vector.x": list("abcdefghij"), "a.b": [1] * 10})
    batch = open_vectors(path).read(columns=["a.b"])
    np.testing.assert_array_equal(batch.vectors, X)
    assert batch.metadata.column_names == ["a.b"]
    assert open_vectors(path).read().metadata.column("vector.x").to_pylist() == list("abcdefghij")


def test_text_that_is_no_utf8_is_refused(tmp_path: Path) -> None:
    bad = pa.StringArray.from_buffers(
        1, pa.py_buffer(np.array([0, 1], np.int32)), pa.py_buffer(b"\xff")
    )
    path = save(tmp_path, vector=fixed(X[:1]), text=bad)
    with pytest.raises(FormatError, match="UTF8"):
        open_vectors(path).read()


@pytest.mark.parametrize("content", [b"", b"PAR1", b"PAR1" + b"\0" * 100 + b"PAR1"])
def test_what_is_no_parquet(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x.parquet").write_bytes(content)
    with pytest.raises(FormatError, match="not a readable Parquet file"):
        open_vectors(tmp_path / "x.parquet")
