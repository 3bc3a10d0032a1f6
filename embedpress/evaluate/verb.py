"""Evaluate a compressor on a dataset on disk and write the report."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from embedpress.errors import UsageError
from embedpress.evaluate.evaluation import evaluate
from embedpress.evaluate.report import write_report
from embedpress.onnx.compress import check_kind, metric_for
from embedpress.onnx.runtime import OnnxCompressor
from embedpress.vectors import Batch, open_vectors, write_atomic
from embedpress.vectors.holdout import held_out

MOST_ROWS = 200_000
MOST_QUERIES = 2_000
REPORT, FIGURES = "report.html", "evaluation.json"


def evaluate_folder(
    source: str | Path,
    model: str | Path,
    out: str | Path,
    *,
    queries: str | Path | None = None,
    baselines: bool | Sequence[str] = False,
    k: int = 10,
    seed: int = 0,
    num_threads: int | None = None,
    progress: Callable[[str], None] | None = None,
) -> dict[str, Any]:
    """Measure what a compressor keeps of the search results and write a report.

    Parameters
    ----------
    source : str or Path
        Embeddings; at most 200,000 rows of them, drawn by `seed`, are searched.
    model : str or Path
        A compressor folder.
    out : str or Path
        The folder for report.html and evaluation.json.
    queries : str or Path, optional
        Query embeddings. By default the rows of `source` that
        :func:`embedpress.autoencoder.fit.fit` never trains on ask, and all others are searched.
    baselines : bool or sequence of str
        Peers at the same bytes: all quick ones, or those named.
    k : int
        Neighbours that count.
    seed : int
    num_threads : int, optional
    progress : callable, optional
        Called with the name of each step as it begins.

    Returns
    -------
    dict
        ``report`` (path), sizes, and ``recall``: one row a form and peer.
    """
    compressor = OnnxCompressor(model, num_threads=num_threads)
    vectors = open_vectors(source, metric=metric_for(source, compressor))
    check_kind(vectors, compressor)
    shown = [name for name in ("text", "path") if name in vectors.metadata_columns][:1]
    batch = vectors.read(MOST_ROWS, seed=seed, columns=shown)
    if queries is None:
        asked = held_out(batch.ids)
        if not asked.any() or asked.all():
            raise UsageError(f"{source} has too few rows to hold any out: ask with --queries EMB")
        base, questions = _rows(batch, np.flatnonzero(~asked)), _rows(batch, np.flatnonzero(asked))
    else:
        base = batch
        asking = open_vectors(queries, metric=metric_for(queries, compressor))
        check_kind(asking, compressor)
        columns = [name for name in ("text", "path") if name in asking.metadata_columns][:1]
        questions = asking.read(MOST_QUERIES, seed=seed, columns=columns)
    if len(questions.ids) > MOST_QUERIES:
        drawn = np.random.default_rng(seed).permutation(len(questions.ids))[:MOST_QUERIES]
        questions = _rows(questions, np.sort(drawn))
    figures = evaluate(
        base.vectors,
        questions.vectors,
        compressor,
        k=min(k, len(base.ids)),
        baselines=baselines,
        base_texts=_texts(base),
        query_texts=_texts(questions),
        history=_history(compressor.path),
        seed=seed,
        num_threads=num_threads,
        progress=progress,
    )
    folder = Path(out)
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"{folder} is a file: give a folder to write to")
    folder.mkdir(parents=True, exist_ok=True)
    write_report(folder / REPORT, figures)
    write_atomic(folder / FIGURES, json.dumps(figures.to_dict(), indent=1) + "\n")
    return {
        "report": str(folder / REPORT),
        "figures": str(folder / FIGURES),
        "k": figures.k,
        "dim": compressor.dim,
        "code_size": compressor.code_size,
        "n_components": compressor.n_components,
        "base_rows": figures.base_rows,
        "query_rows": figures.query_rows,
        "recall": [
            {
                "name": row.name,
                "kind": row.kind,
                "bytes": row.bytes,
                "recall": row.recall,
                "low": row.low,
                "high": row.high,
            }
            for row in figures.recall
        ],
    }


def _rows(batch: Batch, rows: np.ndarray[Any, Any]) -> Batch:
    taken = pa.array(rows)
    return Batch(batch.ids.take(taken), batch.vectors[rows], batch.metadata.take(taken))


def _texts(batch: Batch) -> list[str]:
    if batch.metadata.num_columns:
        return [str(value) for value in batch.metadata.column(0).to_pylist()]
    return [str(value) for value in batch.ids.to_pylist()]


def _history(model: Path) -> dict[str, list[dict[str, float]]]:
    """Training records of the compressor's metrics.json, where there are any."""
    try:
        metrics = json.loads((model / "metrics.json").read_text(encoding="utf-8"))
        history: dict[str, list[dict[str, float]]] = metrics["history"]
        numbers = all(
            isinstance(value, int | float)
            for records in history.values()
            for record in records
            for value in record.values()
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}
    return history if numbers else {}
