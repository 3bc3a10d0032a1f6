from __future__ import annotations

import numpy as np
import pytest

from embedpress.evaluate.neighbourhood import neighbourhoods


def vectors(n=150, dim=6, seed=0):
    return np.random.default_rng(seed).normal(size=(n, dim)).astype(np.float32)


def test_the_figures_are_those_of_scikit_learn():
    manifold = pytest.importorskip("sklearn.manifold")
    x = vectors()
    z = np.ascontiguousarray(x[:, :2])
    for one in neighbourhoods("latents", x, z, metric="l2", ks=(3, 10, 40)):
        wanted = manifold.trustworthiness(x, z, n_neighbors=one.k)
        assert one.trustworthiness == pytest.approx(wanted, abs=1e-6)
        wanted = manifold.trustworthiness(z, x, n_neighbors=one.k)
        assert one.continuity == pytest.approx(wanted, abs=1e-6)


def test_directions_alone_count_under_the_cosine():
    x = vectors()
    longer = x * np.random.default_rng(1).uniform(0.1, 9, (len(x), 1)).astype(np.float32)
    for metric in ("cosine", "ip"):
        same = neighbourhoods("codes", x, longer, metric=metric)
        assert [(one.trustworthiness, one.continuity) for one in same] == [(1, 1)] * 4
        assert [one.k for one in same] == [5, 10, 20, 50]
    assert neighbourhoods("codes", x, longer, metric="l2")[0].trustworthiness < 0.95


def test_chance_is_about_a_half():
    one = neighbourhoods("codes", vectors(400), vectors(400, seed=9), metric="l2", ks=(10,))[0]
    assert one.trustworthiness == pytest.approx(0.5, abs=0.05)
    assert one.continuity == pytest.approx(0.5, abs=0.05)


def test_too_few_rows_have_no_figure():
    assert neighbourhoods("codes", vectors(8), vectors(8), metric="l2") == []
