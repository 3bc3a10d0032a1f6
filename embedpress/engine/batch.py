"""Compression of one batch of rows, for any engine that maps a callable over batches."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from embedpress.errors import InputError, MismatchError, UsageError

if TYPE_CHECKING:
    from embedpress.onnx.compressor import OnnxCompressor

WHAT = ("codes", "latents")


class EncodeBatch:
    """Replaces the embeddings of a batch by their codes or latents.

    It can be pickled, and is small then: each process opens the compressor on the first batch.
    So it serves as the function of Ray Data's ``map_batches``, of Dask's ``map_partitions``, of
    Hugging Face's ``Dataset.map`` and, with ``map``, of Spark's ``mapInPandas``.

    Parameters
    ----------
    model : str or Path
        A compressor folder that every process can read under this path.
    what : {"codes", "latents"}
    column : str
        The column of embeddings.
    n_components : int, optional
        Floats of a latent, one of the compressor's `latent_sizes`; the most by default.
    num_threads : int
        Threads of each process.

    Attributes
    ----------
    dim : int
        Floats of an embedding.
    size : int
        Bytes of a code, or floats of a latent.
    output : {"code", "vector"}
        The column that is written; it takes the place of `column`.

    Raises
    ------
    UsageError, InputError, FormatError
        For options or a compressor that cannot be used.

    Examples
    --------
    >>> encode = EncodeBatch("model")
    >>> dataset.map_batches(encode, batch_format="pyarrow")  # Ray Data
    >>> dataset.map(encode, batched=True, remove_columns="vector")  # Hugging Face datasets
    >>> frame.mapInPandas(lambda frames: map(encode, frames), "id long, code binary")  # Spark
    >>> frame.map_partitions(encode, meta=encode(frame._meta))  # Dask
    """

    def __init__(
        self,
        model: str | Path,
        *,
        what: str = "codes",
        column: str = "vector",
        n_components: int | None = None,
        num_threads: int = 1,
    ) -> None:
        if what not in WHAT:
            raise UsageError(f"what={what!r} must be codes or latents")
        if what == "codes" and n_components is not None:
            raise UsageError("n_components is a size of latents: give what='latents' with it")
        self.model, self.what, self.column = str(Path(model).absolute()), what, column
        self.num_threads = num_threads
        self.output = "code" if what == "codes" else "vector"
        from embedpress.onnx.compressor import read_config

        self._fingerprint: str = read_config(model)["fingerprint"]
        compressor = self._compressor()
        size = compressor.code_size if what == "codes" else compressor.n_components
        if size is None:
            raise InputError(f"the compressor at {model} gives no {what}: fit it with them")
        if n_components not in (None, *compressor.latent_sizes):
            sizes = ", ".join(map(str, compressor.latent_sizes))
            raise UsageError(
                f"the compressor at {model} gives latents of {sizes} floats, not {n_components}"
            )
        self.dim, self.size = compressor.dim, n_components or size

    def encode(self, X: npt.ArrayLike) -> npt.NDArray[Any]:
        """Codes (n, size), uint8, or latents (n, size), float32, of embeddings (n, dim).

        Raises
        ------
        InputError
            For embeddings that cannot be used, naming the row.
        MismatchError
            If the folder holds another compressor by now.
        """
        compressor = self._compressor()
        if self.what == "codes":
            return compressor.encode(X)
        return np.ascontiguousarray(compressor.transform(X)[:, : self.size])

    def __call__(self, batch: Any) -> Any:
        """Return a batch of the same form, with all other columns as they are.

        Parameters
        ----------
        batch : pyarrow.Table, pandas.DataFrame or dict of ndarray
            Embeddings are rows of lists or arrays in pandas, any list column in Arrow, and an
            array of shape (n, dim) in a dict. It may have no rows.

        Returns
        -------
        pyarrow.Table, pandas.DataFrame or dict of ndarray
            Codes are ``bytes`` in pandas, fixed-size binary in Arrow, and a uint8 array of shape
            (n, size) in a dict; latents are arrays in pandas, fixed-size lists in Arrow, and a
            float32 array in a dict.

        Raises
        ------
        InputError
            For a batch without the column, or embeddings that cannot be used.
        """
        import pyarrow as pa

        if isinstance(batch, pa.Table):
            return self._arrow(batch)
        if isinstance(batch, Mapping):
            columns = dict(batch)
            found = self._encoded(_stacked(self._taken(columns), self.dim))
            return {**columns, self.output: found}
        if not hasattr(batch, "columns") or not hasattr(batch, "drop"):
            raise InputError(f"a batch is a table, a frame or a dict, not {type(batch).__name__}")
        return self._pandas(batch)

    def _compressor(self) -> OnnxCompressor:
        return _opened(self.model, self._fingerprint, self.num_threads)

    def _taken(self, columns: dict[str, Any]) -> Any:
        if self.column not in columns:
            raise InputError(f"no column {self.column!r} in a batch of {', '.join(columns)}")
        return columns.pop(self.column)

    def _encoded(self, x: npt.NDArray[Any]) -> npt.NDArray[Any]:
        if len(x):
            return self.encode(x)
        return np.empty((0, self.size), np.uint8 if self.what == "codes" else np.float32)

    def _pandas(self, frame: Any) -> Any:
        if self.column not in frame.columns:
            raise InputError(f"no column {self.column!r} in a frame of {list(frame.columns)}")
        found = self._encoded(_stacked(frame[self.column].to_numpy(), self.dim))
        rows = [row.tobytes() for row in found] if self.what == "codes" else list(found)
        return frame.drop(columns=[self.column]).assign(**{self.output: _objects(rows)})

    def _arrow(self, table: Any) -> Any:
        import pyarrow as pa

        from embedpress.vectors.column import matrix_of
        from embedpress.vectors.shard import value_array

        columns = dict(zip(table.column_names, table.columns, strict=True))
        column = self._taken(columns)
        blocks = [matrix_of(chunk, self.dim, 0) for chunk in column.chunks if len(chunk)]
        x = np.concatenate(blocks) if blocks else np.empty((0, self.dim), np.float32)
        return pa.table({**columns, self.output: value_array(self._encoded(x))})


@lru_cache(maxsize=4)
def _opened(model: str, fingerprint: str, num_threads: int) -> OnnxCompressor:
    from embedpress.onnx.compressor import OnnxCompressor

    compressor = OnnxCompressor(model, num_threads=num_threads)
    if compressor.fingerprint != fingerprint:
        raise MismatchError(f"{model} holds another compressor than when the job began")
    return compressor


def _stacked(rows: Any, dim: int) -> npt.NDArray[Any]:
    """A matrix of an array of rows."""
    values: npt.NDArray[Any] = np.asarray(rows)
    if values.ndim == 1 and len(values) == 0:
        return np.empty((0, dim), np.float32)
    if values.dtype != object:
        return values
    try:
        return np.stack(list(values))
    except (TypeError, ValueError):
        raise InputError(f"not all rows of a batch are vectors of {dim} numbers") from None


def _objects(rows: list[Any]) -> npt.NDArray[Any]:
    """Rows as one column: pandas would take arrays of one length for a matrix."""
    column = np.empty(len(rows), object)
    column[:] = rows
    return column
