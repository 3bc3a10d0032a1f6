"""The figures of an evaluation, and their way to JSON and back."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

from embedpress.evaluate.reader import build


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
class RecallAt:
    """Recall of a form or peer at one depth: of the true `k` among the first `k` found."""

    name: str
    bytes: int
    k: int
    recall: float
    low: float
    high: float


@dataclass(frozen=True)
class IndexPoint:
    """Recall@k of a real index over a form, beside a scan of all of it.

    Attributes
    ----------
    name : str
        As in "nprobe 8" or "nprobe 8 and int8 rerank".
    nprobe : int or None
        Inverted lists that were visited; None for an index without.
    reranked : bool
    default : bool
        How the index is searched when nobody says otherwise.
    recall, low, high : float
        With the 95 % interval over the queries.
    difference, difference_low, difference_high : float
        Recall less that of the scan, query by query: what the index's shortcuts lose.
    microseconds : float
        A query, of all asked at once.
    """

    name: str
    nprobe: int | None
    reranked: bool
    default: bool
    recall: float
    low: float
    high: float
    difference: float
    difference_low: float
    difference_high: float
    microseconds: float


@dataclass(frozen=True)
class IndexLoss:
    """A real index: what it holds ("codes" or "latents"), FAISS's name of it, its points."""

    form: str
    factory: str
    scan: float
    points: list[IndexPoint]


@dataclass(frozen=True)
class Neighbourhood:
    """Whether near stays near in a form: see :mod:`embedpress.evaluate.neighbourhood`."""

    form: str
    rows: int
    k: int
    trustworthiness: float
    continuity: float


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
    """See :func:`embedpress.evaluate.statistics.latent_space`; eigenvalues as shares of all.

    `edges` and `histograms` are those of the values of each component, the same bins for all.
    """

    rows: int
    n_components: int
    effective_rank: float
    dead: int
    variance_shares: list[float]
    edges: list[float] = field(default_factory=list)
    histograms: list[list[int]] = field(default_factory=list)


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
    depths : list of RecallAt
        Recall@1, 10 and 100 of the original, the forms and the peers.
    index : IndexLoss or None
    neighbourhoods : list of Neighbourhood
    latents : LatentSpace or None
    codes : CodeUse or None
    missing_judged : int
        Judged documents that are not in the base; they count as not found.
    planned_vectors : int
        For how many vectors bytes and money are told.
    price : float
        US dollars for a gigabyte (10^9 bytes) of memory and a month.
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
    depths: list[RecallAt] = field(default_factory=list)
    curve: list[CurvePoint] = field(default_factory=list)
    rerank: list[RerankPoint] = field(default_factory=list)
    index: IndexLoss | None = None
    reconstruction: list[Reconstruction] = field(default_factory=list)
    neighbourhoods: list[Neighbourhood] = field(default_factory=list)
    latents: LatentSpace | None = None
    codes: CodeUse | None = None
    relevance: list[RelevanceRow] = field(default_factory=list)
    missing_judged: int = 0
    planned_vectors: int = 100_000_000
    price: float = 4.5
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
        result: Evaluation = build(cls, data, "evaluation")
        return result
