"""Files that no command takes: each writes itself into a folder and returns its path."""

from __future__ import annotations

import io
import json
import pickle
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from safetensors.numpy import save
from samples import curved, write_embeddings

Bad = Callable[[Path], Path]
DIM = 32


class Bomb:
    def __reduce__(self) -> tuple[Callable[[Path], None], tuple[Path]]:
        return Path.touch, (Path("boom"),)


def written(name: str, content: bytes) -> Bad:
    def write(folder: Path) -> Path:
        (folder / name).write_bytes(content)
        return folder / name

    return write


def npy(x: np.ndarray) -> bytes:
    out = io.BytesIO()
    np.save(out, x)
    return out.getvalue()


def npz(*names: str, x: np.ndarray | None = None) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in names:
            archive.writestr(name, npy(curved(5) if x is None else x))
    return out.getvalue()


def header(shape: tuple[int, ...]) -> bytes:
    out = io.BytesIO()
    fields = {"descr": "<f4", "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(out, fields)
    return out.getvalue()


def table(rows: int = 4) -> pa.Table:
    text = pa.DictionaryArray.from_arrays(pa.array(np.zeros(rows, np.int32)), ["A" * 2**21])
    vectors = pa.FixedSizeListArray.from_arrays(pa.array(curved(rows).ravel()), DIM)
    return pa.table({"vector": vectors, "text": text})


def parquet(rows: int = 4) -> bytes:
    out = pa.BufferOutputStream()
    pq.write_table(table(rows), out, compression="zstd", store_schema=False)
    return bytes(out.getvalue())


def arrow(rows: int) -> bytes:
    out = pa.BufferOutputStream()
    with pa.ipc.new_file(out, table(rows).schema) as writer:
        writer.write_table(table(rows))
    return bytes(out.getvalue())


def one_number(rows: int) -> pa.Table:
    ones = pa.array(np.ones(DIM * rows, np.float32))
    return pa.table({"vector": pa.FixedSizeListArray.from_arrays(ones, DIM)})


def equal_numbers(folder: Path) -> Path:
    pq.write_table(one_number(530_000), folder / "x.parquet", compression="zstd")
    return folder / "x.parquet"


def packed_numbers(folder: Path) -> Path:
    rows = one_number(530_000)
    options = pa.ipc.IpcWriteOptions(compression="zstd")
    with pa.ipc.new_file(folder / "x.arrow", rows.schema, options=options) as writer:
        writer.write_table(rows)
    return folder / "x.arrow"


def with_manifest(**changes: object) -> Bad:
    def write(folder: Path) -> Path:
        out = folder / "vectors"
        write_embeddings(out, curved(40))
        manifest = json.loads((out / "manifest.json").read_text())
        shards = [{**shard, **changes} for shard in manifest["shards"]]
        (out / "manifest.json").write_text(json.dumps({**manifest, "shards": shards}))
        return out

    return write


def linked(folder: Path) -> Path:
    out = with_manifest()(folder)
    shard = next(out.glob("*.parquet"))
    shutil.move(shard, folder / shard.name)
    shard.symlink_to(folder / shard.name)
    return out


def nested(folder: Path) -> Path:
    out = with_manifest()(folder)
    (out / "manifest.json").write_text("[" * 100_000)
    return out


def not_a_number() -> np.ndarray:
    x = curved(300)
    x[123, 4] = np.nan
    return x


VECTORS: dict[str, Bad] = {
    "npy, truncated": written("x.npy", npy(curved(40))[:-9]),
    "npy, a header of gigabytes": written("x.npy", header((2**40, DIM)) + bytes(100)),
    "npy, an endless header": written("x.npy", b"\x93NUMPY\2\0\xff\xff\xff\xff{'descr'"),
    "npy, objects": written("x.npy", npy(np.array([[Bomb()]], object))),
    "npy, a pickle": written("x.npy", pickle.dumps(Bomb())),
    "npy, nothing": written("x.npy", b""),
    "npy, NaN": written("x.npy", npy(not_a_number())),
    "npy, three dimensions": written("x.npy", npy(np.ones((3, 4, 5), np.float32))),
    "npz, a bomb": written("x.npz", npz("x.npy", x=np.zeros((2**19, DIM), np.float32))),
    "npz, a name elsewhere": written("x.npz", npz("../x.npy")),
    "npz, two of one name": written("x.npz", npz("x.npy")[:-1]),
    "fvecs, truncated": written("x.fvecs", b"\x20\0\0\0" + bytes(100)),
    "safetensors, a large header": written("x.safetensors", b"\xff" * 8 + b"{}"),
    "safetensors, truncated": written("x.safetensors", save({"x": curved(40)})[:-1]),
    "parquet, numbers that are one number": equal_numbers,
    "parquet, truncated": written("x.parquet", parquet()[:-30]),
    "parquet, another file": written("x.parquet", b"PAR1" * 30),
    "arrow, numbers that are one number": packed_numbers,
    "arrow, truncated": written("x.arrow", arrow(4)[:-30]),
    "a shard elsewhere": with_manifest(name="../x.parquet"),
    "a shard of another size": with_manifest(bytes=1),
    "a shard of no size": with_manifest(rows=-1),
    "a shard that is a link": linked,
    "a manifest nested too deeply": nested,
}
"""Of 32 dimensions, as far as they have any."""
TEXTS: dict[str, Bad] = {
    "txt, not UTF-8": written("x.txt", b"good\n\xff\xfe\n"),
    "jsonl, NaN": written("x.jsonl", b'{"text": "a"}\n{"text": "b", "x": NaN}\n'),
    "jsonl, nested too deeply": written("x.jsonl", b'{"text": ' + b"[" * 10**5 + b"\n"),
    "csv, ragged": written("x.csv", b"text,x\na,1\nb\n"),
    "gz, no gzip": written("x.txt.gz", b"plain\n"),
    "parquet, a text that all rows name": written("x.parquet", parquet(20_000)),
    "arrow, a text that all rows name": written("x.arrow", arrow(2000)),
    "arrow, truncated": written("x.arrow", arrow(4)[:-30]),
    "nothing": written("x.txt", b""),
}
