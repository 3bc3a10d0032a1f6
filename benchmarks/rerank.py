"""What reorders first hits, a reranker or a rerank tier: recall@10, and the time of a query.

58,000 WordNet glosses and 2,000 held-out queries, as in ``equal_bytes.py``. A compressor trained
on these glosses makes 32-byte codes of them, and of 57,791 glosses that it never saw. The codes
lie in memory; a tier is a finer form of the embeddings on disk, memory-mapped, and the compressor's
reranker needs none. Each form and each number of candidates is asked all queries at once (queries a
second) and 500 of them one by one (median and 99th percentile), on one thread; both with the query
encoder. Writes ``benchmarks/results/rerank.json``.

Run: python benchmarks/rerank.py
"""

from __future__ import annotations

import json
import tempfile
import time
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from split import METRIC, ROOT, Floats, K
from tables import RESULTS
from wordnet import load_split

import embedpress
from embedpress.evaluate.metrics import recall_at_k
from embedpress.index.search import SearchIndex

CODE_SIZE = 32
FORMS = ("int8", "float16")
OVERSAMPLES = (1, 5, 10, 20, 50)
BY_RERANKER = (2, 5, 10)
ONE_BY_ONE = 500


def trained(folder: Path, base: Floats, seconds: float | None) -> Path:
    """A compressor to 32-byte codes, trained where it is not there yet."""
    if not (folder / "config.json").exists():
        from embedpress.autoencoder.pretrained import save

        compressor = embedpress.Compressor(None, CODE_SIZE, metric=METRIC, time_budget=seconds)
        save(compressor.fit(base), folder)
    return folder


def asked_one_by_one(index: SearchIndex, queries: Floats, **options: Any) -> list[float]:
    """Milliseconds of each query."""
    spent = []
    for query in queries:
        started = time.perf_counter()
        index.search(query[None], K, **options)
        spent.append(1e3 * (time.perf_counter() - started))
    return spent


def measure(index: SearchIndex, queries: Floats, truth: Any, **options: Any) -> dict[str, Any]:
    """Recall and times of one way to ask."""
    index.search(queries[:100], K, **options)
    started = time.perf_counter()
    hits = index.search(queries, K, **options)
    seconds = time.perf_counter() - started
    one = asked_one_by_one(index, queries[:ONE_BY_ONE], **options)
    return {
        "recall": float(recall_at_k(hits.rows, truth).mean()),
        "queries_per_second": len(queries) / seconds,
        "p50_ms": float(np.percentile(one, 50)),
        "p99_ms": float(np.percentile(one, 99)),
    }


def main(
    model: Annotated[
        Path, typer.Option(help="The compressor, trained here where it is not there.")
    ] = ROOT / "data" / "rerank" / "model",
    training: Annotated[
        float | None, typer.Option(help="Seconds of training, a whole one by default.")
    ] = None,
) -> None:
    """Measure and write results/rerank.json."""
    split = load_split()
    model.parent.mkdir(parents=True, exist_ok=True)
    compressor = embedpress.load(trained(model, split.base, training), num_threads=1)
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as home:
        for name, base in split.bases.items():
            folder = Path(home) / name
            folder.mkdir()
            np.save(folder / "x.npy", base)
            embedpress.compress(folder / "x.npy", model, folder / "codes")
            for form in ("none", *FORMS):
                out = folder / form
                embedpress.build_index(
                    folder / "codes", model, out, rerank=form, vectors=folder / "x.npy"
                )
                index = embedpress.open_index(out, compressor)
                tier = sum(file.stat().st_size for file in out.glob("rerank*"))
                ways = [(form, True, n) for n in OVERSAMPLES]
                if form == "none":
                    ways = [(form, False, 1), *(("reranker", True, n) for n in BY_RERANKER)]
                for what, rerank, oversample in ways:
                    found = measure(
                        index,
                        split.queries,
                        split.truths[name],
                        oversample=oversample,
                        rerank=rerank,
                    )
                    rows.append(
                        {
                            "base": name,
                            "form": what,
                            "oversample": oversample,
                            "memory_bytes_per_vector": index.manifest.bytes_per_vector,
                            "disk_bytes_per_vector": tier / len(base),
                            **found,
                        }
                    )
                    print(json.dumps(rows[-1]), flush=True)
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "rerank.json").write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    typer.run(main)
