from __future__ import annotations

import numpy as np
import pytest
from samples import curved
from sklearn.decomposition import PCA

from embedpress.autoencoder.start import (
    balanced_groups,
    principal_axes,
    residual_codebooks,
    rotation,
)


def test_axes_are_those_of_pca(embeddings: np.ndarray) -> None:
    axes, mean, variance = principal_axes(embeddings, 10)
    pca = PCA(10, svd_solver="full").fit(embeddings.astype(np.float64))
    np.testing.assert_allclose(mean, pca.mean_, atol=1e-5)
    np.testing.assert_allclose(variance, pca.explained_variance_, rtol=1e-4)
    np.testing.assert_allclose(np.abs((axes * pca.components_).sum(axis=1)), 1, atol=1e-3)
    assert (axes[np.arange(10), np.abs(axes).argmax(axis=1)] > 0).all()


def test_axes_far_from_the_origin() -> None:
    x = curved(500) + np.float32(300)
    axes, _, variance = principal_axes(x, 5)
    pca = PCA(5, svd_solver="full").fit(x.astype(np.float64))
    np.testing.assert_allclose(variance, pca.explained_variance_, rtol=1e-3)
    np.testing.assert_allclose(np.abs((axes * pca.components_).sum(axis=1)), 1, atol=1e-2)


def test_fewer_rows_than_axes() -> None:
    axes, _, variance = principal_axes(curved(4), 10)
    np.testing.assert_allclose(axes @ axes.T, np.eye(10), atol=1e-5)
    assert (variance[:3] > 1e-3).all()
    assert (variance[3:] < 1e-5).all()


def test_groups_share_the_variance_out() -> None:
    variance = (0.8 ** np.arange(32)).astype(np.float32)
    groups = balanced_groups(variance, 4)
    assert sorted(axis for group in groups for axis in group) == list(range(32))
    assert [len(group) for group in groups] == [8] * 4
    logs = [np.log(variance[group]).sum() for group in groups]
    in_order = [np.log(variance[i * 8 : (i + 1) * 8]).sum() for i in range(4)]
    assert np.ptp(logs) < 0.1 * np.ptp(in_order)


def test_groups_of_data_without_variance() -> None:
    groups = balanced_groups(np.zeros(6, np.float32), 3)
    assert sorted(axis for group in groups for axis in group) == list(range(6))


def test_rotation_keeps_distances(embeddings: np.ndarray) -> None:
    axes, mean = rotation(embeddings, 32, 4)
    z = (embeddings - mean) @ axes.T
    np.testing.assert_allclose(
        np.linalg.norm(z[:50] - z[50:100], axis=1),
        np.linalg.norm(embeddings[:50] - embeddings[50:100], axis=1),
        rtol=1e-4,
    )


def test_every_stage_lowers_the_error() -> None:
    z = np.random.default_rng(0).normal(size=(600, 6)).astype(np.float32)
    books = residual_codebooks(z, 3, 2, seed=0)
    assert books.shape == (3, 2, 256, 3)
    residual, errors = z.reshape(-1, 2, 3).copy(), []
    for stage in range(3):
        for group in range(2):
            part = residual[:, group]
            distances = np.square(part[:, None] - books[stage, group][None]).sum(axis=2)
            part -= books[stage, group][distances.argmin(axis=1)]
        errors.append(float(np.square(residual).sum(axis=(1, 2)).mean()))
    assert errors[0] < 0.1 * np.square(z).sum(axis=1).mean()
    assert errors[1] < errors[0] / 3
    assert errors[2] < errors[1]


@pytest.mark.parametrize("n", [1, 2, 100, 256])
def test_no_more_points_than_codewords_are_codewords_themselves(n: int) -> None:
    z = np.random.default_rng(0).normal(size=(n, 4)).astype(np.float32)
    books = residual_codebooks(z, 1, 2, seed=0)
    for group in range(2):
        words = {tuple(row) for row in books[0, group]}
        assert words == {tuple(row) for row in z[:, 2 * group : 2 * group + 2]}


def test_codebooks_follow_the_seed() -> None:
    z = np.random.default_rng(0).normal(size=(700, 4)).astype(np.float32)
    first, again, other = (residual_codebooks(z, 1, 1, seed=seed) for seed in (0, 0, 1))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)
