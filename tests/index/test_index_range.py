from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from index_truth import exact_scores
from test_index_search import KINDS

from embedpress.autoencoder.estimator import Compressor
from embedpress.errors import UsageError
from embedpress.index.filter import filter_rows
from embedpress.index.search import open_index


@pytest.mark.parametrize(("what", "options"), KINDS, ids=str)
@pytest.mark.parametrize("factory", ["Flat", "IVF12"])
@pytest.mark.parametrize("expression", [None, 'label == "food"'])
def test_all_within_a_radius_are_found(
    built: Callable[..., Path],
    compressed: Callable[..., Path],
    saved: Callable[..., Path],
    fitted: Callable[..., Compressor],
    queries: np.ndarray,
    what: str,
    options: dict[str, Any],
    factory: str,
    expression: str | None,
) -> None:
    index = open_index(built(what, factory, **options), saved(**options), num_threads=1)
    truth = exact_scores(fitted, compressed(what, **options), queries, options)
    if expression is not None:
        truth[:, ~filter_rows(index.table, expression)] = -np.inf
    # Between the scores of two rows, so that rounding decides nothing.
    ordered = np.sort(truth[np.isfinite(truth)])
    middle = len(ordered) * 19 // 20
    gap = middle + int(np.argmax(np.diff(ordered[middle : middle + 50])))
    radius = float((ordered[gap] + ordered[gap + 1]) / 2)
    sign = -1 if options.get("metric") == "l2" else 1
    hits = index.range_search(queries, sign * radius, filter=expression, nprobe=12)
    assert len(hits.lims) == len(queries) + 1
    for (rows, scores), exact in zip(hits.lines(), truth, strict=True):
        assert set(rows.tolist()) == set(np.flatnonzero(exact > radius).tolist())
        assert (np.diff(sign * scores) <= 0).all()
        np.testing.assert_allclose(sign * scores, exact[rows], atol=1e-4 * np.abs(ordered).max())
    few = index.range_search(queries, sign * radius, filter=expression, nprobe=12, limit=3)
    for (rows, _), (most, _) in zip(few.lines(), hits.lines(), strict=True):
        assert np.array_equal(rows, most[:3])


@pytest.mark.parametrize("options", [{}, {"metric": "l2"}, {"metric": "ip", "groups": 2}], ids=str)
def test_the_tier_decides_who_is_within(
    built: Callable[..., Path],
    saved: Callable[..., Path],
    base: np.ndarray,
    queries: np.ndarray,
    options: dict[str, Any],
) -> None:
    index = open_index(built("codes", "Flat", "float32", **options), saved(**options))
    metric = options.get("metric", "cosine")
    best = index.search(queries, 20)
    radius = float(np.median(best.scores[:, 10]))
    hits = index.range_search(queries, radius)
    by_codes = index.range_search(queries, radius, rerank=False)
    for (rows, scores), (candidates, _), query in zip(
        hits.lines(), by_codes.lines(), queries, strict=True
    ):
        if metric == "l2":
            exact = np.square(base - query).sum(axis=1)
            inside = exact < radius
        else:
            scale = np.linalg.norm(base, axis=1) * np.linalg.norm(query)
            exact = base @ query / (scale if metric == "cosine" else 1)
            inside = exact > radius
        assert set(rows.tolist()) == set(candidates[inside[candidates]].tolist())
        np.testing.assert_allclose(scores, exact[rows], rtol=1e-3, atol=1e-4)


def test_records_within_a_radius(
    built: Callable[..., Path], saved: Callable[..., Path], queries: np.ndarray
) -> None:
    index = open_index(built(), saved())
    radius = float(index.search(queries, 5).scores[:, 4].max())
    hits = index.range_search(queries, radius)
    records = index.records(hits)
    for line, (rows, scores) in zip(records, hits.lines(), strict=True):
        assert [record["id"] for record in line] == [f"id {row}" for row in rows]
        assert [record["score"] for record in line] == scores.tolist()
    assert any(records)
    nothing = index.range_search(queries, 1e9)
    assert nothing.lims.tolist() == [0] * (len(queries) + 1)
    assert index.records(nothing) == [[]] * len(queries)
    assert index.range_search(queries, radius, filter="year < 0").lims[-1] == 0


def test_many_queries_are_asked_in_blocks(
    built: Callable[..., Path],
    saved: Callable[..., Path],
    queries: np.ndarray,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from embedpress.index import search

    index = open_index(built("codes", "IVF12"), saved())
    whole = index.range_search(queries, 0.5)
    monkeypatch.setattr(search, "_RANGE_BYTES", 12 * 500 * 4)
    blocks = index.range_search(queries, 0.5)
    assert np.array_equal(whole.lims, blocks.lims)
    assert np.array_equal(whole.rows, blocks.rows)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"radius": float("nan")}, "must be a finite number"),
        ({"radius": float("inf")}, "must be a finite number"),
        ({"radius": 1, "limit": 0}, "limit=0"),
        ({"radius": 1, "nprobe": 0}, "nprobe=0"),
        ({"radius": 1, "rerank": True}, "has no rerank tier"),
    ],
)
def test_radii_that_cannot_be(
    built: Callable[..., Path],
    saved: Callable[..., Path],
    queries: np.ndarray,
    arguments: dict[str, Any],
    message: str,
) -> None:
    with pytest.raises(UsageError, match=message):
        open_index(built(), saved()).range_search(queries, **arguments)
