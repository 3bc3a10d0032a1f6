from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from embedpress.errors import InputError, UsageError
from embedpress.evaluate.metrics import (
    candidate_recall,
    judgements_of,
    mean_with_ci,
    mrr,
    ndcg_at_k,
    recall_at_k,
)


def test_recall_by_hand():
    truth = np.array([[1, 2, 3], [4, 5, 6], [7, 8, 9]])
    found = np.array([[3, 1, 2, 0], [4, 0, 0, 5], [-1, -1, -1, 7]])
    np.testing.assert_allclose(recall_at_k(found, truth), [1, 1 / 3, 0])
    # All of the hits as candidates: the fourth column counts too.
    np.testing.assert_allclose(candidate_recall(found, truth), [1, 2 / 3, 1 / 3])


def test_missing_true_neighbors_are_left_out_of_the_share():
    truth = np.array([[1, 2, -1, -1]])
    found = np.array([[2, -1, -1, -1]])
    np.testing.assert_allclose(recall_at_k(found, truth), [0.5])
    with pytest.raises(InputError, match="query 0"):
        recall_at_k(found, np.full((1, 4), -1))


def test_an_id_found_twice_counts_once():
    np.testing.assert_allclose(recall_at_k([[1, 1, 1]], [[1, 2, 3]]), [1 / 3])


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 6), st.integers(1, 8), st.integers(0, 4), st.integers(0, 2**32 - 1))
def test_recall_is_the_set_definition(nq, k, extra, seed):
    rng = np.random.default_rng(seed)
    truth = np.stack([rng.permutation(12)[:k] for _ in range(nq)])
    found = np.stack([rng.permutation(16)[: k + extra] for _ in range(nq)])
    wanted = [len(set(f[:k]) & set(t)) / k for f, t in zip(found, truth, strict=True)]
    np.testing.assert_allclose(recall_at_k(found, truth), wanted)
    shuffled = truth[:, rng.permutation(k)]
    np.testing.assert_allclose(recall_at_k(found, shuffled), wanted)


@pytest.mark.parametrize(
    ("found", "truth"),
    [
        ([[1, 2]], [[1, 2, 3]]),
        ([[1, 2], [3, 4]], [[1, 2]]),
        ([1, 2], [1, 2]),
        ([[1.0]], [[1]]),
        (np.zeros((2, 0), int), np.zeros((2, 0), int)),
    ],
)
def test_recall_refuses_what_does_not_fit(found, truth):
    with pytest.raises(InputError):
        recall_at_k(found, truth)


def test_interval_of_constant_figures_has_no_width():
    assert mean_with_ci([0.25] * 9) == (0.25, 0.25, 0.25)


def test_interval_agrees_with_the_normal_approximation():
    x = np.random.default_rng(0).binomial(10, 0.7, 2000) / 10
    mean, low, high = mean_with_ci(x, seed=3)
    half = 1.96 * x.std() / math.sqrt(len(x))
    assert mean == pytest.approx(x.mean())
    assert low == pytest.approx(mean - half, abs=0.1 * half)
    assert high == pytest.approx(mean + half, abs=0.1 * half)
    wide = mean_with_ci(x, confidence=0.99, seed=3)
    assert wide[1] < low < high < wide[2]


def test_interval_is_that_of_resampling_rows():
    # Continuous values have a category each: the multinomial must still be the bootstrap.
    x = np.random.default_rng(1).exponential(size=60)
    rng = np.random.default_rng(2)
    means = x[rng.integers(60, size=(40_000, 60))].mean(axis=1)
    got = mean_with_ci(x, resamples=40_000, seed=5)[1:]
    np.testing.assert_allclose(got, np.quantile(means, [0.025, 0.975]), atol=0.015)


def test_interval_repeats_with_its_seed_only():
    x = np.random.default_rng(0).uniform(size=50)
    assert mean_with_ci(x, seed=1) == mean_with_ci(x, seed=1)
    assert mean_with_ci(x, seed=1) != mean_with_ci(x, seed=2)


def test_interval_refuses_undefined_figures():
    with pytest.raises(InputError, match="NaN"):
        mean_with_ci([0.5, np.nan])
    with pytest.raises(InputError):
        mean_with_ci([])
    with pytest.raises(UsageError):
        mean_with_ci([1.0], confidence=95)


def test_ndcg_by_hand():
    judged = [{"a": 3, "b": 2, "c": 1}, {"z": 1}, {"y": 0}, {"q": 1}]
    found = [["b", "x", "a"], ["z", "z", "x"], ["y", "x", "z"], ["x", "y", "z"]]
    ideal = 3 + 2 / math.log2(3) + 1 / 2
    got = ndcg_at_k(found, judged, 3)
    np.testing.assert_allclose(got, [(2 + 3 / 2) / ideal, 1, np.nan, 0])
    # Only the first two places: ideal and gain shrink alike.
    assert ndcg_at_k(found, judged, 2)[0] == pytest.approx(2 / (3 + 2 / math.log2(3)))
    np.testing.assert_allclose(mrr(found, judged, 3), [1, 1, np.nan, 0])


def test_mrr_is_the_rank_of_the_first_relevant():
    judged = [{5: 1}, {5: 1}, {5: 1, 6: 2}]
    found = np.array([[1, 2, 5, 6], [1, 2, 3, 5], [1, 6, 5, 2]])
    np.testing.assert_allclose(mrr(found, judged, 3), [1 / 3, 0, 1 / 2])
    np.testing.assert_allclose(mrr(found, judged), [1 / 3, 1 / 4, 1 / 2])


def test_a_perfect_ranking_has_ndcg_one_whatever_its_length():
    judged = [{i: float(g) for i, g in enumerate([3, 3, 2, 1, 1, 0])}]
    for k in (1, 3, 6, 9):
        np.testing.assert_allclose(ndcg_at_k([[0, 1, 2, 3, 4, 5]], judged, k), [1])


def test_judgements_from_columns():
    got = judgements_of([0, 2, 2, 2], [7, 8, 9, 8], [1, 0, 2, 3], queries=3)
    assert got == [{7: 1.0}, {}, {8: 3.0, 9: 2.0}]
    with pytest.raises(InputError, match="below 2"):
        judgements_of([0, 2], [1, 1], [1, 1], queries=2)
    with pytest.raises(InputError):
        judgements_of([0], [1, 1], [1, 1], queries=2)
