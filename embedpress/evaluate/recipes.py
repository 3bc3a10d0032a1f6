"""Which classical codes come in a given number of bytes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from embedpress.errors import UsageError

KINDS = ("pca", "pca-sq", "opq", "rabitq", "rq", "prq", "lsq", "int8", "binary")
QUICK_KINDS = tuple(kind for kind in KINDS if kind not in ("rq", "prq", "lsq"))

LSQ_BOOKS = 8
"""Codebooks of one local search quantizer: its time grows with their square."""


def check_kinds(baselines: bool | Sequence[str]) -> tuple[str, ...]:
    """The kinds of baseline that are asked for: none, all quick ones (True), or those named.

    Raises
    ------
    UsageError
        Naming the one that is not known.
    """
    if isinstance(baselines, bool):
        return QUICK_KINDS if baselines else ()
    kinds = (baselines,) if isinstance(baselines, str) else tuple(dict.fromkeys(baselines))
    for kind in kinds:
        if kind not in KINDS:
            raise UsageError(f"baseline {kind!r} is not known: use one of {', '.join(KINDS)}")
    return kinds


@dataclass(frozen=True)
class Recipe:
    """What a coder is made of.

    Attributes
    ----------
    label : str
        As it is written in tables, such as "PCA64+SQ4".
    quantizer : {"float", "sq", "pq", "sign", "rq", "lsq", "rabitq"}
    dims : int
        Components that are quantized.
    bits : int
        Bits a component ("sq", "rabitq"); 8 bits a codebook for "pq", "rq" and "lsq".
    books : int
        Codebooks of "pq", "rq" and "lsq".
    splits : int
        Slices of the vector that "rq" and "lsq" share their codebooks out to.
    reduce : bool
        PCA down to `dims` first.
    rotate : {"no", "random", "itq", "opq"}
    unit : bool
        Scale the components to length 1 before quantizing: cosine in the reduced space.
    shift : {"no", "base", "both"}
        Subtract the training mean from nothing, from base vectors alone (which leaves the order
        of inner products as it is), or from base vectors and queries.
    """

    label: str
    quantizer: Literal["float", "sq", "pq", "sign", "rq", "lsq", "rabitq"]
    dims: int
    bits: int = 8
    books: int = 0
    splits: int = 1
    reduce: bool = False
    rotate: Literal["no", "random", "itq", "opq"] = "no"
    unit: bool = False
    shift: Literal["no", "base", "both"] = "no"


def recipes(kind: str, n_bytes: int, dim: int, metric: str) -> list[Recipe]:
    """The forms a kind of baseline has at exactly `n_bytes` a vector, none where it has none.

    Parameters
    ----------
    kind : str
        One of `KINDS`.
    n_bytes, dim : int
    metric : {"cosine", "ip", "l2"}

    Returns
    -------
    list of Recipe
    """
    if n_bytes < 1:
        return []
    if kind == "int8":
        return [Recipe("int8", "sq", dim)] if n_bytes == dim else []
    if kind == "opq":
        # FAISS splits the rotated vector evenly, so it is padded to a multiple of the codebooks.
        width = -(-dim // n_bytes) * n_bytes
        whole = Recipe(f"OPQ{n_bytes}", "pq", width, books=n_bytes, rotate="opq")
        return [whole] if n_bytes <= dim else []
    if kind == "rq":
        return [Recipe(f"RQ{n_bytes}", "rq", dim, books=n_bytes)] if n_bytes <= dim else []
    if kind == "prq":
        even, thirds = (
            _split("PRQ", "rq", [m for m in books if m < n_bytes], n_bytes, dim)
            for books in ((2, 4, 8), (3, 6))
        )
        # Where slices of even codebooks would have to be padded, those of threes may not.
        padded = all(form.rotate != "no" for form in even)
        unpadded = [form for form in thirds if form.rotate == "no"]
        return unpadded if padded and unpadded else even
    if kind == "lsq" and n_bytes <= LSQ_BOOKS:
        return [Recipe(f"LSQ{n_bytes}", "lsq", dim, books=n_bytes)] if n_bytes <= dim else []
    if kind == "lsq":
        return _split("PLSQ", "lsq", [LSQ_BOOKS], n_bytes, dim)
    if kind == "pca":
        m = n_bytes // 4
        fits = n_bytes % 4 == 0 and m < dim
        return _reduced(Recipe(f"PCA{m}", "float", m), metric) if fits else []
    if kind == "pca-sq":
        sizes = [(m, b) for m, b in ((n_bytes, 8), (2 * n_bytes, 4)) if m < dim]
        forms = [Recipe(f"PCA{m}+SQ{b}", "sq", m, bits=b) for m, b in sizes]
        return [r for form in forms for r in _reduced(form, metric)]
    if kind == "binary":
        return _binary(n_bytes, dim, metric)
    return _rabitq(n_bytes, dim, metric)


def _split(
    name: str, quantizer: Literal["rq", "lsq"], books: list[int], n_bytes: int, dim: int
) -> list[Recipe]:
    """A product of additive quantizers, each of so many codebooks, for every number that fits."""
    out = []
    for m in books:
        splits = n_bytes // m
        if splits * m != n_bytes or splits > dim:
            continue
        # FAISS splits evenly: a rotation pads where the slices do not divide the dimensions.
        width = -(-dim // splits) * splits
        form = Recipe(f"{name}{splits}x{m}", quantizer, width, books=n_bytes, splits=splits)
        out.append(form if width == dim else replace(form, rotate="random"))
    return out


def _reduced(form: Recipe, metric: str) -> list[Recipe]:
    form = replace(form, reduce=True, unit=metric == "cosine")
    if metric == "l2":
        return [replace(form, shift="both")]
    return [replace(form, shift=s) for s in ("both", "base", "no")]


def _binary(n_bytes: int, dim: int, metric: str) -> list[Recipe]:
    bits = 8 * n_bytes
    if bits > dim:
        return []
    if bits == dim:
        plain = Recipe("binary", "sign", dim)
        return [plain, replace(plain, label="ITQ+binary", rotate="itq", shift="both")]
    forms = _reduced(Recipe(f"PCA{bits}+binary", "sign", bits, rotate="itq"), metric)
    return [r for r in forms if r.shift != "no"]


def _rabitq(n_bytes: int, dim: int, metric: str) -> list[Recipe]:
    out = []
    for bits in (1, 2, 4, 8):
        # Twice the dimensions is padding for its own sake.
        most = min(8 * n_bytes // bits, 2 * dim)
        dims = next((m for m in range(most, 0, -1) if _rabitq_size(m, bits) <= n_bytes), 0)
        if dims == 0 or _rabitq_size(dims, bits) != n_bytes:
            continue
        name = "RaBitQ" if bits == 1 else f"RaBitQ{bits}"
        if dims >= dim:
            out.append(Recipe(name, "rabitq", dims, bits=bits, rotate="random"))
        else:
            form = Recipe(f"PCA{dims}+{name}", "rabitq", dims, bits=bits, rotate="random")
            out.extend(_reduced(form, metric))
    return out


def _rabitq_size(dims: int, bits: int) -> float:
    """Bytes of a code with the correction factors every vector carries, as FAISS has them."""
    import faiss

    if not hasattr(faiss, "IndexRaBitQ"):
        return math.inf
    index: Any = faiss.IndexRaBitQ
    try:
        made = index(dims, faiss.METRIC_INNER_PRODUCT, *([bits] if bits > 1 else []))
    except (TypeError, NotImplementedError):
        # FAISS before 1.13 has one bit a component only.
        return math.inf
    return int(made.code_size)
