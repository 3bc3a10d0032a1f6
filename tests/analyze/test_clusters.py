from __future__ import annotations

import faiss
import numpy as np
import pytest

from embedpress.analyze.cluster import agreement, choose_n_clusters, cluster
from embedpress.errors import InputError, UsageError


def blobs(k, n=900, dim=16, *, seed=0, spread=4.0):
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(k, dim)) * spread
    labels = rng.integers(k, size=n)
    return np.asarray(centres[labels] + rng.normal(size=(n, dim)), np.float32), labels


@pytest.mark.parametrize("spherical", [True, False])
def test_separate_clusters_are_found(spherical):
    x, labels = blobs(6)
    found = cluster(x, 6, spherical=spherical)
    assert agreement(labels, found.labels) == pytest.approx({"nmi": 1, "ari": 1, "purity": 1})
    assert (np.diff(found.sizes) <= 0).all()
    np.testing.assert_array_equal(np.bincount(found.labels), found.sizes)
    assert found.silhouettes == {}


def test_the_parts_belong_together():
    x, _ = blobs(5, seed=1)
    found = cluster(x, 5, spherical=False, n_typical=4)
    squared = ((x[:, None] - found.centroids[None]) ** 2).sum(axis=2)
    np.testing.assert_array_equal(found.labels, squared.argmin(axis=1))
    assert found.objective == pytest.approx(squared.min(axis=1).mean(), rel=1e-4)
    for number, rows in enumerate(found.typical):
        own = np.flatnonzero(found.labels == number)
        wanted = own[np.argsort(squared[own, number], kind="stable")][:4]
        np.testing.assert_array_equal(rows, wanted)


def test_spherical_looks_at_directions_only():
    x, _ = blobs(4, seed=2)
    lengths = np.random.default_rng(0).uniform(0.1, 30, (len(x), 1)).astype(np.float32)
    one, other = cluster(x, 4), cluster(x * lengths, 4)
    assert agreement(one.labels, other.labels)["ari"] == pytest.approx(1)
    np.testing.assert_allclose(np.linalg.norm(one.centroids, axis=1), 1, rtol=1e-5)


@pytest.mark.parametrize("k", [3, 5, 9])
def test_the_number_of_clusters_is_found(k):
    x, labels = blobs(k, n=1200, seed=k)
    found = cluster(x, spherical=False)
    assert len(found.sizes) == k
    assert agreement(labels, found.labels)["ari"] > 0.99
    best = max(found.silhouettes.values())
    assert found.silhouettes[k] == best


def test_a_choice_repeats():
    x, _ = blobs(4, n=400)
    assert choose_n_clusters(x, seed=3) == choose_n_clusters(x, seed=3)


def test_few_or_equal_rows_are_one_cluster():
    rng = np.random.default_rng(0)
    assert choose_n_clusters(rng.normal(size=(19, 4)).astype(np.float32))[0] == 1
    same = cluster(np.ones((50, 3), np.float32))
    assert same.sizes.tolist() == [50]
    assert same.objective == pytest.approx(0, abs=1e-6)
    one = cluster(np.ones((1, 3), np.float32))
    assert (one.labels.tolist(), one.typical[0].tolist()) == ([0], [0])


def test_one_cluster_is_the_mean():
    x, _ = blobs(3, n=200)
    found = cluster(x, 1, spherical=False)
    np.testing.assert_allclose(found.centroids[0], x.mean(axis=0), atol=1e-4)


def test_no_cluster_is_empty():
    x = np.eye(3, dtype=np.float32).repeat(20, axis=0)
    found = cluster(x, 10, spherical=False)
    assert (found.sizes > 0).all()
    assert found.sizes.sum() == 60
    assert len(found.centroids) == len(found.sizes) == len(found.typical)
    as_many = cluster(x + np.arange(60, dtype=np.float32)[:, None], 60, spherical=False)
    assert as_many.sizes.tolist() == [1] * 60


def test_the_seed_decides_and_threads_are_put_back():
    rng = np.random.default_rng(5)
    x = rng.normal(size=(500, 8)).astype(np.float32)
    before = faiss.omp_get_max_threads()
    one = cluster(x, 12, seed=1, num_threads=1)
    assert faiss.omp_get_max_threads() == before
    np.testing.assert_array_equal(one.labels, cluster(x, 12, seed=1, num_threads=1).labels)
    assert not np.array_equal(one.labels, cluster(x, 12, seed=2, num_threads=1).labels)


def test_bad_requests():
    x, _ = blobs(2, n=30)
    for k in (0, 31, -1):
        with pytest.raises(UsageError, match="n_clusters"):
            cluster(x, k)
    broken = x.copy()
    broken[7] = 0
    with pytest.raises(InputError, match="row 7"):
        cluster(broken, 2)
    assert len(cluster(broken, 2, spherical=False).labels) == 30


def test_agreement_by_hand():
    truth = ["cat", "cat", "dog", "dog", "dog", "cow"]
    got = agreement(truth, [0, 0, 0, 1, 1, 1])
    assert got["purity"] == pytest.approx(4 / 6)
    assert agreement(truth, [5, 5, 7, 7, 7, 9]) == pytest.approx({"nmi": 1, "ari": 1, "purity": 1})
    assert agreement([1, None, "x"], [0, 1, 2])["purity"] == 1
    with pytest.raises(InputError, match="3 true labels"):
        agreement([1, 2, 3], [1, 2])
    with pytest.raises(InputError):
        agreement([], np.zeros(0, int))
