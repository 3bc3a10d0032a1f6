"""Compression of millions of vectors from Parquet to Parquet on one small machine: speed, memory.

The vectors are those of 117,791 WordNet glosses through all-MiniLM-L6-v2 (384 floats, unit
length), multiplied by a small perturbation that stays where such vectors lie: row r is gloss
r mod 117,791, moved a random 10 to 40 % of the way to one of its 8 nearest neighbours, at random,
and normalised again. They are real in kind and spread, not in number: every gloss has
rows / 117,791 close relatives.

For each size from 100 thousand to ``--rows``, growing by about 3: writes that many vectors in
bounded memory, compresses them to 32-byte codes by one process of its own (``embedpress
compress``, with all processors, in the default memory budget), and measures rows a second, the
processor time spent outside the encoder (disk, decoding, checks, encoding of Parquet), the peak
of resident memory and the bytes of a vector on disk. Beside it, in the same run, the encoder
alone on vectors in memory; and an index of the codes, as ``scale_index.py`` measures it.
Writes ``benchmarks/results/scale.json`` and ``scale.png``; the vectors are removed again.

Run: python benchmarks/scale.py                    (10 million vectors: 17 GB of disk)
     python benchmarks/scale.py --rows 1000000     (1 million)
     python benchmarks/scale.py --no-index         (compression alone)
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from split import METRIC, ROOT, Floats
from wordnet import embeddings_folder

import embedpress
from embedpress.engine import Job, Piece, run_job
from embedpress.engine.batch import EncodeBatch
from embedpress.threads import available_threads, faiss_threads
from embedpress.vectors import Manifest, open_vectors, shard_table, write_atomic

RESULTS = Path(__file__).parent / "results"
CODE_SIZE, NEIGHBORS, ROWS_PER_SHARD, BLOCK = 32, 8, 65_536, 8_192
SMALLEST = 100_000

COMPRESS = """
import json, re, sys, threading, time
from embedpress.engine.batch import EncodeBatch
from embedpress.onnx.compress import compress
encode, lock, spent = EncodeBatch.encode, threading.Lock(), [0.0, 0.0]
def timed(self, X):
    cpu, wall = time.thread_time(), time.monotonic()
    codes = encode(self, X)
    with lock:
        spent[0] += time.thread_time() - cpu
        spent[1] += time.monotonic() - wall
    return codes
EncodeBatch.encode = timed
started = time.monotonic()
manifest = compress(sys.argv[1], sys.argv[2], sys.argv[3], num_threads=int(sys.argv[4]))
print(json.dumps({
    "seconds": time.monotonic() - started,
    "cpu_seconds": time.process_time(),
    "encoder_cpu_seconds": spent[0],
    "encoder_wall_seconds": spent[1],
    "peak_bytes": int(re.search(r"VmHWM:\\s+(\\d+)", open("/proc/self/status").read())[1]) * 1024,
    "codes_bytes": sum(shard.bytes for shard in manifest.shards),
}))
"""


def neighbors_of(x: Floats) -> Any:
    """The 8 nearest of each vector, by an inverted file: near is enough here."""
    import faiss

    with faiss_threads(available_threads()):
        index = faiss.index_factory(x.shape[1], "IVF512,Flat", faiss.METRIC_INNER_PRODUCT)
        index.train(x[:: max(1, len(x) // 40_000)])
        index.add(x)
        index.nprobe = 8
        return index.search(x, NEIGHBORS + 1)[1][:, 1:]


def write_vectors(out: Path, x: Floats, near: Any, rows: int) -> None:
    """`rows` perturbed vectors as a folder of embeddings; the same rows whatever their number."""

    def chunks(done: frozenset[int]) -> Iterator[tuple[int, int]]:
        starts = enumerate(range(0, rows, ROWS_PER_SHARD))
        return (pair for pair in starts if pair[0] not in done)

    def read(start: int) -> Iterator[tuple[int, int]]:
        stop = min(start + ROWS_PER_SHARD, rows)
        return ((low, min(low + BLOCK, stop)) for low in range(start, stop, BLOCK))

    def work(span: tuple[int, int]) -> Piece:
        rng = np.random.default_rng(span[0])
        ids = np.arange(*span)
        at = ids % len(x)
        to = near[at, rng.integers(0, NEIGHBORS, BLOCK)[: len(ids)]]
        step = rng.uniform(0.1, 0.4, BLOCK).astype(np.float32)[: len(ids), None]
        moved = x[at] + step * (x[np.where(to < 0, at, to)] - x[at])
        moved /= np.linalg.norm(moved, axis=1, keepdims=True)
        return Piece(shard_table(ids, moved))

    header = Manifest("embeddings", x.shape[1], metric=METRIC, normalized=True)
    run_job(Job(out, header, f"scale {rows}", chunks, work, read=read))


def trained(folder: Path, x: Floats, seconds: float) -> Path:
    """A compressor to 32-byte codes, trained for two minutes where it is not there yet."""
    if not (folder / "config.json").exists():
        from embedpress.autoencoder.pretrained import save

        compressor = embedpress.Compressor(
            None, CODE_SIZE, metric=METRIC, reranker=False, time_budget=seconds
        )
        save(compressor.fit(x[:100_000]), folder)
    return folder


def encoder_alone(model: Path, x: Floats, threads: int) -> float:
    """Rows a second of vectors in memory, by the same threads as the job."""
    encode = EncodeBatch(model)
    blocks = [x[low : low + BLOCK] for low in range(0, min(len(x), 65_536), BLOCK)]
    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(encode.encode, blocks[:threads]))
        started = time.monotonic()
        list(pool.map(encode.encode, blocks))
        return sum(map(len, blocks)) / (time.monotonic() - started)


def measure(
    work: Path, model: Path, x: Floats, near: Any, rows: int, threads: int, *, index: bool
) -> Any:
    """All figures of one size."""
    embeddings, codes = work / f"embeddings-{rows}", work / f"codes-{rows}"
    started = time.monotonic()
    write_vectors(embeddings, x, near, rows)
    os.sync()
    found: dict[str, Any] = {"rows": rows, "write_seconds": time.monotonic() - started}
    shutil.rmtree(codes, ignore_errors=True)
    alone = encoder_alone(model, x, threads)
    done = subprocess.run(
        [sys.executable, "-c", COMPRESS, *map(str, (embeddings, model, codes, threads))],
        check=True, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    job = json.loads(done.stdout)
    found["encoder_alone_per_second"] = (alone + encoder_alone(model, x, threads)) / 2
    found["compress"] = {
        **job,
        "rows_per_second": rows / job["seconds"],
        "outside_encoder_cpu": 1 - job["encoder_cpu_seconds"] / job["cpu_seconds"],
        "outside_encoder_wall": 1 - job["encoder_wall_seconds"] / threads / job["seconds"],
        "bytes_per_vector": job["codes_bytes"] / rows,
    }
    if index:
        from scale_index import measure_index

        found["index"] = measure_index(embeddings, codes, model, work / f"index-{rows}")
    shutil.rmtree(embeddings)
    shutil.rmtree(codes)
    return found


def sizes_up_to(rows: int) -> list[int]:
    """100 thousand, 300 thousand, 1 million ... and `rows` itself."""
    steps = [SMALLEST * factor * 10**power for power in range(6) for factor in (1, 3)]
    return [size for size in steps if size < rows] + [rows]


def plot(found: list[dict[str, Any]], path: Path) -> None:
    """Seconds and peak memory over rows, on log axes, with lines of slope 1 and 0."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    rows = np.array([one["rows"] for one in found])
    figure, (left, right) = pyplot.subplots(1, 2, figsize=(9, 3.6), layout="constrained")
    seconds = np.array([one["compress"]["seconds"] for one in found])
    left.loglog(rows, seconds, "o-", label="compress")
    spent = [one["compress"]["cpu_seconds"] for one in found]
    left.loglog(rows, spent, "^-", label="compress, processor time")
    left.loglog(rows, seconds[-1] * rows / rows[-1], ":", color="grey", label="linear")
    left.set(xlabel="vectors", ylabel="seconds", title="time")
    memory = [one["compress"]["peak_bytes"] / 2**20 for one in found]
    right.loglog(rows, memory, "o-", label="compress")
    right.axhline(2048, ls=":", color="grey", label="memory budget")
    right.set(xlabel="vectors", ylabel="peak MiB", title="memory", ylim=(100, 4096))
    if all("index" in one for one in found):
        built = [one["index"]["build_seconds"] for one in found]
        left.loglog(rows, built, "s-", color="C2", label="index")
        peaks = [one["index"]["peak_bytes"] / 2**20 for one in found]
        right.loglog(rows, peaks, "s-", color="C2", label="index")
    left.legend()
    right.legend()
    figure.savefig(path, dpi=120)


def main(
    rows: Annotated[int, typer.Option(help="Vectors of the largest size.")] = 10_000_000,
    work: Annotated[Path, typer.Option(help="Folder for vectors and codes.")] = ROOT / "data/scale",
    training: Annotated[float, typer.Option(help="Seconds of training.")] = 120.0,
    index: Annotated[bool, typer.Option(help="Build and ask an index of each size, too.")] = True,
    only: Annotated[bool, typer.Option("--only", help="The largest size alone.")] = False,
) -> None:
    """Measure and write results/scale.json and scale.png."""
    threads = available_threads()
    x = open_vectors(embeddings_folder()).read(columns=()).vectors
    model = trained(work / "model", x, training)
    near = neighbors_of(x)
    output = RESULTS / "scale.json"
    before = json.loads(output.read_text())["sizes"] if output.is_file() else []
    found = {size["rows"]: size for size in before}
    for size in [rows] if only else sizes_up_to(rows):
        found[size] = measure(work, model, x, near, size, threads, index=index)
        print(json.dumps(found[size]), flush=True)
        # Sizes that were measured before stay, so that a long run can be cut into parts.
        sizes = [found[n] for n in sorted(found)]
        result = {"threads": threads, "dim": x.shape[1], "code_size": CODE_SIZE, "sizes": sizes}
        write_atomic(output, json.dumps(result, indent=1) + "\n")
    plot(sizes, RESULTS / "scale.png")


if __name__ == "__main__":
    typer.run(main)
