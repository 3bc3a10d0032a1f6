"""What the options of a compressor can be, and which of them go together."""

from __future__ import annotations

import numbers
from collections.abc import Iterable, Mapping
from typing import Any

import torch

from embedpress.errors import UsageError
from embedpress.threads import check_threads
from embedpress.vectors.check import check_metric

AUTO = "auto"
"""The `code_size` that is found by a target recall."""


def check_options(options: Mapping[str, Any], dim: int) -> None:
    """Raise UsageError for the first option that cannot be.

    Parameters
    ----------
    options : mapping
        Every parameter of :class:`embedpress.Compressor` by its name.
    dim : int
        Dimensions of the embeddings.
    """
    n_components, code_size = options["n_components"], options["code_size"]
    for name in ("n_components", "code_size", "groups", "patience", "num_threads"):
        value = options[name]
        if name == "code_size" and isinstance(value, str) and value == AUTO:
            continue
        if value is not None and not _is_whole(value):
            also = ", 'auto'" if name == "code_size" else ""
            raise UsageError(f"{name}={value!r} must be a whole number{also} or None")
    for name, lowest in (("epochs", 0), ("seed", 0), ("max_samples", 2)):
        value = options[name]
        if name == "epochs" and value is None:
            continue
        if not _is_whole(value) or not lowest <= value <= 2**30:
            raise UsageError(f"{name}={value!r} must be a whole number from {lowest} to 2**30")
    metric = check_metric(options["metric"])
    if n_components is None and code_size is None:
        raise UsageError("nothing to train: give n_components, code_size or both")
    if dim < 2:
        raise UsageError(f"embeddings of n_features = {dim} dimension cannot be made any smaller")
    if n_components is not None and not 1 <= n_components < dim:
        raise UsageError(
            f"n_components={n_components} must lie between 1 and {dim - 1}, "
            f"below the embeddings' {dim} dimensions"
        )
    _check_nested(options["nested_sizes"], n_components)
    if options["target_recall"] is not None:
        if code_size != AUTO:
            raise UsageError(
                f"target_recall={options['target_recall']} finds the code_size: "
                f"give code_size='auto' with it, not {code_size}"
            )
        if not 0 < _number(options, "target_recall") <= 1:
            raise UsageError(f"target_recall={options['target_recall']} must lie in (0, 1]")
    if code_size is not None and code_size != AUTO:
        check_code_size(code_size, options["groups"], dim=dim, metric=metric)
    if options["monitor"] not in ("recall", "loss"):
        raise UsageError(f"monitor={options['monitor']!r} must be 'recall' or 'loss'")
    for name in ("dropout", "mask", "mixup", "validation_fraction"):
        if not 0 <= _number(options, name) < 1:
            raise UsageError(f"{name}={options[name]} must lie in [0, 1)")
    for name in ("noise", "weight_decay", "reconstruction_weight", "commitment_weight"):
        if not 0 <= _number(options, name) < float("inf"):
            raise UsageError(f"{name}={options[name]} must be zero or more")
    for name in ("temperature", "learning_rate"):
        if name == "temperature" and options[name] is None:
            continue
        if not 0 < _number(options, name) < float("inf"):
            raise UsageError(f"{name}={options[name]} must be more than zero")
    if options["time_budget"] is not None and not _number(options, "time_budget") > 0:
        raise UsageError(f"time_budget={options['time_budget']} must be more than zero seconds")
    if options["patience"] is not None and options["patience"] < 0:
        raise UsageError(f"patience={options['patience']} must be zero or more")
    hidden = () if options["hidden_sizes"] is None else options["hidden_sizes"]
    if not isinstance(hidden, Iterable) or not all(_is_whole(n) and n >= 1 for n in hidden):
        raise UsageError(f"hidden_sizes={hidden!r} must be a list of whole numbers from 1 on")
    check_threads(options["num_threads"])
    try:
        torch.empty(0, device=options["device"])
    except (RuntimeError, AssertionError, TypeError, NotImplementedError) as error:
        first = str(error).splitlines()[0]
        raise UsageError(f"device {options['device']!r} cannot be used here: {first}") from None


def check_code_size(code_size: int, groups: int | None, *, dim: int, metric: str) -> None:
    """Raise UsageError unless codes of `code_size` bytes in `groups` slices can be made."""
    groups = code_size if groups is None else groups
    if not 1 <= code_size <= 4 * dim:
        raise UsageError(
            f"code_size={code_size} must lie between 1 and the {4 * dim} bytes of an embedding"
        )
    if groups > dim:
        raise UsageError(
            f"code_size={code_size} makes {groups} slices of only {dim} dimensions: "
            "give a smaller code_size, or fewer groups"
        )
    if groups < 1 or code_size % groups:
        raise UsageError(f"groups={groups} must divide code_size={code_size}")
    if metric == "l2" and groups != code_size:
        raise UsageError(
            f"metric 'l2' needs one codebook a slice, groups={code_size} like "
            f"code_size, not {groups}: distances to a sum of codewords cannot be "
            "looked up codeword by codeword"
        )


def _check_nested(sizes: Any, n_components: int | None) -> None:
    if not isinstance(sizes, Iterable) or not all(_is_whole(size) for size in sizes):
        raise UsageError(f"nested_sizes={sizes!r} must be a list of whole numbers")
    found = list(sizes)
    if found and n_components is None:
        raise UsageError("nested_sizes are beginnings of a latent: give n_components too")
    if any(not 1 <= size < (n_components or 0) for size in found) or found != sorted(set(found)):
        raise UsageError(
            f"nested_sizes={found} must rise and lie between 1 and n_components={n_components}"
        )


def _number(options: Mapping[str, Any], name: str) -> float:
    value = options[name]
    if not isinstance(value, numbers.Real):
        raise UsageError(f"{name}={value!r} must be a number")
    return float(value)


def _is_whole(value: object) -> bool:
    return isinstance(value, numbers.Integral) and not isinstance(value, bool)
