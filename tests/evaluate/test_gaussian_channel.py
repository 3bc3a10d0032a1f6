from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from embedpress.errors import InputError, UsageError
from embedpress.evaluate.channel import channel_recall, fit_channel, rate_distortion, water_level
from embedpress.evaluate.exact import unit_rows
from embedpress.evaluate.metrics import true_neighbors


def test_water_level_by_hand():
    # Variances 16 and 1: up to 2 bits go to the first alone, with theta 16 / 4^bits.
    assert water_level([1, 16], 0) == pytest.approx(16)
    assert water_level([1, 16], 1) == pytest.approx(4)
    assert water_level([1, 16], 2) == pytest.approx(1)
    # From then on two components share: R = log2(16 / theta^2) / 2.
    assert water_level([1, 16], 3) == pytest.approx(0.5)
    assert rate_distortion([1, 16], 0) == pytest.approx(17)
    assert rate_distortion([1, 16], 1) == pytest.approx(5)
    assert rate_distortion([1, 16], 3) == pytest.approx(1)


def test_equal_variances_share_the_bits():
    assert rate_distortion(np.ones(8), 16) == pytest.approx(8 * 2**-4)


@settings(max_examples=80, deadline=None)
@given(
    st.lists(st.floats(1e-6, 1e4), min_size=1, max_size=30),
    st.floats(0, 300),
)
def test_the_level_spends_the_bits(variances, bits):
    v = np.array(variances)
    theta = water_level(v, bits)
    assert np.maximum(0, np.log2(v / theta) / 2).sum() == pytest.approx(bits, rel=1e-6, abs=1e-6)


def test_zero_variances_cost_nothing():
    assert water_level([4, 0, 0], 1) == pytest.approx(water_level([4], 1))


@pytest.mark.parametrize("bad", [[], [0, 0], [1, -1], [1, np.nan]])
def test_variances_that_cannot_be(bad):
    with pytest.raises(InputError):
        water_level(bad, 1)


def test_bits_that_cannot_be():
    for bits in (-1, np.inf, np.nan):
        with pytest.raises(UsageError):
            water_level([1], bits)


def gaussian(n, seed):
    rng = np.random.default_rng(seed)
    turn = np.linalg.qr(np.random.default_rng(7).normal(size=(16, 16)))[0]
    return np.asarray(rng.normal(size=(n, 16)) * 0.8 ** np.arange(16) @ turn + 3, np.float32)


def test_fit_finds_mean_variances_and_basis():
    x = gaussian(4000, 0)
    channel = fit_channel(x)
    np.testing.assert_allclose(channel.mean, x.mean(axis=0), atol=1e-5)
    np.testing.assert_allclose(
        channel.variances, np.linalg.eigvalsh(np.cov(x.T))[::-1], rtol=1e-4, atol=1e-8
    )
    rebuilt = channel.basis * channel.variances @ channel.basis.T
    np.testing.assert_allclose(rebuilt, np.cov(x.T), atol=1e-4)


@pytest.mark.parametrize("bits", [2, 10, 40])
def test_the_channel_has_the_distortion_of_its_rate(bits):
    x = gaussian(6000, 1)
    channel = fit_channel(x)
    received = channel.transmit(x, bits, seed=0)
    error = ((received - x) ** 2).sum(axis=1).mean()
    assert error == pytest.approx(channel.distortion(bits), rel=0.03)
    # Reconstructions keep less than all variance: what is lost is the distortion.
    assert received.var(axis=0).sum() == pytest.approx(
        channel.variances.sum() - channel.distortion(bits), rel=0.03
    )


def test_no_bits_leave_the_mean():
    x = gaussian(100, 2)
    channel = fit_channel(x)
    np.testing.assert_allclose(channel.transmit(x, 0), np.tile(channel.mean, (100, 1)), atol=1e-5)


def test_recall_rises_with_the_rate_to_one():
    base, queries = gaussian(1000, 3), gaussian(60, 4)
    for metric in ("ip", "l2", "cosine"):
        channel = fit_channel(unit_rows(base) if metric == "cosine" else base)
        truth = true_neighbors(queries, base, 5, metric=metric)
        recalls = [
            channel_recall(channel, base, queries, truth, bits=b, metric=metric).mean()
            for b in (4, 30, 100, 300)
        ]
        assert recalls == sorted(recalls)
        assert recalls[0] < 0.7
        assert recalls[-1] > 0.99


def test_the_seed_decides():
    x = gaussian(50, 5)
    channel = fit_channel(x)
    one = channel.transmit(x, 20, seed=1)
    np.testing.assert_array_equal(one, channel.transmit(x, 20, seed=1))
    assert not np.array_equal(one, channel.transmit(x, 20, seed=2))


def test_nothing_to_compress_is_said():
    with pytest.raises(InputError, match="same"):
        fit_channel(np.ones((5, 3), np.float32))
    with pytest.raises(InputError, match="two rows"):
        fit_channel(np.ones((1, 3), np.float32))
