from __future__ import annotations

import io
import json
import struct
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy

from embedpress.errors import EmbedpressError, FormatError, InputError, UsageError
from embedpress.vectors import open_vectors


def rows_of(path: Path, rows: int = 4, **options: str) -> np.ndarray:
    return np.concatenate([b.vectors for b in open_vectors(path, **options).iter_batches(rows)])


@pytest.mark.parametrize("dtype", ["<f2", ">f2", "<f4", ">f4", "<f8", ">f8", "i1"])
@pytest.mark.parametrize("order", ["C", "F"])
def test_npy_dtypes_and_orders(tmp_path: Path, dtype: str, order: str) -> None:
    values = (np.arange(1, 61).reshape(10, 6) - 30.5).astype(dtype)
    np.save(tmp_path / "x.npy", np.asarray(values, order=order))
    found = rows_of(tmp_path / "x.npy")
    assert found.dtype == np.dtype("=f4")
    np.testing.assert_array_equal(found, values.astype(np.float32))


@pytest.mark.parametrize(
    ("values", "text"),
    [
        (np.array([[1.0, {}]], object), "Python objects, which are never loaded"),
        (np.ones((2, 2), np.complex64), "complex64"),
        (np.ones((2, 2), np.int64), "int64"),
        (np.ones((2, 2), np.uint8), "uint8"),
        (np.ones((2, 2), bool), "bool"),
        (np.ones(3, [("a", "f4"), ("b", "f4")]), "not float16"),
        (np.array([["a"]]), "<U1"),
        (np.ones(3, np.float32), "must be 2-d"),
        (np.ones((1, 2, 3), np.float32), "not 3-d"),
        (np.float32(1), "not 0-d"),
        (np.ones((0, 3), np.float32), "empty"),
        (np.ones((3, 0), np.float32), "empty"),
        (np.broadcast_to(np.float32(1), (1, 2**20 + 1)), "dimensions"),
    ],
)
def test_npy_and_npz_that_hold_no_vectors(tmp_path: Path, values: np.ndarray, text: str) -> None:
    np.save(tmp_path / "x.npy", values, allow_pickle=True)
    np.savez(tmp_path / "x.npz", x=values)
    with pytest.raises(InputError, match=text):
        open_vectors(tmp_path / "x.npy")
    with pytest.raises(InputError, match=text):
        open_vectors(tmp_path / "x.npz", column="x")


def npy_header(text: str, version: tuple[int, int] = (1, 0)) -> bytes:
    size = struct.pack("<H" if version == (1, 0) else "<I", len(text))
    return b"\x93NUMPY" + bytes(version) + size + text.encode()


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\x93NUMPY",
        b"PK\x03\x04" + b"\0" * 60,
        b"\x80\x04N.",
        npy_header("{'descr': '<f4', 'fortran_order': False, 'shape': (4611686018427387904, 4), }"),
        npy_header("{'descr': '<f4', 'fortran_order': False, 'shape': (-4, -4), }") + b"\0" * 64,
        npy_header("{'descr': '<f4', 'fortran_order': False, 'shape': (4.0, 4), }") + b"\0" * 64,
        npy_header("{'descr': '<f4', 'fortran_order': False, 'shape': (2, 2), }", (9, 0)),
        npy_header("{'descr': ('<f4', (2,)), 'fortran_order': False, 'shape': (2, 2), }"),
        npy_header("__import__('os').getpid()"),
        npy_header("(" * 5000),
        b"\x93NUMPY\x02\x00" + struct.pack("<I", 2**32 - 1) + b" " * 100,
    ],
)
def test_npy_files_made_up(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x.npy").write_bytes(content)
    with pytest.raises(EmbedpressError):
        open_vectors(tmp_path / "x.npy")


@pytest.mark.parametrize(("cut", "text"), [(-1, "is truncated"), (1, "goes on for 1 bytes")])
def test_npy_of_another_length(tmp_path: Path, x: np.ndarray, cut: int, text: str) -> None:
    buffer = io.BytesIO()
    np.save(buffer, x)
    content = buffer.getvalue()
    (tmp_path / "x.npy").write_bytes(content[:cut] if cut < 0 else content + b"\0")
    with pytest.raises(FormatError, match=text):
        open_vectors(tmp_path / "x.npy")


@pytest.mark.parametrize("name", ["x.npy", "x.fvecs"])
def test_a_column_makes_no_sense_for_one_array(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"anything")
    with pytest.raises(UsageError, match="leave the column out"):
        open_vectors(tmp_path / name, column="x")


def fvecs(rows: list[list[float]]) -> bytes:
    return b"".join(struct.pack(f"<i{len(r)}f", len(r), *r) for r in rows)


def test_fvecs(tmp_path: Path) -> None:
    path = tmp_path / "x.fvecs"
    path.write_bytes(fvecs([[1, 2.5], [3, -4]]))
    np.testing.assert_array_equal(rows_of(path), [[1, 2.5], [3, -4]])


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (b"", "empty"),
        (b"\1\0", "first row has length 1"),
        (fvecs([[1, 2]])[:-1], "no whole number of rows"),
        (struct.pack("<i", 0), "length 0"),
        (struct.pack("<i", -5) + b"\0" * 20, "length -5"),
        (struct.pack("<i", 2**31 - 1) + b"\0" * 20, "length 2147483647"),
    ],
)
def test_fvecs_that_are_none(tmp_path: Path, content: bytes, text: str) -> None:
    (tmp_path / "x.fvecs").write_bytes(content)
    with pytest.raises(InputError, match=text):
        open_vectors(tmp_path / "x.fvecs")


def test_fvecs_rows_of_unequal_length_are_named(tmp_path: Path) -> None:
    path = tmp_path / "x.fvecs"
    path.write_bytes(fvecs([[1, 2]] * 5 + [[1]] + [[1, 2, 3]]))
    with pytest.raises(FormatError, match="row 5 has length 1, row 0 has 2"):
        rows_of(path)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, np.int8])
def test_safetensors_dtypes(tmp_path: Path, dtype: type) -> None:
    values = (np.arange(60).reshape(10, 6) - 30).astype(dtype)
    values[0] = 1
    safetensors.numpy.save_file({"e": values, "bias": values[0]}, tmp_path / "x.safetensors")
    np.testing.assert_array_equal(rows_of(tmp_path / "x.safetensors"), values.astype(np.float32))


def save_raw_safetensors(path: Path, entries: dict[str, object], data: bytes) -> None:
    header = json.dumps(entries).encode()
    path.write_bytes(struct.pack("<Q", len(header)) + header + data)


def test_safetensors_bfloat16_is_exact(tmp_path: Path) -> None:
    values = np.array([[1.5, -2.0], [0.0078125, 3e8], [-1, 7]], np.float32)
    halves = (values.view("<u4") >> 16).astype("<u2")
    entry = {"dtype": "BF16", "shape": [3, 2], "data_offsets": [0, 12]}
    save_raw_safetensors(tmp_path / "x.safetensors", {"e": entry}, halves.tobytes())
    expected = (halves.astype(np.uint32) << 16).view(np.float32)
    found = open_vectors(tmp_path / "x.safetensors").read(columns=())
    np.testing.assert_array_equal(found.vectors, expected)


@pytest.mark.parametrize(
    ("entries", "size", "text"),
    [
        ({"e": {"dtype": "I64", "shape": [2, 2], "data_offsets": [0, 32]}}, 32, "dtype I64"),
        ({"e": {"dtype": "F32", "shape": [4], "data_offsets": [0, 16]}}, 16, "0 2-d arrays"),
        ({"e": {"dtype": "F32", "shape": [0, 4], "data_offsets": [0, 0]}}, 0, "empty"),
        ({}, 0, "nothing"),
        ({"e": {"dtype": "F32", "shape": [2, 2], "data_offsets": [0, 16]}}, 15, "not a readable"),
        ({"e": {"dtype": "F32", "shape": [2, 2], "data_offsets": [0, 16]}}, 17, "not a readable"),
        ({"e": {"dtype": "F32", "shape": [2, 9], "data_offsets": [0, 16]}}, 16, "not a readable"),
        ({"e": {"dtype": "F32", "shape": [2, 2], "data_offsets": [8, 24]}}, 24, "not a readable"),
        ({"e": {"dtype": "F32", "shape": [2**40, 2**40], "data_offsets": [0, 16]}}, 16, "readable"),
    ],
)
def test_safetensors_that_hold_no_vectors(
    tmp_path: Path, entries: dict[str, object], size: int, text: str
) -> None:
    save_raw_safetensors(tmp_path / "x.safetensors", entries, b"\0" * size)
    with pytest.raises(InputError, match=text):
        open_vectors(tmp_path / "x.safetensors")


def test_one_of_several_tensors_is_named(tmp_path: Path, x: np.ndarray) -> None:
    path = tmp_path / "x.safetensors"
    safetensors.numpy.save_file({"a": x, "b": x * 2}, path)
    with pytest.raises(InputError, match="2 2-d arrays, not one: name the one"):
        open_vectors(path)
    with pytest.raises(UsageError, match="no 'c'; it holds a, b"):
        open_vectors(path, column="c")
    np.testing.assert_array_equal(rows_of(path, column="b"), x * 2)


@pytest.mark.parametrize("name", ["x.txt", "x", "x.npy.bak", "x.pkl", "x.pt"])
def test_other_endings_are_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"1 2 3")
    with pytest.raises(UsageError, match=r"\.npy, \.npz"):
        open_vectors(tmp_path / name)


@pytest.mark.parametrize("name", ["missing.npy", "nul\0.npy", "a" * 5000])
def test_a_missing_path_is_a_usage_error(tmp_path: Path, name: str) -> None:
    with pytest.raises(UsageError):
        open_vectors(tmp_path / name)
