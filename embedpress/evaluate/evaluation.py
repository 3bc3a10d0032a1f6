"""How much of the search results a compressor keeps, measured on arrays."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from embedpress.errors import InputError
from embedpress.evaluate.channel import channel_recall, fit_channel
from embedpress.evaluate.exact import Floats, Ids, true_neighbors, unit_rows
from embedpress.evaluate.forms import (
    Compressor,
    NestsLatents,
    in_blocks,
    reordered,
    search_codes,
    search_latents,
)
from embedpress.evaluate.index_loss import IndexSearch, index_loss
from embedpress.evaluate.metrics import Judgements, candidate_recall, mean_with_ci, recall_at_k
from embedpress.evaluate.neighbourhood import SAMPLE_ROWS as COMPARED_ROWS
from embedpress.evaluate.neighbourhood import neighbourhoods
from embedpress.evaluate.peers import CURVE_PEER, peer_curve, peers_of
from embedpress.evaluate.queries import relevance_row, worst_queries
from embedpress.evaluate.recipes import check_kinds
from embedpress.evaluate.result import (
    CurvePoint,
    Evaluation,
    Neighbourhood,
    RecallRow,
    Reconstruction,
    RelevanceRow,
    RerankPoint,
)
from embedpress.evaluate.statistics import code_use, latent_space, reconstruction
from embedpress.evaluate.task import Form, Task
from embedpress.index.candidates import OVERSAMPLE, RerankingCompressor
from embedpress.vectors.check import check_vectors

RERANK_FACTORS = (1, 2, 5, 10, 20)
SAMPLE_ROWS = 20_000
DEPTHS = (1, 10, 100)
RERANKED = "codes, reranked"


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
    index: IndexSearch | None = None,
    whole_texts: bool = False,
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
    index : IndexSearch, optional
        A real index over these very base rows: tells what is lost by it, apart from what is
        lost by compression.
    whole_texts : bool
        Do not shorten texts, which are names of photos.
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
    depths = tuple(sorted({d for d in (*DEPTHS, k) if d <= len(b)}))
    deepest = max(k, *depths)
    truth = true_neighbors(q, b, deepest, metric=compressor.metric, num_threads=num_threads)
    task = Task(b, q, truth, k, depths, compressor.metric, seed, num_threads, say)

    latents = codes = None
    forms: dict[str, Form] = {}
    if compressor.code_size:
        say("codes")
        codes, seconds = _timed(compressor.encode, b)
        found, scanned = _search(task, compressor, "codes", codes)
        forms["codes"] = _form(task, found, "codes", compressor.code_size, seconds)
        if isinstance(compressor, RerankingCompressor) and compressor.reranks:
            say("reranker")
            again = reordered(compressor, codes, q, found, scanned, OVERSAMPLE * k)
            forms[RERANKED] = _again(task, forms["codes"], RERANKED, again)
    if compressor.n_components:
        say("latents")
        latents, seconds = _timed(compressor.transform, b)
        size = 4 * compressor.n_components
        found, _ = _search(task, compressor, "latents", latents)
        forms["latents"] = _form(task, found, "latents", size, seconds)
        nested = compressor.latent_sizes[:-1] if isinstance(compressor, NestsLatents) else ()
        for n in reversed(nested):
            beginning = np.ascontiguousarray(latents[:, :n])
            found, _ = _search(task, compressor, "latents", beginning)
            form = _form(task, found, "latents", 4 * n, seconds)
            row = replace(form.row, name=f"latents, first {n}")
            forms[row.name] = replace(form, row=row)
    if not forms:
        raise InputError("the compressor has neither codes nor latents: fit it with one of them")

    main = "codes" if "codes" in forms else "latents"
    whole = [forms[kind] for kind in ("codes", "latents") if kind in forms]
    original = RecallRow("embeddings", "original", 4 * compressor.dim, 1.0, 1.0, 1.0)
    rows = [original, *(form.row for form in forms.values())]
    sizes = _curve_sizes(forms[main].row.bytes, original.bytes)
    curve = _channel_curve(task, sizes)
    peers: list[Form] = []
    if kinds:
        x = b if train is None else check_vectors(train, dim=compressor.dim, what="train")
        rivals = {name: form for name, form in forms.items() if name != RERANKED}
        peers = peers_of(task, x, rivals, kinds)
        rows += [peer.row for peer in peers]
        if CURVE_PEER in kinds:
            curve += peer_curve(task, x, sizes)
    # All that was searched, as what it is called, its bytes and its hits.
    searches = [(original.name, original.bytes, truth)]
    searches += [(one.row.name, one.row.bytes, one.found) for one in (*forms.values(), *peers)]
    relevance: list[RelevanceRow] = []
    if judgements is not None:
        relevance = [relevance_row(*search, judgements, k, seed) for search in searches]
    loss = None
    if index is not None:
        say("index")
        if index.form not in forms:
            raise InputError(f"the index holds {index.form}, which this compressor does not give")
        loss = index_loss(task, index, forms[index.form])
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
        depths=[one for search in searches for one in task.at_depths(*search)],
        curve=curve,
        index=loss,
        rerank=[point for form in whole for point in _rerank(task, form)],
        reconstruction=_reconstructions(compressor, q),
        neighbourhoods=_neighbourhoods(task, compressor),
        latents=latent_space(latents[:SAMPLE_ROWS]) if latents is not None else None,
        codes=code_use(codes) if codes is not None else None,
        relevance=relevance,
        history={name: [dict(r) for r in records] for name, records in (history or {}).items()},
        worst=worst_queries(
            task.truth,
            forms[main].found,
            forms[main].per_query,
            base_texts,
            query_texts,
            whole=whole_texts,
        ),
    )


def _check_lengths(values: Sequence[Any] | None, rows: int, what: str) -> None:
    if values is not None and len(values) != rows:
        raise InputError(f"there are {len(values)} {what} for {rows} vectors")


def _timed(function: Callable[[Any], Any], x: Floats) -> tuple[Any, float]:
    start = time.perf_counter()
    return in_blocks(function, x), time.perf_counter() - start


def _search(task: Task, compressor: Compressor, kind: str, stored: Any) -> tuple[Ids, Floats]:
    search = search_codes if kind == "codes" else search_latents
    wanted = max(task.deepest, min(task.k * max(RERANK_FACTORS), len(task.base)))
    return search(compressor, stored, task.queries, wanted, num_threads=task.num_threads)


def _form(task: Task, found: Ids, kind: str, size: int, seconds: float) -> Form:
    per_query = recall_at_k(found, task.truth)
    row = RecallRow(
        kind,
        kind,
        size,
        *mean_with_ci(per_query, seed=task.seed),
        encode_rows_per_second=len(task.base) / max(seconds, 1e-9),
    )
    return Form(row, found, per_query)


def _again(task: Task, form: Form, name: str, found: Ids) -> Form:
    """What was found with a form, in another order."""
    per_query = recall_at_k(found, task.truth)
    recall, low, high = mean_with_ci(per_query, seed=task.seed)
    row = replace(form.row, name=name, recall=recall, low=low, high=high)
    return Form(row, found, per_query)


def _rerank(task: Task, form: Form) -> list[RerankPoint]:
    points = []
    for factor in RERANK_FACTORS:
        candidates = min(factor * task.k, form.found.shape[1])
        there = candidate_recall(form.found[:, :candidates], task.truth)
        points.append(RerankPoint(form.row.kind, candidates, float(there.mean())))
    return list(dict.fromkeys(points))


def _curve_sizes(size: int, original: int) -> list[int]:
    sizes = {size // 4, size // 2, size, 2 * size, 4 * size}
    return sorted(n for n in sizes if 1 <= n <= original)


def _channel_curve(task: Task, sizes: list[int]) -> list[CurvePoint]:
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


def _reconstructions(compressor: Compressor, queries: Floats) -> list[Reconstruction]:
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


def _neighbourhoods(task: Task, compressor: Compressor) -> list[Neighbourhood]:
    """Codes by what they restore, latents as they are, on a sample of the base."""
    drawn = np.random.default_rng(task.seed).permutation(len(task.base))[:COMPARED_ROWS]
    x = task.base[np.sort(drawn)]
    out: list[Neighbourhood] = []
    if compressor.code_size:
        restored = in_blocks(lambda rows: compressor.decode(compressor.encode(rows)), x)
        out += neighbourhoods("codes", x, restored, metric=task.metric)
    if compressor.n_components:
        latents = in_blocks(compressor.transform, x)
        out += neighbourhoods("latents", x, latents, metric=task.metric)
    return out
