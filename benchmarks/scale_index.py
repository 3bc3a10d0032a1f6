"""Indexes of many vectors: build time, memory, bytes and query times, beside plain FAISS.

The vectors are those of ``scale.py``; the queries are made in the same way from 1,000 glosses and
are not among them. Recall@10 is that of the exact neighbours by the embeddings. Our index is what
``--factory auto`` chooses over 32-byte codes, with its own nprobe; beside it a scan of all codes.
The peers are built by plain FAISS on the same vectors, where they fit: an inverted file of product
codes with residuals behind OPQ (32 bytes), a graph (HNSW) over 8-bit scalars, and the flat floats.
Each of them takes the smallest nprobe or efSearch whose recall is within .01 of its own best.

Queries are asked one by one for at most a minute (median, 99th percentile) and all at once
(queries a second), on one thread, ours with the query encoder. Bytes are those of what lies in
memory: of FAISS's file, and for ours the query encoder and the codebooks. Writes
``benchmarks/results/scale_index.json``. Peers that are in there already are not measured again;
remove it to measure all.

Run: python benchmarks/scale_index.py                     (100 thousand and 1 million)
     python benchmarks/scale_index.py --rows 1000000 --no-peers     (ours alone)
     python benchmarks/scale_index.py --rows 10000000 --no-ours     (the peers alone: an hour,
                                                                     18 GiB of memory, 33 of disk)
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Annotated, Any

import faiss
import numpy as np
import typer
from numpy.typing import NDArray
from scale import CODE_SIZE, NEIGHBORS, neighbors_of, trained, write_vectors
from split import ROOT, Floats, K
from tables import RESULTS
from wordnet import embeddings_folder

import embedpress
from embedpress.evaluate.exact import nearest_in_blocks
from embedpress.evaluate.metrics import recall_at_k
from embedpress.index.scan import Scan
from embedpress.index.tune import first_hits
from embedpress.threads import faiss_threads
from embedpress.vectors import open_vectors, write_atomic

N_QUERIES = 1_000
WITHIN = 0.01
BLOCK = 65_536
FLOAT_BYTES = 16 * 2**30
"""Flat floats that take more memory are left out."""
ALONE_SECONDS = 60
"""Queries are asked one by one for no longer than this."""

BUILD = """
import json, re, sys, time
from embedpress.index.build import build_index
started = time.monotonic()
manifest = build_index(sys.argv[1], sys.argv[2], sys.argv[3])
print(json.dumps({
    "build_seconds": time.monotonic() - started,
    "peak_bytes": 1024 * int(re.search(r"VmHWM:\\s+(\\d+)", open("/proc/self/status").read())[1]),
    "factory": manifest.factory,
    "nprobe": manifest.nprobe,
    "choice": manifest.choice,
}))
"""

Ints = NDArray[np.int64]
Ask = Callable[[Floats], Ints]


def held_out_queries() -> Floats:
    """Glosses moved towards a neighbour, as the base is, by other random numbers."""
    x = open_vectors(embeddings_folder()).read(columns=()).vectors
    rng = np.random.default_rng(10**9)
    at = rng.choice(len(x), N_QUERIES, replace=False)
    near = nearest_in_blocks(x[at], [x], NEIGHBORS + 1)[0][:, 1:]
    to = near[np.arange(N_QUERIES), rng.integers(0, NEIGHBORS, N_QUERIES)]
    step = rng.uniform(0.1, 0.4, N_QUERIES).astype(np.float32)[:, None]
    moved = x[at] + step * (x[to] - x[at])
    return np.ascontiguousarray(moved / np.linalg.norm(moved, axis=1, keepdims=True))


def blocks_of(folder: Path) -> Iterator[Any]:
    """The vectors of a folder, a block at a time."""
    for batch in open_vectors(folder).iter_batches(BLOCK, columns=()):
        yield batch.vectors


def times(ask: Ask, queries: Floats, truth: Ints) -> dict[str, float]:
    """Recall and times of one way to search, on one thread."""
    with faiss_threads(1):
        ask(queries[:50])
        started = time.perf_counter()
        found = ask(queries)
        seconds = time.perf_counter() - started
        spent = []
        for query in queries:
            begun = time.perf_counter()
            ask(query[None])
            spent.append(1e3 * (time.perf_counter() - begun))
            if sum(spent) > 1e3 * ALONE_SECONDS:
                break
    return {
        "recall": float(recall_at_k(found, truth).mean()),
        "queries_per_second": len(queries) / seconds,
        "p50_ms": float(np.percentile(spent, 50)),
        "p99_ms": float(np.percentile(spent, 99)),
    }


def measure_index(embeddings: Path, codes: Path, model: Path, out: Path) -> dict[str, Any]:
    """Build our index of codes in a process of its own, and ask it.

    Parameters
    ----------
    embeddings, codes, model : Path
        Folders; the embeddings give the exact neighbours.
    out : Path
        Folder for the index; removed again.
    """
    shutil.rmtree(out, ignore_errors=True)
    command = [sys.executable, "-c", BUILD, *map(str, (codes, model, out))]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    result: dict[str, Any] = json.loads(done.stdout)
    queries = held_out_queries()
    truth = nearest_in_blocks(queries, blocks_of(embeddings), K)[0]
    compressor = embedpress.load(model, num_threads=1)
    scan = Scan(compressor, "codes")
    all_codes = first_hits(scan.flat(), blocks_of(codes), scan.queries(queries), K)[1]
    index = embedpress.open_index(out, compressor, memory_map=False)
    rows = len(index)
    files = sum(file.stat().st_size for file in out.iterdir())
    once = sum((model / n).stat().st_size for n in ("query_encoder.onnx",)) + scan.books.nbytes
    result |= {
        "rows": rows,
        "exhaustive_recall": float(recall_at_k(all_codes, truth).mean()),
        "memory_bytes": int(index.manifest.bytes_per_vector * rows) + once,
        "disk_bytes_per_vector": files / rows,
        **times(lambda q: index.search(q, K).rows, queries, truth),
    }
    shutil.rmtree(out)
    return result


def smallest(ask: Callable[[int], Ask], queries: Floats, truth: Ints, largest: int) -> int:
    """The smallest setting whose recall is within .01 of that of the largest."""

    def recall(setting: int) -> float:
        return float(recall_at_k(ask(setting)(queries), truth).mean())

    wanted = recall(largest) - WITHIN
    low, high = 0, 1
    while high < largest and recall(high) < wanted:
        low, high = high, min(2 * high, largest)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if recall(middle) >= wanted else (middle, high)
    return high


def measure_peers(
    embeddings: Path, file: Path, done: Iterable[str], keep: Callable[[dict[str, Any]], None]
) -> None:
    """Plain FAISS on the same vectors.

    Parameters
    ----------
    embeddings : Path
        Folder.
    file : Path
        Where each index is written to be weighed; removed again.
    done : iterable of str
        Names of peers to leave out.
    keep : callable
        Takes the figures of each, by its name, as soon as they are there.
    """
    vectors = open_vectors(embeddings)
    queries = held_out_queries()
    truth = nearest_in_blocks(queries, blocks_of(embeddings), K)[0]
    sample = vectors.read(min(vectors.count, 262_144), columns=()).vectors
    n_lists = 2 ** round(np.log2(4 * np.sqrt(vectors.count)))
    factories = {
        "IVF-PQ": f"OPQ{CODE_SIZE},IVF{n_lists},PQ{CODE_SIZE}",
        "flat float32": "Flat",
        "HNSW-SQ8": "HNSW32,SQ8",
    }
    if vectors.count * vectors.dim * 4 > FLOAT_BYTES:
        del factories["flat float32"]
    for name, factory in factories.items():
        if name in done:
            continue
        index: Any = faiss.index_factory(vectors.dim, factory, faiss.METRIC_INNER_PRODUCT)
        started = time.monotonic()
        if name == "IVF-PQ":
            # FAISS's own 50 rounds over 65,536 rows take an hour's quarter and gain little.
            rotation = faiss.downcast_VectorTransform(index.chain.at(0))
            rotation.niter, rotation.max_train_points = 15, 32_768
        if name == "flat float32":
            # All of it at once: a vector that doubles as it grows would take as much again.
            index.codes.resize(vectors.count * vectors.dim * 4)
            index.codes.resize(0)
        index.train(sample)
        for block in blocks_of(embeddings):
            index.add(block)
        seconds = time.monotonic() - started

        def ask(setting: int, index: Any = index, name: str = name) -> Ask:
            options: Any = None
            if name == "IVF-PQ":
                inner = faiss.SearchParametersIVF(nprobe=setting)
                options = faiss.SearchParametersPreTransform(index_params=inner)
            elif name == "HNSW-SQ8":
                options = faiss.SearchParametersHNSW(efSearch=setting)
            return lambda q: index.search(q, K, params=options)[1]

        largest = {"IVF-PQ": n_lists, "HNSW-SQ8": 1024}.get(name, 1)
        setting = smallest(ask, queries, truth, largest)
        faiss.write_index(index, str(file))
        found = {
            "factory": factory,
            "setting": setting,
            "build_seconds": seconds,
            "memory_bytes": file.stat().st_size,
            **times(ask(setting), queries, truth),
        }
        file.unlink()
        keep({name: found})
        del index, ask


def main(
    rows: Annotated[
        list[int] | None, typer.Option(help="Vectors; repeat it for several sizes.")
    ] = None,
    ours: Annotated[bool, typer.Option(help="Measure our index.")] = True,
    peers: Annotated[bool, typer.Option(help="Measure plain FAISS.")] = True,
    work: Annotated[Path, typer.Option(help="Folder for vectors and codes.")] = ROOT / "data/scale",
    training: Annotated[float, typer.Option(help="Seconds of training.")] = 120.0,
) -> None:
    """Measure and write results/scale_index.json."""
    x = open_vectors(embeddings_folder()).read(columns=()).vectors
    work.mkdir(parents=True, exist_ok=True)
    model = trained(work / "model", x, training)
    near = neighbors_of(x)
    path = RESULTS / "scale_index.json"
    results = json.loads(path.read_text()) if path.exists() else {}
    for size in rows or (100_000, 1_000_000):
        embeddings, codes = work / f"embeddings-{size}", work / f"codes-{size}"
        write_vectors(embeddings, x, near, size)
        RESULTS.mkdir(exist_ok=True)

        def keep(found: dict[str, Any], size: int = size) -> None:
            print(json.dumps(found), flush=True)
            results.setdefault(str(size), {}).update(found)
            write_atomic(path, json.dumps(results, indent=1) + "\n")

        if ours:
            embedpress.compress(embeddings, model, codes)
            index = measure_index(embeddings, codes, model, work / f"index-{size}")
            keep({"embedpress": index})
            shutil.rmtree(codes)
        if peers:
            measure_peers(embeddings, work / "peer.faiss", [*results.get(str(size), {})], keep)
        shutil.rmtree(embeddings)


if __name__ == "__main__":
    typer.run(main)
