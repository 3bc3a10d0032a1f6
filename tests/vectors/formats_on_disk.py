"""Writers of small datasets in every format."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import safetensors.numpy

from embedpress.vectors import Manifest, Shard, sha256_of, shard_table, write_manifest
from embedpress.vectors.shard import shard_bytes, shard_name

Save = Callable[[Path, np.ndarray], Path]


def _npy(folder: Path, x: np.ndarray) -> Path:
    np.save(folder / "x.npy", x)
    return folder / "x.npy"


def _npz(folder: Path, x: np.ndarray) -> Path:
    np.savez(folder / "x.npz", x=x, labels=np.arange(len(x)))
    return folder / "x.npz"


def _npz_compressed(folder: Path, x: np.ndarray) -> Path:
    np.savez_compressed(folder / "z.npz", x=x)
    return folder / "z.npz"


def _fvecs(folder: Path, x: np.ndarray) -> Path:
    rows = np.empty((len(x), x.shape[1] + 1), "<i4")
    rows[:, 0] = x.shape[1]
    rows[:, 1:] = x.astype("<f4").view("<i4")
    rows.tofile(folder / "x.fvecs")
    return folder / "x.fvecs"


def _parquet(folder: Path, x: np.ndarray) -> Path:
    lists = pa.FixedSizeListArray.from_arrays(pa.array(x.reshape(-1)), x.shape[1])
    pq.write_table(pa.table({"vector": lists}), folder / "x.parquet", row_group_size=7)
    return folder / "x.parquet"


def _arrow(folder: Path, x: np.ndarray, first_row: int = 0) -> Path:
    lists = pa.array(list(x), pa.list_(pa.float32()))
    texts = [f"row {i}" for i in range(first_row, first_row + len(x))]
    table = pa.table({"vector": lists, "text": texts})
    with pa.ipc.new_stream(folder / "x.arrow", table.schema) as writer:
        writer.write_table(table, max_chunksize=5)
    return folder / "x.arrow"


def _arrow_file(folder: Path, x: np.ndarray) -> Path:
    lists = pa.FixedSizeListArray.from_arrays(pa.array(x.reshape(-1)), x.shape[1])
    table = pa.table({"vector": lists})
    options = pa.ipc.IpcWriteOptions(compression="lz4")
    with pa.ipc.new_file(folder / "z.arrow", table.schema, options=options) as writer:
        writer.write_table(table, max_chunksize=10)
    return folder / "z.arrow"


def _saved_dataset(folder: Path, x: np.ndarray) -> Path:
    """As the datasets library saves one, in two files."""
    out = folder / "dataset"
    out.mkdir(exist_ok=True)
    half, names = len(x) // 20 * 10, ["data-00000-of-00002.arrow", "data-00001-of-00002.arrow"]
    _arrow(out, x[:half]).rename(out / names[0])
    _arrow(out, x[half:], half).rename(out / names[1])
    state = {"_data_files": [{"filename": name} for name in names], "_split": None}
    (out / "state.json").write_text(json.dumps(state))
    return out


def _safetensors(folder: Path, x: np.ndarray) -> Path:
    safetensors.numpy.save_file({"x": x, "bias": x[0].copy()}, folder / "x.safetensors")
    return folder / "x.safetensors"


def save_folder(folder: Path, x: np.ndarray, rows: int = 10, **fields: Any) -> Path:
    """Write shards and manifest by hand, so that readers are not tested by the engine."""
    out = folder / "shards"
    out.mkdir(exist_ok=True)
    shards = []
    for index, low in enumerate(range(0, len(x), rows)):
        high = min(low + rows, len(x))
        metadata = pa.table({"text": [f"row {i}" for i in range(low, high)]})
        data = shard_bytes(shard_table(np.arange(low, high), x[low:high], metadata))
        path = out / shard_name(index)
        path.write_bytes(data)
        shards.append(Shard(path.name, high - low, len(data), sha256_of(path)))
    manifest = {"kind": "embeddings", "dim": x.shape[1], "count": len(x), **fields}
    write_manifest(out, Manifest(shards=tuple(shards), **manifest))
    return out


SAVERS: dict[str, Save] = {
    "npy": _npy,
    "npz": _npz,
    "npz-compressed": _npz_compressed,
    "fvecs": _fvecs,
    "parquet": _parquet,
    "arrow": _arrow,
    "arrow-file": _arrow_file,
    "saved-dataset": _saved_dataset,
    "safetensors": _safetensors,
    "folder": save_folder,
}
