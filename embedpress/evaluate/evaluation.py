"""How much of the search results a compressor keeps, measured on arrays."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from embedpress.errors import InputError
from embedpress.evaluate.baselines import Baseline, baseline
from embedpress.evaluate.channel import channel_recall, fit_channel
from embedpress.evaluate.exact import Floats, Ids, true_neighbors, unit_rows
from embedpress.evaluate.forms import Compressor, in_blocks, search_codes, search_latents
from embedpress.evaluate.metrics import (
    Judgements,
    PerQuery,
    candidate_recall,
    mean_with_ci,
    recall_at_k,
)
from embedpress.evaluate.queries import relevance_row, worst_queries
from embedpress.evaluate.recipes import check_kinds, recipes
from embedpress.evaluate.result import (
    CurvePoint,
    Evaluation,
    RecallRow,
    RelevanceRow,
    RerankPoint,
)
from embedpress.evaluate.statistics import code_use, latent_space, reconstruction
from embedpress.vectors.check import check_vectors

RERANK_FACTORS = (1, 2, 5, 10, 20)
SAMPLE_ROWS = 20_000
CURVE_PEER = "pca-sq"


@dataclass(frozen=True)
class _Form:
    """One form of the base and what was found with it."""

    row: RecallRow
    found: Ids
    per_query: PerQuery


@dataclass(frozen=True)
class _Task:
    """What every step needs."""

    base: Floats
    queries: Floats
    truth: Ids
    metric: str
    seed: int
    num_threads: int | None
    progress: Callable[[str], None]

    @property
    def k(self) -> int:
        return int(self.truth.shape[1])


def evaluate(
    base: Any,
    queries: Any,
    compressor: Compressor,
    *,
    k: int = 10,
    baselines: bool | Sequence[str] = False,
    train: Any = None,
    base_texts: Sequence[str] | None = None,
    query_texts: Sequence[str] | None = None,
    judgements: Judgements | None = None,
    history: Mapping[str, Sequence[Mapping[str, float]]] | None = None,
    seed: int = 0,
    num_threads: int | None = None,
    progress: Callable[[str], None] | None = None,
) -> Evaluation:
    """Measure what search loses when the base is stored compressed.

    Parameters
    ----------
    base, queries : array_like, shape (n, d) and (nq, d), float
        `queries` must not be among the vectors the compressor was trained on.
    compressor : Compressor
        With latents, codes or both; its metric is used.
    k : int
        Neighbours that count.
    baselines : bool or sequence of str
        Peers at the same bytes as well: all quick ones (minutes), or those named, see
        :func:`embedpress.evaluate.baselines.baseline`; a kind that has no form of that size is
        left out.
    train : array_like, shape (m, d), float, optional
        What peers are trained on, by default the base: give what the compressor was trained on.
    base_texts, query_texts : sequence of str, optional
        To show the worst queries by; row numbers otherwise.
    judgements : sequence of mapping, optional
        For each query, base row -> grade: adds nDCG@k and MRR.
    history : mapping of str to sequence of mapping, optional
        Training records by tower, for the report.
    seed : int
    num_threads : int, optional
        FAISS threads.
    progress : callable, optional
        Called with the name of each step as it begins.

    Returns
    -------
    Evaluation

    Raises
    ------
    InputError
        Vectors, texts or judgements that do not fit.
    UsageError
        `k` larger than the base, or a baseline that is not known.

    Notes
    -----
    Truth is exact search by the embeddings. Codes and latents are searched by brute force too,
    so that the figure is that of the compression and not of an index's shortcuts.
    """
    b = check_vectors(base, dim=compressor.dim, metric=compressor.metric, what="base vectors")
    q = check_vectors(queries, dim=compressor.dim, metric=compressor.metric, what="queries")
    _check_lengths(base_texts, len(b), "base texts")
    _check_lengths(query_texts, len(q), "query texts")
    _check_lengths(judgements, len(q), "judgements")
    kinds = check_kinds(baselines)
    say = progress or (lambda step: None)
    say("exact search")
    truth = true_neighbors(q, b, k, metric=compressor.metric, num_threads=num_threads)
    task = _Task(b, q, truth, compressor.metric, seed, num_threads, say)

    latents = codes = None
    forms: dict[str, _Form] = {}
    if compressor.code_size:
        say("codes")
        codes, seconds = _timed(compressor.encode, b)
        forms["codes"] = _form(task, compressor, "codes", codes, compressor.code_size, seconds)
    if compressor.n_components:
        say("latents")
        latents, seconds = _timed(compressor.transform, b)
        size = 4 * compressor.n_components
        forms["latents"] = _form(task, compressor, "latents", latents, size, seconds)
    if not forms:
        raise InputError("the compressor has neither codes nor latents: fit it with one of them")

    main = "codes" if "codes" in forms else "latents"
    original = RecallRow("embeddings", "original", 4 * compressor.dim, 1.0, 1.0, 1.0)
    rows = [original, *(form.row for form in forms.values())]
    sizes = _curve_sizes(forms[main].row.bytes, original.bytes)
    curve = _channel_curve(task, sizes)
    if kinds:
        x = b if train is None else check_vectors(train, dim=compressor.dim, what="train")
        rows += _peer_rows(task, x, forms, kinds)
        if CURVE_PEER in kinds:
            curve += _peer_curve(task, x, sizes)
    relevance: list[RelevanceRow] = []
    if judgements is not None:
        exact = relevance_row(original.name, original.bytes, truth, judgements, k, seed)
        relevance = [exact] + [
            relevance_row(form.row.name, form.row.bytes, form.found, judgements, k, seed)
            for form in forms.values()
        ]
    say("statistics")
    return Evaluation(
        metric=compressor.metric,
        k=k,
        dim=compressor.dim,
        base_rows=len(b),
        query_rows=len(q),
        seed=seed,
        original_bytes=original.bytes,
        form=main,
        recall=rows,
        curve=curve,
        rerank=[point for form in forms.values() for point in _rerank(task, form)],
        reconstruction=_reconstructions(compressor, q),
        latents=latent_space(latents[:SAMPLE_ROWS]) if latents is not None else None,
        codes=code_use(codes) if codes is not None else None,
        relevance=relevance,
        history={name: [dict(r) for r in records] for name, records in (history or {}).items()},
        worst=worst_queries(
            truth, forms[main].found, forms[main].per_query, base_texts, query_texts
        ),
    )


def _check_lengths(values: Sequence[Any] | None, rows: int, what: str) -> None:
    if values is not None and len(values) != rows:
        raise InputError(f"there are {len(values)} {what} for {rows} vectors")


def _timed(function: Callable[[Any], Any], x: Floats) -> tuple[Any, float]:
    start = time.perf_counter()
    return in_blocks(function, x), time.perf_counter() - start


def _form(
    task: _Task, compressor: Compressor, kind: str, stored: Any, size: int, seconds: float
) -> _Form:
    search = search_codes if kind == "codes" else search_latents
    wanted = min(task.k * max(RERANK_FACTORS), len(task.base))
    found = search(compressor, stored, task.queries, wanted, num_threads=task.num_threads)
    per_query = recall_at_k(found, task.truth)
    row = RecallRow(
        kind,
        kind,
        size,
        *mean_with_ci(per_query, seed=task.seed),
        encode_rows_per_second=len(task.base) / max(seconds, 1e-9),
    )
    return _Form(row, found, per_query)


def _rerank(task: _Task, form: _Form) -> list[RerankPoint]:
    points = []
    for factor in RERANK_FACTORS:
        candidates = min(factor * task.k, form.found.shape[1])
        there = candidate_recall(form.found[:, :candidates], task.truth)
        points.append(RerankPoint(form.row.kind, candidates, float(there.mean())))
    return list(dict.fromkeys(points))


def _curve_sizes(size: int, original: int) -> list[int]:
    sizes = {size // 4, size // 2, size, 2 * size, 4 * size}
    return sorted(n for n in sizes if 1 <= n <= original)


def _channel_curve(task: _Task, sizes: list[int]) -> list[CurvePoint]:
    task.progress("Gaussian channel")
    scaled = unit_rows(task.base) if task.metric == "cosine" else task.base
    if not scaled.std(axis=0).any():
        return []
    channel = fit_channel(scaled)
    points = []
    for size in sizes:
        recall = channel_recall(
            channel,
            task.base,
            task.queries,
            task.truth,
            bits=8 * size,
            metric=task.metric,
            seed=task.seed,
            num_threads=task.num_threads,
        )
        points.append(CurvePoint("Gaussian channel", size, float(recall.mean())))
    return points


def _peer_rows(
    task: _Task, train: Floats, forms: dict[str, _Form], kinds: tuple[str, ...]
) -> list[RecallRow]:
    rows = []
    for name, form in forms.items():
        for kind in kinds:
            # Latents stay floats for other uses than search: PCA is what competes with them.
            rival = name == "codes" or kind == "pca"
            if rival and recipes(kind, form.row.bytes, task.base.shape[1], task.metric):
                peer = _baseline(task, kind, form.row.bytes)
                task.progress(peer.name)
                rows.append(_peer_row(task, peer.fit(train), form))
    return rows


def _baseline(task: _Task, kind: str, size: int) -> Baseline:
    return baseline(
        kind,
        size,
        dim=task.base.shape[1],
        metric=task.metric,
        seed=task.seed,
        num_threads=task.num_threads,
    )


def _peer_row(task: _Task, peer: Baseline, form: _Form) -> RecallRow:
    per_query = recall_at_k(peer.search(task.base, task.queries, task.k), task.truth)
    difference, low, high = mean_with_ci(per_query - form.per_query, seed=task.seed)
    row = RecallRow(
        peer.name, "peer", peer.bytes_per_vector, *mean_with_ci(per_query, seed=task.seed)
    )
    return replace(
        row,
        difference=difference,
        difference_low=low,
        difference_high=high,
        train_seconds=peer.train_seconds,
        encode_rows_per_second=len(task.base) / max(peer.encode_seconds, 1e-9),
        model_bytes=peer.model_bytes,
    )


def _peer_curve(task: _Task, train: Floats, sizes: list[int]) -> list[CurvePoint]:
    points = []
    for size in sizes:
        if recipes(CURVE_PEER, size, task.base.shape[1], task.metric):
            task.progress(f"PCA+SQ at {size} bytes")
            peer = _baseline(task, CURVE_PEER, size).fit(train)
            recall = recall_at_k(peer.search(task.base, task.queries, task.k), task.truth)
            points.append(CurvePoint("PCA+SQ", size, float(recall.mean())))
    return points


def _reconstructions(compressor: Compressor, queries: Floats) -> list[Any]:
    out = []
    if compressor.code_size:
        restored = in_blocks(lambda x: compressor.decode(compressor.encode(x)), queries)
        out.append(reconstruction("codes", queries, restored))
    if compressor.n_components:
        restored = in_blocks(
            lambda x: compressor.inverse_transform(compressor.transform(x)), queries
        )
        out.append(reconstruction("latents", queries, restored))
    return out
