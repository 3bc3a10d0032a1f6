"""Drift of a dataset on disk against what a compressor folder was fitted on."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from embedpress.analyze.drift import (
    FALSE_ALARM_RATE,
    LEAST_SHIFT,
    Check,
    check_canaries,
    check_errors,
    check_extractor,
    check_rates,
    check_recall,
)
from embedpress.analyze.reference import (
    FEWEST_ROWS,
    FILE,
    MOST_ROWS,
    Reference,
    errors_of,
    identity_of,
    load_reference,
    mean_and_deviation,
    measure_reference,
    save_reference,
)
from embedpress.errors import InputError
from embedpress.evaluate.exact import Floats
from embedpress.onnx.compress import check_kind
from embedpress.onnx.compressor import OnnxCompressor
from embedpress.threads import faiss_threads
from embedpress.vectors import Manifest, Vectors, metric_for, open_vectors
from embedpress.vectors.files import remove
from embedpress.vectors.holdout import held_out

ENOUGH_HELD_OUT = 100


def drift_folder(
    source: str | Path,
    model: str | Path,
    *,
    reference: str | Path | None = None,
    canary: str | Path | None = None,
    false_alarm_rate: float = FALSE_ALARM_RATE,
    least_shift: float = LEAST_SHIFT,
    seed: int = 0,
    num_threads: int | None = None,
) -> dict[str, Any]:
    """Tell whether embeddings are still of the kind that a compressor was fitted on.

    Parameters
    ----------
    source : str or Path
        Embeddings; up to 2,000 of them, drawn by `seed`, are judged. They are rows that no fit
        trains on, by their ids, where these are 100 or more, else any: so they may be, in whole
        or in part, what the compressor was fitted on.
    model : str or Path
        A compressor folder. What it was fitted on is described in its reference.safetensors.
    reference : str or Path, optional
        Embeddings to compare with instead, of which rows are drawn in the same way.
    canary : str or Path, optional
        Fresh embeddings of inputs that were there at the fit, known by their ids: whether the
        extractor still gives the same.
    false_alarm_rate : float
        Chance that vectors of the same kind are called drifted, over all statistical checks
        together.
    least_shift : float
        Of the distribution of errors, 0 to 1; a smaller one is none.
    seed : int
    num_threads : int, optional

    Returns
    -------
    dict
        ``drifted``, ``checks`` (name, value, threshold, drifted, detail), ``not_checked`` (what
        could not be, and why), ``canary_ids`` (inputs of the fit to embed again), ``rows``.

    Raises
    ------
    UsageError, InputError, FormatError, MismatchError
        Options, vectors or a compressor that cannot be used, or no reference.
    """
    check_rates(false_alarm_rate, least_shift)
    compressor = OnnxCompressor(model, num_threads=num_threads)
    vectors = _open(source, compressor)
    with faiss_threads(num_threads):
        known = (
            load_reference(compressor)
            if reference is None
            else _measured(_open(reference, compressor), compressor, seed)
        )
        x = _drawn(vectors, seed)[0][:MOST_ROWS]
        if len(x) < FEWEST_ROWS:
            raise InputError(f"{source} has {len(x)} rows: drift is told by {FEWEST_ROWS} or more")
        sizes = [n for n in known.recalls if n <= len(x)]
        # The rate is shared out (Bonferroni), so that together they keep it.
        rate = false_alarm_rate / (len(known.errors) + bool(sizes))
        errors = errors_of(compressor, x)
        checks = check_errors(known.errors, errors, rate=rate, least_shift=least_shift)
        skipped: dict[str, str] = {}
        if sizes:
            n = max(sizes)
            now = mean_and_deviation(compressor, x[:n])
            checks.append(check_recall(known.recalls, n, now, rate=rate))
        else:
            skipped["recall"] = "too few rows, in the reference or now"
    for name, found, why in (
        (
            "canary",
            None if canary is None else _canaries(known, _open(canary, compressor)),
            "embed the inputs of canary_ids again and give them with --canary EMB",
        ),
        (
            "extractor",
            check_extractor(known.extractor, identity_of(vectors.manifest)),
            "the vectors then or now do not say what made them",
        ),
    ):
        if found is None:
            skipped[name] = why
        else:
            checks.append(found)
    return {
        "drifted": any(check.drifted for check in checks),
        "rows": len(x),
        "false_alarm_rate": false_alarm_rate,
        "checks": [asdict(check) for check in checks],
        "not_checked": skipped,
        "canary_ids": known.canary_ids,
    }


def write_reference(
    model: str | Path, x: Floats, ids: pa.Array, manifest: Manifest | None, *, seed: int = 0
) -> bool:
    """Describe held-out vectors beside a compressor that was just saved.

    Returns
    -------
    bool
        False where these are too few to say anything.
    """
    remove(Path(model) / FILE)
    if len(x) < FEWEST_ROWS:
        return False
    compressor = OnnxCompressor(model)
    order = np.random.default_rng(seed).permutation(len(x))[:MOST_ROWS]
    known = measure_reference(
        compressor, np.ascontiguousarray(x[order]), ids.take(pa.array(order)), manifest
    )
    save_reference(model, known, compressor.fingerprint)
    return True


def _open(source: str | Path, compressor: OnnxCompressor) -> Vectors:
    vectors = open_vectors(source, metric=metric_for(source, compressor.metric))
    check_kind(vectors, compressor)
    return vectors


def _drawn(vectors: Vectors, seed: int) -> tuple[Floats, pa.Array]:
    """Rows that no fit trains on, or any where there are few of these, in random order; ids."""
    # A row in twenty is left out: so many are read that 2,000 of these are among them.
    batch = vectors.read(20 * MOST_ROWS, seed=seed, columns=())
    left_out = np.flatnonzero(held_out(batch.ids))
    rows = left_out if len(left_out) >= ENOUGH_HELD_OUT else np.arange(len(batch.ids))
    rows = np.random.default_rng(seed).permutation(rows)
    return np.ascontiguousarray(batch.vectors[rows]), batch.ids.take(pa.array(rows))


def _measured(vectors: Vectors, compressor: OnnxCompressor, seed: int) -> Reference:
    x, ids = _drawn(vectors, seed)
    return measure_reference(compressor, x, ids, vectors.manifest)


def _canaries(known: Reference, vectors: Vectors) -> Check:
    wanted = set(known.canary_ids)
    ids: list[str] = []
    rows = [np.empty((0, vectors.dim), np.float32)]
    for batch in vectors.iter_batches(columns=()):
        names = [str(one) for one in batch.ids.to_pylist()]
        here = [row for row, name in enumerate(names) if name in wanted]
        ids += [names[row] for row in here]
        rows.append(batch.vectors[here])
    found = check_canaries(known, ids, np.concatenate(rows))
    if found is None:
        some = ", ".join(known.canary_ids[:3])
        raise InputError(f"{vectors.path} has none of the canaries' ids, such as {some}")
    return found
