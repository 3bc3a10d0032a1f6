"""Encoding speed, file sizes and peak memory of one compressor, beside FAISS's encoders.

Trains a 64-float, 32-byte compressor for two epochs (its weights do not matter to its speed) on
WordNet glosses, then measures in this one run: embeddings to codes by ONNX Runtime, OPQ32 and
RQ32 by FAISS on the same vectors and threads; the job from Parquet to Parquet; the folder's
sizes; peak memory of the job in a process of its own; seconds to a first code without torch.
Writes ``benchmarks/results/speed.json``.

Run: python benchmarks/speed.py
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import typer
from split import METRIC
from wordnet import embeddings_folder, load_split

import embedpress
from embedpress.autoencoder.pretrained import save
from embedpress.threads import available_threads
from embedpress.vectors import open_vectors

RESULTS = Path(__file__).parent / "results"
REPEATS = 5

JOB = """
import json, re, sys, time
from embedpress.onnx.compress import compress
started = time.monotonic()
manifest = compress(sys.argv[1], sys.argv[2], sys.argv[3])
seconds = time.monotonic() - started
# Not ru_maxrss, which starts with what the parent held.
peak = int(re.search(r"VmHWM:\\s+(\\d+)", open("/proc/self/status").read())[1]) * 1024
print(json.dumps({"rows": manifest.count, "seconds": seconds, "peak_bytes": peak}))
"""
FIRST_CODE = """
import sys, time
started = time.monotonic()
import numpy as np, embedpress
compressor = embedpress.load(sys.argv[1])
compressor.encode(np.ones((1, compressor.dim), np.float32))
assert "torch" not in sys.modules
print(time.monotonic() - started)
"""


def rate(function: Callable[[Any], Any], x: Any) -> float:
    """Rows a second: the median of five runs after a first one that does not count."""
    function(x[:1024])
    seconds = []
    for _ in range(REPEATS):
        started = time.perf_counter()
        function(x)
        seconds.append(time.perf_counter() - started)
    return len(x) / statistics.median(seconds)


def matrix_rate(x: Any, width: int = 1024) -> float:
    """This machine's float32 multiply-adds a second on a layer's shape."""
    weight = np.random.default_rng(0).standard_normal((x.shape[1], width), dtype=np.float32)
    return rate(lambda block: block @ weight, x) * x.shape[1] * width


def latency(compressor: Any, x: Any, runs: int = 2000) -> dict[str, float]:
    """Microseconds for one vector at a time: median and 99th percentile."""
    seconds = []
    for row in range(runs):
        started = time.perf_counter()
        compressor.encode(x[row : row + 1])
        seconds.append(time.perf_counter() - started)
    p50, p99 = np.percentile(np.array(seconds[100:]) * 1e6, [50, 99])
    return {"p50_us": float(p50), "p99_us": float(p99)}


def child(code: str, *arguments: Path) -> str:
    """Standard output of a fresh interpreter."""
    done = subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)],
        check=True, capture_output=True, text=True,
    )  # fmt: skip
    return done.stdout


def main() -> None:
    """Measure and write results/speed.json."""
    split = load_split()
    threads = available_threads()
    faiss.omp_set_num_threads(threads)
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        compressor = embedpress.Compressor(64, 32, metric=METRIC, epochs=2, max_samples=20_000)
        save(compressor.fit(split.base), work / "model")
        runtime = embedpress.load(work / "model")
        # Few rounds and rows: how well these two are trained does not change their speed.
        rotation = faiss.OPQMatrix(split.dim, 32)
        rotation.niter = 2
        opq = faiss.IndexPreTransform(rotation, faiss.IndexPQ(split.dim, 32, 8))
        opq.train(split.base[:10_000])
        rq = faiss.ResidualQuantizer(split.dim, 32, 8)
        rq.train(split.base[:3_000])
        x = split.unseen[:32_768]
        job = json.loads(child(JOB, embeddings_folder(), work / "model", work / "codes"))
        result = {
            "threads": threads,
            "codes_per_second": rate(runtime.encode, x),
            "latents_per_second": rate(runtime.transform, x),
            "opq32_per_second": rate(opq.sa_encode, x),
            "rq32_per_second": rate(rq.compute_codes, x[:4_096]),
            "matrix_multiply_adds_per_second": matrix_rate(x),
            "one_vector": latency(runtime, x),
            "job": job,
            "job_rows_per_second": job["rows"] / job["seconds"],
            "first_code_seconds": statistics.median(
                float(child(FIRST_CODE, work / "model")) for _ in range(3)
            ),
            "bytes": {
                file.name: file.stat().st_size for file in sorted((work / "model").iterdir())
            },
            "embeddings_bytes": sum(
                shard.bytes for shard in open_vectors(embeddings_folder()).manifest.shards
            ),
            "codes_bytes": sum(f.stat().st_size for f in (work / "codes").glob("*.parquet")),
        }
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "speed.json").write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    typer.run(main)
