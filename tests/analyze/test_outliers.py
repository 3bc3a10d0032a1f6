from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from embedpress.analyze.outliers import (
    contamination_threshold,
    false_positive_threshold,
    reconstruction_error,
)
from embedpress.errors import InputError, UsageError


def test_errors_by_hand():
    x = np.array([[1, 0], [0, 2], [3, 4]], np.float32)
    y = np.array([[2, 0], [2, 0], [-3, -4]], np.float32)
    np.testing.assert_allclose(reconstruction_error(x, y, "cosine"), [0, 1, 2], atol=1e-7)
    for metric in ("ip", "l2"):
        np.testing.assert_allclose(reconstruction_error(x, y, metric), [1, 8**0.5, 10])
    with pytest.raises(InputError, match="2 reconstructions of 3"):
        reconstruction_error(x, y[:2], "l2")
    with pytest.raises(UsageError):
        reconstruction_error(x, y, "l1")


def test_a_share_takes_the_highest():
    scores = np.array([5.0, 1, 4, 2, 3, 0, 0, 0, 0, 0])
    threshold = contamination_threshold(scores, 0.3)
    np.testing.assert_array_equal(np.flatnonzero(scores > threshold), [0, 2, 4])
    assert threshold == np.quantile(scores, 0.7)
    assert contamination_threshold(scores, "0.3") == threshold


def test_no_share_takes_none():
    assert contamination_threshold([1.0, 9.0], 0) == np.inf


@settings(max_examples=80, deadline=None)
@given(
    st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=60, unique=True),
    st.floats(1e-3, 0.5),
)
def test_the_number_is_that_of_the_share(scores, share):
    taken = (np.array(scores) > contamination_threshold(scores, share)).sum()
    assert abs(taken - share * (len(scores) - 1)) <= 1


def test_auto_is_the_robust_z_score():
    scores = np.random.default_rng(0).normal(10, 2, 20_000)
    scores[:5] = [40, 50, 60, 70, 18.5]
    threshold = contamination_threshold(scores, "auto")
    # 3.5 standard deviations of what most of the scores are.
    assert threshold == pytest.approx(17, abs=0.15)
    assert (scores[:5] > threshold).all()
    assert (scores > threshold).sum() < 20
    by_hand = np.median(scores) + 3.5 * np.median(np.abs(scores - np.median(scores))) / 0.6745
    assert threshold == pytest.approx(by_hand)


def test_auto_where_most_scores_are_equal():
    scores = np.array([1.0] * 90 + [1.1] * 9 + [50.0])
    np.testing.assert_array_equal(np.flatnonzero(scores > contamination_threshold(scores)), [99])
    assert contamination_threshold([3.0] * 10) == 3


def test_a_false_positive_rate_takes_the_conformal_rank():
    scores = np.random.default_rng(0).permutation(99).astype(float)
    # Of 99 scores the 95th of 100 places: a new one lies above it in 5 of 100 cases.
    assert false_positive_threshold(scores, 0.05) == 94
    assert false_positive_threshold(scores, 0.01) == 98
    with pytest.raises(UsageError, match="needs 999 held-out vectors, and there are 99"):
        false_positive_threshold(scores, 0.001)


@settings(max_examples=40, deadline=None)
@given(st.integers(20, 200), st.floats(0.06, 0.5), st.integers(0, 99))
def test_the_rate_is_kept_on_average(n, rate, seed):
    rng = np.random.default_rng(seed)
    flagged = [
        (rng.gamma(2, size=50) > false_positive_threshold(rng.gamma(2, size=n), rate)).mean()
        for _ in range(60)
    ]
    assert np.mean(flagged) <= rate + 4 * np.std(flagged) / 60**0.5


@pytest.mark.parametrize("rate", [0, 1, -0.1, np.nan, "0.1", None])
def test_rates_that_cannot_be(rate):
    with pytest.raises(UsageError, match="false_positive_rate"):
        false_positive_threshold([1.0] * 100, rate)


@pytest.mark.parametrize("share", [-0.1, 0.51, 1, np.nan, "many", None])
def test_shares_that_cannot_be(share):
    with pytest.raises(UsageError, match="contamination"):
        contamination_threshold([1.0, 2.0], share)


@pytest.mark.parametrize("scores", [[], [[1.0]], [1.0, np.nan], [np.inf]])
def test_scores_that_cannot_be(scores):
    for threshold in (contamination_threshold, false_positive_threshold):
        with pytest.raises(InputError):
            threshold(scores, 0.1)
