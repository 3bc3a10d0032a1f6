"""What vectors were like when a compressor was fitted, kept beside it to tell drift by."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from embedpress.analyze.outliers import reconstruction_error
from embedpress.errors import FormatError, InputError, MismatchError, first_line
from embedpress.evaluate.exact import Floats, true_neighbors, without_own
from embedpress.evaluate.forms import in_blocks, search_codes, search_latents
from embedpress.evaluate.metrics import recall_at_k
from embedpress.onnx.compressor import OnnxCompressor
from embedpress.vectors import Manifest, check_vectors, write_atomic
from embedpress.vectors.document import parse_json

FILE = "reference.safetensors"
LARGEST_FILE = 1 << 28
VERSION = "1"
MOST_ROWS = 2_000
FEWEST_ROWS = 50
CANARIES = 16
RECALL_ROWS = (100, 200, 500, 1000, 2000)
"""Recall falls with the number of rows: it is kept for each of these."""
K = 10
IDENTITY = ("fingerprint", "weights_sha256")


@dataclass(frozen=True)
class Reference:
    """Figures of vectors that took no part in training.

    Attributes
    ----------
    errors : dict of str to ndarray, shape (n,), float64
        Reconstruction errors by "codes" and "latents", see
        :func:`embedpress.analyze.outliers.reconstruction_error`.
    recalls : dict of int to (float, float)
        Mean and standard deviation over the rows of leave-one-out recall@10 among so many.
    canary_ids : list of str
    canaries : ndarray, shape (m, d), float32
        The embeddings of these ids.
    extractor : dict of str to str
        Checksums by which the extractor is known, where it told them.
    """

    errors: dict[str, NDArray[np.float64]]
    recalls: dict[int, tuple[float, float]]
    canary_ids: list[str]
    canaries: Floats
    extractor: dict[str, str]


def measure_reference(
    compressor: OnnxCompressor, x: Floats, ids: pa.Array, manifest: Manifest | None
) -> Reference:
    """Measure vectors that the compressor was not trained on.

    Parameters
    ----------
    compressor : OnnxCompressor
    x : ndarray, shape (n, d), float32
        In random order; the first 2,000 count.
    ids : pyarrow.Array
    manifest : Manifest or None
        Of the folder they are from.

    Returns
    -------
    Reference

    Raises
    ------
    InputError
        Fewer than 50 rows, which would tell nothing.
    """
    x, ids = x[:MOST_ROWS], ids[:MOST_ROWS]
    if len(x) < FEWEST_ROWS:
        raise InputError(f"{len(x)} rows cannot stand for a distribution: give {FEWEST_ROWS}")
    return Reference(
        errors=errors_of(compressor, x),
        recalls={n: mean_and_deviation(compressor, x[:n]) for n in RECALL_ROWS if n <= len(x)},
        canary_ids=[str(one) for one in ids[:CANARIES].to_pylist()],
        canaries=x[:CANARIES],
        extractor=identity_of(manifest),
    )


def identity_of(manifest: Manifest | None) -> dict[str, str]:
    """Checksums by which an extractor is known; empty where it told none."""
    config: Any = {} if manifest is None else manifest.config
    return {name: config[name] for name in IDENTITY if isinstance(config.get(name), str)}


def errors_of(compressor: OnnxCompressor, x: Floats) -> dict[str, NDArray[np.float64]]:
    """Reconstruction errors (n,) by each form that the compressor has."""
    errors = {}
    if compressor.code_size:
        restored = in_blocks(lambda rows: compressor.decode(compressor.encode(rows)), x)
        errors["codes"] = reconstruction_error(x, restored, compressor.metric)
    if compressor.n_components:
        restored = in_blocks(
            lambda rows: compressor.inverse_transform(compressor.transform(rows)), x
        )
        errors["latents"] = reconstruction_error(x, restored, compressor.metric)
    return errors


def mean_and_deviation(compressor: OnnxCompressor, x: Floats) -> tuple[float, float]:
    """Leave-one-out recall@10 among rows, by codes, or by latents without codes."""
    search: Any = search_codes if compressor.code_size else search_latents
    stored = in_blocks(compressor.encode if compressor.code_size else compressor.transform, x)
    own = np.arange(len(x))
    truth = without_own(true_neighbors(x, x, K + 1, metric=compressor.metric), own)
    found = without_own(search(compressor, stored, x, K + 1)[0], own)
    recall = recall_at_k(found, truth)
    return float(recall.mean()), float(recall.std(ddof=1))


def save_reference(folder: str | Path, reference: Reference, fingerprint: str) -> None:
    """Write the reference of a compressor folder, for this fingerprint of it alone."""
    from safetensors.numpy import save

    tensors: dict[str, NDArray[Any]] = {
        f"errors.{form}": values.astype(np.float32) for form, values in reference.errors.items()
    }
    recalls = [(n, *figures) for n, figures in reference.recalls.items()]
    tensors["recalls"] = np.asarray(recalls, np.float64).reshape(-1, 3)
    tensors["canaries"] = np.ascontiguousarray(reference.canaries, np.float32)
    notes = {
        "kind": "reference",
        "format_version": VERSION,
        "fingerprint": fingerprint,
        "canary_ids": json.dumps(reference.canary_ids),
        "extractor": json.dumps(reference.extractor),
    }
    write_atomic(Path(folder) / FILE, save(tensors, notes))


def load_reference(compressor: OnnxCompressor) -> Reference:
    """Read the reference of a compressor folder, checked.

    Raises
    ------
    InputError
        There is none: the compressor was saved without data to hold out.
    FormatError
        A file that is not one.
    MismatchError
        The reference of another compressor.
    """
    from safetensors import safe_open

    path = compressor.path / FILE
    if not path.is_file():
        raise InputError(
            f"{compressor.path} has no {FILE}: name vectors of the kind it was fitted on with "
            "--reference EMB"
        )
    try:
        if path.stat().st_size > LARGEST_FILE:
            raise FormatError(f"it is larger than {LARGEST_FILE} bytes")
        with safe_open(path, framework="numpy") as file:
            notes: dict[str, str] = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        if (notes.get("kind"), notes.get("format_version")) != ("reference", VERSION):
            raise FormatError(f"it is no reference of version {VERSION}")
        reference = _checked(notes, tensors, compressor.dim)
    except Exception as error:  # safetensors raises its own and OSError alike
        first = first_line(error)
        raise FormatError(f"{path} cannot be read: {first}") from None
    if notes.get("fingerprint") != compressor.fingerprint:
        raise MismatchError(f"{path} belongs to another compressor: fit again, or --reference EMB")
    return reference


def _checked(notes: dict[str, str], tensors: dict[str, NDArray[Any]], dim: int) -> Reference:
    errors = {}
    for form in ("codes", "latents"):
        if f"errors.{form}" in tensors:
            values = tensors.pop(f"errors.{form}")
            check_vectors(values.reshape(1, -1), what=f"errors of {form}")
            errors[form] = values.astype(np.float64).ravel()
    recalls, canaries = tensors.pop("recalls"), tensors.pop("canaries")
    ids, extractor = parse_json(notes["canary_ids"]), parse_json(notes["extractor"])
    if tensors or not errors:
        raise FormatError("it holds other tensors than a reference does")
    if recalls.shape != (len(recalls), 3) or not np.isfinite(recalls).all():
        raise FormatError("its recalls are not figures")
    if not (isinstance(ids, list) and all(isinstance(one, str) for one in ids)):
        raise FormatError("its canaries have no ids")
    texts = extractor.values() if isinstance(extractor, dict) else [None]
    if len(ids) != len(canaries) or not all(isinstance(text, str) for text in texts):
        raise FormatError("its canaries or its extractor are not whole")
    return Reference(
        errors,
        {int(n): (float(mean), float(deviation)) for n, mean, deviation in recalls},
        ids,
        check_vectors(canaries, dim=dim, what="canaries"),
        extractor,
    )
