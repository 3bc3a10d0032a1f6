from __future__ import annotations

import io
import zipfile
from pathlib import Path

import numpy as np
import pytest

import embedpress.vectors.npz as npz
from embedpress.errors import EmbedpressError, FormatError, InputError, UsageError
from embedpress.vectors import open_vectors


def rows_of(path: Path, **options: str) -> np.ndarray:
    return np.concatenate([b.vectors for b in open_vectors(path, **options).iter_batches(7)])


def npy(x: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, x)
    return buffer.getvalue()


def archive(path: Path, method: int = zipfile.ZIP_STORED, **members: bytes) -> Path:
    with zipfile.ZipFile(path, "w", method) as file:
        for name, content in members.items():
            file.writestr(f"{name}.npy", content)
    return path


@pytest.mark.parametrize("dtype", ["<f2", ">f4", "<f8", "i1"])
@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_dtypes_and_orders(tmp_path: Path, dtype: str, order: str, save: object) -> None:
    values = np.asarray((np.arange(1, 61).reshape(20, 3) - 30.5).astype(dtype), order=order)
    save(tmp_path / "x.npz", x=values)  # type: ignore[operator]
    np.testing.assert_array_equal(rows_of(tmp_path / "x.npz"), values.astype(np.float32))


def test_the_only_matrix_or_the_one_named(tmp_path: Path, x: np.ndarray) -> None:
    np.savez(tmp_path / "one.npz", labels=np.arange(43), x=x)
    np.testing.assert_array_equal(rows_of(tmp_path / "one.npz"), x)
    np.savez(tmp_path / "two.npz", a=x, b=-x)
    with pytest.raises(InputError, match="2 2-d arrays, not one"):
        open_vectors(tmp_path / "two.npz")
    np.testing.assert_array_equal(rows_of(tmp_path / "two.npz", column="b"), -x)
    with pytest.raises(UsageError, match="no 'c'; it holds a, b"):
        open_vectors(tmp_path / "two.npz", column="c")


def test_an_archive_without_arrays(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="0 2-d arrays"):
        open_vectors(archive(tmp_path / "x.npz"))


def test_a_bomb_is_not_opened(tmp_path: Path) -> None:
    zeros = npy(np.zeros((2**19, 16), np.float32))
    path = archive(tmp_path / "x.npz", zipfile.ZIP_DEFLATED, x=zeros)
    assert path.stat().st_size < 2**16
    with pytest.raises(FormatError, match="would grow from"):
        open_vectors(path)
    with pytest.raises(FormatError, match="would grow from"):
        open_vectors(path, column="x")


@pytest.mark.parametrize("change", [-4, 4])
def test_a_member_longer_or_shorter_than_its_header(
    tmp_path: Path, x: np.ndarray, change: int
) -> None:
    content = npy(x)
    content = content[:change] if change < 0 else content + b"\0" * change
    with pytest.raises(FormatError, match="where its header needs"):
        open_vectors(archive(tmp_path / "x.npz", x=content))


def test_a_fortran_array_too_big_to_turn(
    tmp_path: Path, x: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    np.savez(tmp_path / "x.npz", x=np.asfortranarray(x))
    monkeypatch.setattr(npz, "_MAX_WHOLE", 100)
    with pytest.raises(InputError, match="save it in C order"):
        open_vectors(tmp_path / "x.npz")


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_other_compression_is_refused(tmp_path: Path, x: np.ndarray, method: int) -> None:
    with pytest.raises(FormatError, match="compressed in a way"):
        open_vectors(archive(tmp_path / "x.npz", method, x=npy(x)))


def test_flipped_data_is_found_by_its_checksum(tmp_path: Path) -> None:
    x = np.random.default_rng(0).normal(size=(3000, 8)).astype(np.float32)
    path = archive(tmp_path / "x.npz", x=npy(x))
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(FormatError, match="CRC"):
        rows_of(path)


def test_no_pickle_is_read(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    np.save(buffer, np.array([[{}]], object), allow_pickle=True)
    with pytest.raises(InputError, match="never loaded"):
        open_vectors(archive(tmp_path / "x.npz", x=buffer.getvalue()))
    with pytest.raises(EmbedpressError):
        open_vectors(archive(tmp_path / "y.npz", x=b"\x80\x04N."))
