"""Reader of .npz archives: one array, streamed out of the zip."""

from __future__ import annotations

import os
import struct
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import IO, Any

import numpy as np
import pyarrow as pa

from embedpress.errors import FormatError, InputError
from embedpress.vectors.readers import choose, read_npy_header
from embedpress.vectors.source import Block, check_shape, row_numbers

# Vectors shrink by a few times at most. An archive that claims to grow far more than that is
# made to fill the memory or the day of whoever opens it.
_MAX_RATIO = 200
_SMALL = 2**24
_MAX_WHOLE = 2**30
_MAX_MEMBERS = 4096
_MAX_DIRECTORY = 2**20
_END, _END_64 = 22, 56
_LOCAL = 30
"""Bytes before a member's name, at least."""


class NpzSource:
    """One array of a .npz archive; memory is bounded by a block."""

    kind = "embeddings"

    def __init__(
        self,
        path: Path,
        member: str,
        shape: tuple[int, ...],
        dtype: np.dtype[Any],
        offset: int,
        *,
        fortran: bool,
    ) -> None:
        self.count, self.dim = shape
        self.metadata_columns: list[str] = []
        self._path, self._member = path, member
        self._dtype, self._offset, self._fortran = dtype, offset, fortran

    def blocks(self, start: int, stop: int, rows: int, columns: Sequence[str]) -> Iterator[Block]:
        """Yield rows as they come out of the archive."""
        width = self.dim * self._dtype.itemsize
        with zipfile.ZipFile(self._path) as archive, archive.open(self._member) as file:
            if self._fortran:
                file.seek(self._offset)
                flat = np.frombuffer(self._read(file, self.count * width), self._dtype)
                whole = flat.reshape(self.dim, self.count).T
                for low in range(start, stop, rows):
                    yield Block(whole[low : min(low + rows, stop)])
                return
            file.seek(self._offset + start * width)
            for low in range(start, stop, rows):
                n = min(low + rows, stop) - low
                flat = np.frombuffer(self._read(file, n * width), self._dtype)
                yield Block(flat.reshape(n, self.dim))

    def ids(self, start: int, stop: int) -> Iterator[pa.Array]:
        """Yield row numbers."""
        yield row_numbers(start, stop)

    def _read(self, file: IO[bytes], size: int) -> bytes:
        data = file.read(size)
        if len(data) != size:
            raise FormatError(f"{self._path}: {self._member} is truncated")
        return data


def open_npz(path: Path, column: str | None) -> NpzSource:
    """Open the one 2-d array of a .npz archive, or the one named `column`."""
    _check_directory(path)
    with zipfile.ZipFile(path) as archive:
        _check_places(path, archive)
        members = [info for info in archive.infolist() if info.filename.endswith(".npy")]
        infos = {info.filename[:-4]: info for info in members}
        headers = {}
        for name, info in infos.items():
            if column is None or name == column:
                _check_member(path, info)
                with archive.open(info) as file:
                    headers[name] = read_npy_header(file, f"{path}: {name}")
    ndims = {name: len(header[0]) for name, header in headers.items()}
    name = choose(list(infos), ndims, column, path)
    shape, fortran, dtype, offset = headers[name]
    check_shape(f"{path}: {name}", shape, dtype)
    size = offset + shape[0] * shape[1] * dtype.itemsize
    if infos[name].file_size != size:
        raise FormatError(
            f"{path}: {name} takes {infos[name].file_size} bytes where its header needs {size}"
        )
    if fortran and size > _MAX_WHOLE:
        raise InputError(
            f"{path}: {name} is in Fortran order, which cannot be streamed out of an archive:"
            " save it in C order, or as .npy"
        )
    return NpzSource(path, infos[name].filename, shape, dtype, offset, fortran=fortran)


def _check_directory(path: Path) -> None:
    """Raise where the directory at the end of an archive is larger than any of arrays."""
    with path.open("rb") as file:
        end = file.seek(0, os.SEEK_END) - _END
        record = _read_at(file, end, _END)
        if record[:4] != b"PK\5\6" or record[20:] != b"\0\0":
            raise FormatError(f"{path} is not a .npz file, or it is truncated")
        count, size = struct.unpack("<HI", record[10:16])
        locator = _read_at(file, end - 20, 20)
        if locator[:4] == b"PK\6\7":  # of an archive of over 4 GiB
            record = _read_at(file, struct.unpack("<Q", locator[8:16])[0], _END_64)
            if record[:4] != b"PK\6\6":
                raise FormatError(f"{path} is not a .npz file, or it is truncated")
            count, size = struct.unpack("<QQ", record[32:48])
    if count > _MAX_MEMBERS or size > _MAX_DIRECTORY:
        raise FormatError(
            f"{path} holds {count} files in a directory of {size} bytes, more than"
            f" {_MAX_MEMBERS} or {_MAX_DIRECTORY}"
        )


def _read_at(file: IO[bytes], at: int, size: int) -> bytes:
    if not 0 <= at < 2**62:
        return b""
    file.seek(at)
    return file.read(size)


def _check_places(path: Path, archive: zipfile.ZipFile) -> None:
    """Raise where members share bytes or a name, are encrypted, or are named as elsewhere."""
    infos = sorted(archive.infolist(), key=lambda info: info.header_offset)
    ends = [*(info.header_offset for info in infos), archive.start_dir][1:]
    for info, end in zip(infos, ends, strict=True):
        name = PurePosixPath(info.filename)
        if name.is_absolute() or ".." in name.parts or "\\" in info.filename:
            raise FormatError(f"{path}: {info.filename!r} is named as a file elsewhere")
        if info.flag_bits & 1:
            raise FormatError(f"{path}: {info.filename} is encrypted")
        if info.header_offset < 0 or info.header_offset + _LOCAL + info.compress_size > end:
            raise FormatError(f"{path}: {info.filename} lies over other files of the archive")
    if len({info.filename for info in infos}) != len(infos):
        raise FormatError(f"{path} holds two files of one name")


def _check_member(path: Path, info: zipfile.ZipInfo) -> None:
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise FormatError(f"{path}: {info.filename} is compressed in a way .npz files are not")
    if info.compress_type == zipfile.ZIP_STORED and info.file_size != info.compress_size:
        raise FormatError(f"{path}: {info.filename} has two sizes")
    if info.file_size > _SMALL and info.file_size > _MAX_RATIO * max(info.compress_size, 1):
        raise FormatError(
            f"{path}: {info.filename} would grow from {info.compress_size} to {info.file_size}"
            " bytes, as no vectors do"
        )
