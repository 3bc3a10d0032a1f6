"""The 2-D map of ``embedpress map``, laid over the rows of an index."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from embedpress.errors import FormatError, MismatchError
from embedpress.index.search import SearchIndex
from embedpress.vectors.footer import open_door

MAP = "map.parquet"
COLUMNS = ("id", "x", "y", "group")
MOST_DRAWN = 60_000
LARGEST = 65_535
_ROWS = 65_536


class Points:
    """Where the rows of an index lie on a map.

    Parameters
    ----------
    folder : str or Path
        Of ``embedpress map``.
    index : SearchIndex

    Attributes
    ----------
    count : int
        Rows of the index that are on the map, and not deleted.

    Raises
    ------
    FormatError
        No such file, or not a map.
    MismatchError
        It has none of these ids.
    """

    def __init__(self, folder: str | Path, index: SearchIndex) -> None:
        table = _read(Path(folder) / MAP)
        found = _positions(index.table["id"].combine_chunks(), table["id"], Path(folder))
        self._places = found if index.live is None else np.where(index.live, found, -1)
        xy = np.stack([table["x"].to_numpy(), table["y"].to_numpy()], axis=1).astype(np.float64)
        if not np.isfinite(xy).all():
            raise FormatError(f"{folder}: a point of the map is NaN or infinite")
        low, high = xy.min(axis=0), xy.max(axis=0)
        # One scale for both axes, and the smaller one in the middle.
        span = max(float((high - low).max()), 1e-12)
        self.xy = ((xy - (low + high) / 2) / span + 0.5).clip(0, 1)
        encoded = pc.fill_null(table["group"], "").combine_chunks().dictionary_encode()
        self.groups: list[str] = encoded.dictionary.to_pylist()
        self._group_of = encoded.indices.to_numpy()
        self.count = int((self._places >= 0).sum())

    def of_row(self, row: int) -> list[float] | None:
        """Coordinates of an index row, from 0 to 1, or None where it is not on the map."""
        place = self._places[row]
        return None if place < 0 else [round(float(v), 5) for v in self.xy[place]]

    def drawing(self) -> dict[str, Any]:
        """What the page draws: up to 60,000 points, columns as base64 of little-endian numbers."""
        rows = np.flatnonzero(self._places >= 0)
        if len(rows) > MOST_DRAWN:
            rows = np.sort(np.random.default_rng(0).permutation(rows)[:MOST_DRAWN])
        places = self._places[rows]
        quantized = np.rint(self.xy[places] * LARGEST)
        return {
            "count": self.count,
            "drawn": len(rows),
            "groups": [name[:60] for name in self.groups[:LARGEST]],
            "x": _packed(quantized[:, 0], "<u2"),
            "y": _packed(quantized[:, 1], "<u2"),
            "group": _packed(np.minimum(self._group_of[places], LARGEST), "<u2"),
            "row": _packed(rows, "<u4"),
        }


def _read(path: Path) -> pa.Table:
    if not path.is_file():
        raise FormatError(f"{path.parent} is not a map: it has no {MAP}")
    with open_door(path) as file:
        missing = set(COLUMNS).difference(file.schema.names)
        if missing:
            raise FormatError(f"{path} has no column {sorted(missing)[0]}: it is no map")
        table = pa.Table.from_batches(file.batches(_ROWS, COLUMNS)).combine_chunks()
        for name in ("x", "y"):
            if not pa.types.is_floating(table[name].type) or table[name].null_count:
                raise FormatError(f"{path}: {name} is not a column of numbers")
        table = table.set_column(3, "group", table["group"].cast(pa.string()))
    if not table.num_rows:
        raise FormatError(f"{path} has no points")
    return table


def _positions(ids: Any, mapped: Any, folder: Path) -> NDArray[np.int64]:
    """The row of the map of each id, -1 where it has none."""
    try:
        found = pc.index_in(ids, value_set=mapped.combine_chunks().cast(ids.type))
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
        found = None
    if found is None or found.null_count == len(found):
        raise MismatchError(f"{folder} is a map of other ids than the index's: make it again")
    places: NDArray[np.int64] = pc.fill_null(found, -1).to_numpy().astype(np.int64)
    return places


def _packed(values: NDArray[Any], dtype: str) -> str:
    return base64.b64encode(values.astype(dtype).tobytes()).decode()
