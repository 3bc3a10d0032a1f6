"""Evaluate a compressor on a dataset on disk and write the report."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from embedpress.errors import FormatError, UsageError
from embedpress.evaluate.beir import ById, as_rows, read_judgements, read_texts
from embedpress.evaluate.evaluation import evaluate
from embedpress.evaluate.folder_index import FolderIndex
from embedpress.evaluate.report import write_report
from embedpress.onnx.compress import check_kind
from embedpress.onnx.compressor import OnnxCompressor
from embedpress.vectors import Batch, Vectors, metric_for, open_vectors, write_atomic
from embedpress.vectors.document import read_json
from embedpress.vectors.files import check_no_file
from embedpress.vectors.holdout import held_out

MOST_ROWS = 200_000
MOST_QUERIES = 2_000
PLANNED_VECTORS = 100_000_000
PRICE = 4.5
"""US dollars for a gigabyte and a month: about what memory of rented machines costs on demand."""
REPORT, FIGURES = "report.html", "evaluation.json"


def evaluate_folder(
    source: str | Path,
    model: str | Path,
    out: str | Path,
    *,
    queries: str | Path | None = None,
    baselines: bool | Sequence[str] = False,
    index: str | Path | None = None,
    beir: str | Path | None = None,
    split: str = "test",
    images: str | Path | None = None,
    planned_vectors: int = PLANNED_VECTORS,
    price: float = PRICE,
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
    index : str or Path, optional
        An index folder of the same vectors: tells its own loss apart from that of compression.
    beir : str or Path, optional
        A folder in the layout of BEIR, for nDCG@k and MRR: `source` and `queries` are
        embeddings of its corpus.jsonl and queries.jsonl, by their ids, and only judged queries
        ask. Its texts are shown where the embeddings bring none.
    split : str
        Which judgements, ``qrels/<split>.tsv``.
    images : str or Path, optional
        The folder of the photos, to which the column ``path`` is relative: the worst queries
        are shown as pictures.
    planned_vectors : int
        For how many vectors bytes and money are told.
    price : float
        US dollars for a gigabyte of memory and a month.
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

    Raises
    ------
    UsageError
        Options that cannot be, or too few rows to hold any out as queries.
    InputError, FormatError
        Vectors, a compressor, an index or judgements that cannot be used.
    MismatchError
        Vectors or an index that do not belong to the compressor.
    """
    if planned_vectors < 1 or not 0 <= price < float("inf"):
        raise UsageError("planned_vectors must be 1 or more, price a number of 0 or more")
    if images is not None and not Path(images).is_dir():
        raise UsageError(f"{images} is not a folder of photos")
    judged = None if beir is None else read_judgements(beir, split)
    if judged is not None and queries is None:
        raise UsageError(
            "judgements are of queries: embed queries.jsonl with --id-column _id and give them "
            "with --queries"
        )
    compressor = OnnxCompressor(model, num_threads=num_threads)
    base, questions = _base_and_queries(source, queries, compressor, judged, seed)
    judgements, missing = None, 0
    if judged is not None:
        by_rows = as_rows(judged, base.ids, questions.ids)
        questions = _rows(questions, by_rows.query_rows)
        judgements, missing = by_rows.judgements, by_rows.missing
    searched = None if index is None else FolderIndex(index, compressor, base.ids)
    photos = images is not None and base.metadata.column_names == ["path"]
    figures = evaluate(
        base.vectors,
        questions.vectors,
        compressor,
        k=min(k, len(base.ids)),
        baselines=baselines,
        base_texts=_texts(base, beir, "corpus"),
        query_texts=_texts(questions, beir, "queries"),
        judgements=judgements,
        index=searched,
        whole_texts=photos,
        history=_history(compressor.path),
        seed=seed,
        num_threads=num_threads,
        progress=progress,
    )
    figures = replace(figures, missing_judged=missing, planned_vectors=planned_vectors, price=price)
    folder = Path(out)
    check_no_file(folder)
    folder.mkdir(parents=True, exist_ok=True)
    write_report(folder / REPORT, figures, images=images if photos else None)
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
        "depths": [asdict(one) for one in figures.depths],
        "index": None if figures.index is None else asdict(figures.index),
        "relevance": [asdict(one) for one in figures.relevance],
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


def _base_and_queries(
    source: str | Path,
    queries: str | Path | None,
    compressor: OnnxCompressor,
    judged: ById | None,
    seed: int,
) -> tuple[Batch, Batch]:
    """What is searched and what asks, each no more than can be searched by brute force."""
    vectors = open_vectors(source, metric=metric_for(source, compressor.metric))
    check_kind(vectors, compressor)
    if judged is not None and vectors.count > MOST_ROWS:
        raise UsageError(
            f"{source} has {vectors.count:,} rows: with judgements all are searched, and at most "
            f"{MOST_ROWS:,} can be"
        )
    batch = vectors.read(MOST_ROWS, seed=seed, columns=_shown(vectors))
    if queries is None:
        asked = held_out(batch.ids)
        if not asked.any() or asked.all():
            raise UsageError(f"{source} has too few rows to hold any out: ask with --queries EMB")
        base, questions = _rows(batch, np.flatnonzero(~asked)), _rows(batch, np.flatnonzero(asked))
    else:
        base = batch
        asking = open_vectors(queries, metric=metric_for(queries, compressor.metric))
        check_kind(asking, compressor)
        most = MOST_QUERIES if judged is None else MOST_ROWS
        questions = asking.read(most, seed=seed, columns=_shown(asking))
    if judged is not None:
        asked = np.array([str(one) in judged for one in questions.ids.to_pylist()])
        if asked.any():
            questions = _rows(questions, np.flatnonzero(asked))
    if len(questions.ids) > MOST_QUERIES:
        drawn = np.random.default_rng(seed).permutation(len(questions.ids))[:MOST_QUERIES]
        questions = _rows(questions, np.sort(drawn))
    return base, questions


def _shown(vectors: Vectors) -> list[str]:
    """The column by which a person knows a row."""
    for name in ("text", "path"):
        if name in vectors.metadata_columns:
            return [name]
    return []


def _rows(batch: Batch, rows: np.ndarray[Any, Any]) -> Batch:
    taken = pa.array(rows)
    return Batch(batch.ids.take(taken), batch.vectors[rows], batch.metadata.take(taken))


def _texts(batch: Batch, beir: str | Path | None, name: str) -> list[str]:
    if batch.metadata.num_columns:
        return [str(value) for value in batch.metadata.column(0).to_pylist()]
    ids = [str(value) for value in batch.ids.to_pylist()]
    known = {} if beir is None else read_texts(beir, name, ids)
    return [known.get(one, one) for one in ids]


def _history(model: Path) -> dict[str, list[dict[str, float]]]:
    """Training records of the compressor's metrics.json, where there are any."""
    try:
        history: dict[str, list[dict[str, float]]] = read_json(model / "metrics.json")["history"]
        numbers = all(
            isinstance(value, int | float)
            for records in history.values()
            for record in records
            for value in record.values()
        )
    except (FormatError, KeyError, TypeError, AttributeError):
        return {}
    return history if numbers else {}
