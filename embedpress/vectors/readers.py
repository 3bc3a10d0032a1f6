"""Readers of plain files of vectors: .npy, .fvecs, .safetensors (mapped into memory)."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt
from numpy.lib import format as npy

from embedpress.errors import EmbedpressError, FormatError, InputError, UsageError, one_line
from embedpress.vectors.manifest import MAX_DIM
from embedpress.vectors.source import ArraySource, Source, check_shape, map_matrix

_MAX_NPY_HEADER = 2**13
_SAFETENSORS = {"F16": "<f2", "F32": "<f4", "F64": "<f8", "I8": "<i1", "BF16": "<u2"}


def open_file(path: Path, column: str | None) -> Source:
    """Open one plain file by the reader that its name asks for.

    Raises
    ------
    UsageError
        If the name ends in none of the known endings, or `column` makes no sense for it.
    FormatError
        If the file is not what its name says.
    InputError
        If it holds something else than one usable matrix.
    """
    from embedpress.vectors.arrow import open_arrow
    from embedpress.vectors.npz import open_npz
    from embedpress.vectors.parquet import open_parquet

    suffix = path.suffix.lower()
    if column is not None and suffix in (".npy", ".fvecs"):
        raise UsageError(f"{path} holds one array without a name: leave the column out")
    try:
        if suffix == ".npy":
            return open_npy(path)
        if suffix == ".npz":
            return open_npz(path, column)
        if suffix == ".fvecs":
            return open_fvecs(path)
        if suffix == ".parquet":
            return open_parquet(path, column)
        if suffix == ".safetensors":
            return open_safetensors(path, column)
        if suffix == ".arrow":
            return open_arrow([path], column, path)
    except EmbedpressError:
        raise
    except Exception as error:
        # The parsers below raise whatever they meet in a corrupt file, and their authors' list
        # of it is not closed.
        text = one_line(error)
        raise FormatError(f"{path} is not a readable {suffix} file: {text}") from error
    raise UsageError(
        f"{path}: vectors are read from a folder with a manifest.json, or from .npy, .npz,"
        " .fvecs, .parquet, .arrow or .safetensors files"
    )


def open_npy(path: Path) -> ArraySource:
    """Map a .npy file: C or Fortran order, either byte order."""
    with path.open("rb") as file:
        shape, fortran, dtype, offset = read_npy_header(file, str(path))
    check_shape(str(path), shape, dtype)
    array = map_matrix(path, dtype, shape, offset, fortran=fortran)
    extra = path.stat().st_size - offset - array.nbytes
    if extra:
        raise FormatError(f"{path} goes on for {extra} bytes after the array of its header")
    return ArraySource(array, shape[1])


def read_npy_header(file: IO[bytes], name: str) -> tuple[tuple[int, ...], bool, np.dtype[Any], int]:
    """Read the header of an array in numpy's own format: shape, Fortran order, dtype, length."""
    # The header itself says how long it is, up to 4 GB; those of numbers fit in a few bytes.
    head = io.BytesIO(file.read(_MAX_NPY_HEADER))
    version = npy.read_magic(head)
    if version not in ((1, 0), (2, 0)):
        raise FormatError(f"{name} has version {version} of the .npy format, not 1.0 or 2.0")
    read = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
    shape, fortran, dtype = read(head)
    if dtype.hasobject:
        raise InputError(f"{name} holds Python objects, which are never loaded: save numbers")
    return tuple(int(n) for n in shape), bool(fortran), dtype, head.tell()


def open_fvecs(path: Path) -> ArraySource:
    """Map a .fvecs file: before each row of float32 its length as int32, little-endian.

    Notes
    -----
    The format of the TEXMEX corpora (http://corpus-texmex.irisa.fr).
    """
    size = path.stat().st_size
    if size == 0:
        raise InputError(f"{path} is empty")
    with path.open("rb") as file:
        head = file.read(4)
    dim = int.from_bytes(head, "little", signed=True)
    if len(head) < 4 or not 1 <= dim <= MAX_DIM:
        raise FormatError(f"{path} is not a .fvecs file: its first row has length {dim}")
    if size % (4 * dim + 4):
        raise FormatError(
            f"{path} is truncated or not a .fvecs file: {size} bytes are no whole number of rows"
            f" of {dim} floats"
        )
    array = map_matrix(path, np.dtype("<i4"), (size // (4 * dim + 4), dim + 1), 0)

    def decode(part: npt.NDArray[Any], first_row: int) -> npt.NDArray[Any]:
        wrong = np.flatnonzero(part[:, 0] != dim)
        if wrong.size:
            row = int(wrong[0])
            raise FormatError(
                f"{path}: row {first_row + row} has length {part[row, 0]}, row 0 has {dim}"
            )
        floats: npt.NDArray[Any] = part[:, 1:].view("<f4")
        return floats

    return ArraySource(array, dim, decode)


def open_safetensors(path: Path, column: str | None) -> ArraySource:
    """Map one 2-d tensor of a .safetensors file."""
    from safetensors import safe_open

    # The library validates the header and its offsets; only then are they followed here, so
    # that bfloat16, which numpy has no type for, is read as well.
    with safe_open(path, framework="numpy") as tensors:
        names = list(tensors.keys())
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(length))
    name = choose(names, {n: len(header[n]["shape"]) for n in names}, column, path)
    entry = header[name]
    if entry["dtype"] not in _SAFETENSORS:
        raise InputError(
            f"{path}: tensor {name!r} has dtype {entry['dtype']}, not one of"
            f" {', '.join(_SAFETENSORS)}: convert it to F32 first"
        )
    dtype = np.dtype(_SAFETENSORS[entry["dtype"]])
    shape = tuple(int(n) for n in entry["shape"])
    offset = 8 + length + int(entry["data_offsets"][0])
    check_shape(f"{path}: tensor {name!r}", shape)
    array = map_matrix(path, dtype, shape, offset)
    brain = entry["dtype"] == "BF16"
    return ArraySource(array, shape[1], _decode_bfloat16 if brain else None)


def choose(names: list[str], ndims: dict[str, int], column: str | None, path: Path) -> str:
    """Pick the array to read among several: the one asked for, or the only 2-d one."""
    shown = ", ".join(sorted(names)[:10]) or "nothing"
    if column is not None:
        if column not in names:
            raise UsageError(f"{path} has no {column!r}; it holds {shown}")
        return column
    matrices = [name for name in names if ndims[name] == 2]
    if len(matrices) != 1:
        raise InputError(
            f"{path} holds {len(matrices)} 2-d arrays, not one: name the one to read as the"
            f" column (it holds {shown})"
        )
    return matrices[0]


def _decode_bfloat16(part: npt.NDArray[Any], first_row: int) -> npt.NDArray[Any]:
    return (part.astype(np.uint32) << 16).view(np.float32)
