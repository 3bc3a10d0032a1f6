"""Outliers of a dataset on disk, of any size, judged by a sample of what is known."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from embedpress.analyze.detector import WEIGHTS, OutlierDetector
from embedpress.analyze.files import SHOWN, make_folder, records
from embedpress.analyze.outliers import check_contamination
from embedpress.onnx.compress import check_kind
from embedpress.onnx.compressor import OnnxCompressor
from embedpress.vectors import Batch, Vectors, atomic_path, metric_for, open_vectors
from embedpress.vectors.holdout import held_out

MOST_KNOWN = 100_000
"""Rows that are read to learn from."""
TOP = 10
READ_ROWS = 8192


def outliers_folder(
    source: str | Path,
    model: str | Path,
    out: str | Path,
    *,
    reference: str | Path | None = None,
    contamination: str | float = 0.01,
    false_positive_rate: float | None = None,
    score: str = "combined",
    seed: int = 0,
    num_threads: int | None = None,
) -> dict[str, Any]:
    """Score every embedding and write scores.parquet.

    Parameters
    ----------
    source : str or Path
        Embeddings.
    model : str or Path
        A compressor folder; latents judge where it has them, else codes.
    out : str or Path
        The folder to write.
    reference : str or Path, optional
        Embeddings of the known kind; `source` itself by default. At most 100,000 rows of it
        are read, drawn by `seed`, to learn from and to set the threshold by.
    contamination, false_positive_rate, score
        See :class:`embedpress.analyze.detector.OutlierDetector`. The rows set aside for a
        `false_positive_rate` are those that ``embedpress fit`` never trains on.
    seed : int
    num_threads : int, optional

    Returns
    -------
    dict
        ``threshold`` (None where it is infinite), ``n_outliers`` and the ``top`` rows. The
        columns of scores.parquet are ``id``, ``score``, ``reconstruction``, ``density``,
        ``distance``, ``probability`` (the detector's by "unify") and ``outlier``.

    Raises
    ------
    UsageError, InputError, FormatError, MismatchError
        Options, vectors or a compressor that cannot be used.
    StorageError
        If the disk refuses.
    """
    detector = OutlierDetector(
        OnnxCompressor(model, num_threads=num_threads),
        contamination=check_contamination(contamination),
        false_positive_rate=false_positive_rate,
        score=score,
        seed=seed,
        num_threads=num_threads,
    )
    vectors = _open(source, detector.compressor)
    known = vectors if reference is None else _open(reference, detector.compressor)
    folder = make_folder(out)
    sample = known.read(MOST_KNOWN, seed=seed, columns=())
    aside = held_out(sample.ids) if false_positive_rate is not None else None
    detector.fit(sample.vectors, held_out=aside)
    own_ids = sample.ids if reference is None else sample.ids.slice(0, 0)
    shown = [name for name in SHOWN if name in vectors.metadata_columns]
    n_outliers, top = 0, list[tuple[float, dict[str, Any]]]()
    path = folder / "scores.parquet"
    with atomic_path(path) as temporary:
        writer: pq.ParquetWriter | None = None
        for batch in vectors.iter_batches(READ_ROWS, columns=shown):
            table = _scored(detector, batch, own_ids)
            writer = writer or pq.ParquetWriter(temporary, table.schema, compression="zstd")
            writer.write_table(table)
            values = table["score"].to_numpy()
            n_outliers += pc.sum(table["outlier"]).as_py()
            highest = np.argsort(-values, kind="stable")[:TOP]
            found = zip(values[highest].tolist(), records(batch, highest), strict=True)
            top = sorted([*top, *found], key=lambda one: -one[0])[:TOP]
        if writer is not None:
            writer.close()
    threshold = detector.threshold_
    return {
        "scores": str(path),
        "count": vectors.count,
        "threshold": threshold if math.isfinite(threshold) else None,
        "n_outliers": n_outliers,
        "top": [{"score": value, **record} for value, record in top],
    }


def _open(source: str | Path, compressor: OnnxCompressor) -> Vectors:
    vectors = open_vectors(source, metric=metric_for(source, compressor.metric))
    check_kind(vectors, compressor)
    return vectors


def _scored(detector: OutlierDetector, batch: Batch, own_ids: pa.Array) -> pa.Table:
    """Scores of a batch; a row that was learnt has the score that it has without itself."""
    scores = detector.scores(batch.vectors)
    learnt = pc.index_in(batch.ids, own_ids) if len(own_ids) else pa.nulls(len(batch.ids))
    rows = np.flatnonzero(learnt.is_valid().to_numpy(zero_copy_only=False))
    places = learnt.take(pa.array(rows)).to_numpy(zero_copy_only=False).astype(np.int64)
    for name, values in detector.scores_.items():
        scores[name][rows] = values[places]
    decided = scores[detector.score]
    return pa.table(
        {
            "id": batch.ids,
            "score": decided,
            **{name: scores[name] for name in WEIGHTS},
            "probability": detector.probability(decided, "unify"),
            "outlier": decided > detector.threshold_,
        }
    )
