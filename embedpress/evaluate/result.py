"""The figures of an evaluation, and their way to JSON and back."""

from __future__ import annotations

import math
import types
import typing
from dataclasses import asdict, dataclass, field, fields, is_dataclass
from typing import Any

from embedpress.errors import FormatError


@dataclass(frozen=True)
class RecallRow:
    """Recall of one way to store the base.

    Attributes
    ----------
    name : str
    kind : str
        "original", "codes", "latents" or "peer".
    bytes : int
        Of one stored vector.
    recall, low, high : float
        Mean recall@k and its 95 % interval over the queries.
    difference, difference_low, difference_high : float or None
        A peer's recall less that of the compressor's form of as many bytes, query by query.
    train_seconds, encode_rows_per_second : float or None
    model_bytes : int or None
        Stored once: codebooks, matrices.
    """

    name: str
    kind: str
    bytes: int
    recall: float
    low: float
    high: float
    difference: float | None = None
    difference_low: float | None = None
    difference_high: float | None = None
    train_seconds: float | None = None
    encode_rows_per_second: float | None = None
    model_bytes: int | None = None


@dataclass(frozen=True)
class CurvePoint:
    """One point of a rate-recall line: its name, bytes a vector, mean recall@k."""

    name: str
    bytes: int
    recall: float


@dataclass(frozen=True)
class RerankPoint:
    """Recall@k once the first `candidates` hits of a form are reordered by the embeddings."""

    form: str
    candidates: int
    recall: float


@dataclass(frozen=True)
class Reconstruction:
    """Cosines of held-out embeddings with what their codes or latents restore.

    Attributes
    ----------
    form : str
        "codes" or "latents".
    relative_error : float
        Sum of squared differences as a share of the sum of squares.
    edges, counts : list
        Histogram of the cosines.
    """

    form: str
    rows: int
    cosine_mean: float
    cosine_p01: float
    cosine_p05: float
    cosine_p50: float
    cosine_p95: float
    cosine_p99: float
    relative_error: float
    edges: list[float]
    counts: list[int]


@dataclass(frozen=True)
class LatentSpace:
    """See :func:`embedpress.evaluate.statistics.latent_space`; eigenvalues as shares of all."""

    rows: int
    n_components: int
    effective_rank: float
    dead: int
    variance_shares: list[float]


@dataclass(frozen=True)
class CodeUse:
    """Of each byte of a code: how many of its 256 values never occur, and its entropy."""

    rows: int
    code_size: int
    unused: list[int]
    entropy_bits: list[float]


@dataclass(frozen=True)
class RelevanceRow:
    """nDCG@k and MRR by relevance judgements, with 95 % intervals."""

    name: str
    bytes: int
    queries: int
    ndcg: float
    ndcg_low: float
    ndcg_high: float
    mrr: float
    mrr_low: float
    mrr_high: float


@dataclass(frozen=True)
class WorstQuery:
    """A query of low recall: its row and text, true neighbours lost, hits that are not true."""

    row: int
    text: str | None
    recall: float
    lost: list[str]
    intruders: list[str]


@dataclass(frozen=True)
class Evaluation:
    """Everything an evaluation measured.

    Attributes
    ----------
    metric : {"cosine", "ip", "l2"}
    k : int
    dim, base_rows, query_rows, seed : int
    original_bytes : int
        Of an embedding as float32.
    form : str
        The form in the headline: "codes", or "latents" without codes.
    recall : list of RecallRow
        Original, codes, latents, then peers.
    curve : list of CurvePoint
        Lines over several sizes, among them "Gaussian channel".
    rerank, reconstruction, relevance, worst
        Lists of :class:`RerankPoint`, :class:`Reconstruction`, :class:`RelevanceRow`,
        :class:`WorstQuery`.
    latents : LatentSpace or None
    codes : CodeUse or None
    history : dict of str to list of dict
        Training records by tower: step, seconds, loss, recall.
    """

    metric: str
    k: int
    dim: int
    base_rows: int
    query_rows: int
    seed: int
    original_bytes: int
    form: str
    recall: list[RecallRow]
    curve: list[CurvePoint] = field(default_factory=list)
    rerank: list[RerankPoint] = field(default_factory=list)
    reconstruction: list[Reconstruction] = field(default_factory=list)
    latents: LatentSpace | None = None
    codes: CodeUse | None = None
    relevance: list[RelevanceRow] = field(default_factory=list)
    history: dict[str, list[dict[str, float]]] = field(default_factory=dict)
    worst: list[WorstQuery] = field(default_factory=list)

    def row(self, kind: str) -> RecallRow | None:
        """The first recall row of a kind, if any."""
        return next((row for row in self.recall if row.kind == kind), None)

    def to_dict(self) -> dict[str, Any]:
        """Plain dicts, lists, numbers and text, as JSON holds them."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: Any) -> Evaluation:
        """The reverse of :meth:`to_dict`.

        Raises
        ------
        FormatError
            Naming the first field that is missing, unknown or of another type.
        """
        result: Evaluation = _build(cls, data, "evaluation")
        return result


def _build(kind: Any, value: Any, where: str) -> Any:
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin in (types.UnionType, typing.Union):
        if value is None and type(None) in arguments:
            return None
        return _build(next(a for a in arguments if a is not type(None)), value, where)
    if is_dataclass(kind):
        return _dataclass(kind, value, where)
    if origin is list:
        _need(isinstance(value, list), where, "a list", value)
        return [_build(arguments[0], v, f"{where}[{i}]") for i, v in enumerate(value)]
    if origin is dict:
        _need(isinstance(value, dict), where, "an object", value)
        _need(all(isinstance(key, str) for key in value), where, "an object with names", value)
        return {key: _build(arguments[1], v, f"{where}.{key}") for key, v in value.items()}
    if kind is float:
        number = isinstance(value, int | float) and not isinstance(value, bool)
        _need(number and math.isfinite(value), where, "a finite number", value)
        return float(value)
    _need(type(value) is kind, where, {int: "a whole number", str: "text"}[kind], value)
    return value


def _dataclass(kind: Any, value: Any, where: str) -> Any:
    _need(isinstance(value, dict), where, "an object", value)
    types_of = typing.get_type_hints(kind)
    known = {f.name for f in fields(kind)}
    for name in value:
        if name not in known:
            raise FormatError(f"{where} has an unknown field {name!r}")
    out = {name: _build(types_of[name], v, f"{where}.{name}") for name, v in value.items()}
    try:
        return kind(**out)
    except TypeError:
        missing = sorted(known - set(out))
        raise FormatError(f"{where} lacks fields, among {', '.join(missing)}") from None


def _need(holds: bool, where: str, what: str, value: Any) -> None:
    if not holds:
        raise FormatError(f"{where} must be {what}, not {str(value)[:40]!r}")
