"""Fit a compressor on a dataset on disk and save it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from embedpress.analyze.drift_folder import write_reference
from embedpress.autoencoder.estimator import Compressor
from embedpress.autoencoder.pretrained import save
from embedpress.autoencoder.trainer import Progress
from embedpress.errors import InputError
from embedpress.vectors import metric_for, open_vectors
from embedpress.vectors.files import check_no_file
from embedpress.vectors.holdout import held_out


def fit(
    source: str | Path,
    out: str | Path,
    compressor: Compressor,
    *,
    column: str | None = None,
    queries: str | Path | None = None,
    progress: Progress | None = None,
    log_dir: str | Path | None = None,
) -> dict[str, Any]:
    """Train `compressor` on the embeddings of `source` and write its folder.

    About one row in twenty (decided by its id) is left out, so that
    :func:`embedpress.evaluate.verb.evaluate_folder` can ask with queries that training never saw.

    Parameters
    ----------
    source : str or Path
        Embeddings; see :func:`embedpress.open_vectors`.
    out : str or Path
        The folder to write.
    compressor : Compressor
        Not yet fitted; its `max_samples` bounds the rows that are read.
    column : str, optional
        The vector column of a plain file of several.
    queries : str or Path, optional
        Embeddings of sample queries; see :meth:`Compressor.fit`. Do not evaluate with the same.
    progress : callable, optional
        Called with the tower's name, the steps done and the steps planned.
    log_dir : str or Path, optional
        Folder for TensorBoard's event files of this training.

    Returns
    -------
    dict
        config.json of the folder; what was measured is in the compressor, see
        :func:`embedpress.autoencoder.judge.figures`.

    Raises
    ------
    UsageError, InputError, FormatError
        For options or embeddings that cannot be used.
    ExportError
        If an ONNX graph does not give the trained network's results.
    """
    check_no_file(Path(out))
    vectors = open_vectors(source, metric=metric_for(source, compressor.metric), column=column)
    if vectors.kind != "embeddings":
        raise InputError(f"{source} holds {vectors.kind}: fit on the embeddings themselves")
    batch = vectors.read(compressor.max_samples, seed=compressor.seed, columns=())
    kept = ~held_out(batch.ids)
    if kept.sum() < 2:
        kept[:] = True
    sample = None if queries is None else _sample_queries(queries, compressor)
    train = np.ascontiguousarray(batch.vectors[kept])
    compressor.fit(train, queries=sample, progress=progress, log_dir=log_dir)
    manifest = vectors.manifest
    about: dict[str, Any] = {"rows": vectors.count, "rows trained on": int(kept.sum())}
    if sample is not None:
        about["sample queries"] = len(sample)
    if manifest is not None:
        about["extractor"] = manifest.model
        about["extractor revision"] = manifest.revision
        about["pooling"] = manifest.pooling
        about["normalized"] = manifest.normalized
        about["extractor fingerprint"] = manifest.config.get("fingerprint")
        about["max_length"] = manifest.config.get("max_length")
    compressor.source_ = {k: v for k, v in about.items() if v is not None}
    config = save(compressor, out)
    # Rows that took no part tell later vectors of the same kind from others.
    left_out = ~kept
    write_reference(
        out,
        batch.vectors[left_out],
        batch.ids.filter(pa.array(left_out)),
        manifest,
        seed=compressor.seed,
    )
    return config


def _sample_queries(source: str | Path, compressor: Compressor) -> NDArray[np.float32]:
    vectors = open_vectors(source, metric=metric_for(source, compressor.metric))
    if vectors.kind != "embeddings":
        raise InputError(f"{source} holds {vectors.kind}: sample queries are embeddings")
    return vectors.read(compressor.max_samples, seed=compressor.seed, columns=()).vectors
