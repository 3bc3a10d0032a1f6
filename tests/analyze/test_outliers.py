from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from embedpress.analyze.outliers import find_outliers, reconstruction_error
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
    got = find_outliers(scores, 0.3)
    np.testing.assert_array_equal(np.flatnonzero(got.labels), [0, 2, 4])
    assert got.threshold == 3
    np.testing.assert_array_equal(got.scores, scores)


def test_no_share_takes_none():
    got = find_outliers([1.0, 9.0], 0)
    assert not got.labels.any()
    assert got.threshold == np.inf


def test_a_small_share_takes_at_least_one_and_ties_go_by_row():
    got = find_outliers([7.0] * 5, 0.001)
    np.testing.assert_array_equal(got.labels, [True, False, False, False, False])


@settings(max_examples=80, deadline=None)
@given(
    st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=60),
    st.floats(1e-3, 0.5),
)
def test_the_number_is_that_of_the_share(scores, share):
    got = find_outliers(scores, share)
    assert got.labels.sum() == max(1, round(share * len(scores)))
    assert got.scores[got.labels].min() == got.threshold
    if not got.labels.all():
        assert got.scores[~got.labels].max() <= got.threshold


def test_auto_is_the_robust_z_score():
    scores = np.random.default_rng(0).normal(10, 2, 20_000)
    scores[:5] = [40, 50, 60, 70, 18.5]
    got = find_outliers(scores, "auto")
    # 3.5 standard deviations of what most of the scores are.
    assert got.threshold == pytest.approx(17, abs=0.15)
    assert got.labels[:5].all()
    assert got.labels.sum() < 20
    by_hand = np.median(scores) + 3.5 * np.median(np.abs(scores - np.median(scores))) / 0.6745
    assert got.threshold == pytest.approx(by_hand)


def test_auto_where_most_scores_are_equal():
    scores = np.array([1.0] * 90 + [1.1] * 9 + [50.0])
    got = find_outliers(scores)
    np.testing.assert_array_equal(np.flatnonzero(got.labels), [99])
    assert not find_outliers([3.0] * 10).labels.any()


@pytest.mark.parametrize("share", [-0.1, 0.51, 1, np.nan, "many", None])
def test_shares_that_cannot_be(share):
    with pytest.raises(UsageError, match="contamination"):
        find_outliers([1.0, 2.0], share)


@pytest.mark.parametrize("scores", [[], [[1.0]], [1.0, np.nan], [np.inf]])
def test_scores_that_cannot_be(scores):
    with pytest.raises(InputError):
        find_outliers(scores, 0.1)


def test_strangers_stand_out():
    rng = np.random.default_rng(0)
    axes = np.linalg.qr(rng.normal(size=(32, 4)))[0]
    known = rng.normal(size=(400, 4)) @ axes.T + 0.05 * rng.normal(size=(400, 32))
    x = np.concatenate([known, rng.normal(size=(8, 32))]).astype(np.float32)
    scores = reconstruction_error(x, x @ axes @ axes.T, "cosine")
    np.testing.assert_array_equal(
        np.flatnonzero(find_outliers(scores, 8 / 408).labels), range(400, 408)
    )
    assert find_outliers(scores, "auto").labels[400:].all()
