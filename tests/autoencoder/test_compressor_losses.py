from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.special import softmax

from embedpress.autoencoder.losses import neighbor_distillation, reconstruction, similarity
from embedpress.autoencoder.neighbors import Neighborhoods, neighbor_lists


def test_l2_scores_order_as_distances_do() -> None:
    rng = np.random.default_rng(0)
    queries, documents = rng.normal(size=(4, 5)), rng.normal(size=(30, 5))
    scores = similarity(torch.from_numpy(queries), torch.from_numpy(documents), "l2").numpy()
    distances = np.square(queries[:, None] - documents[None]).sum(axis=2)
    assert np.array_equal(np.argsort(-scores), np.argsort(distances))
    np.testing.assert_allclose(-2 * scores + np.square(queries).sum(1)[:, None], distances)


def test_distillation_is_the_divergence_without_oneself() -> None:
    rng = np.random.default_rng(0)
    teacher, student = rng.normal(size=(3, 6)), rng.normal(size=(3, 6))
    own = np.zeros((3, 6), bool)
    own[0, 2] = own[1, 5] = True
    expected = []
    for t, s, mine in zip(teacher, student, own, strict=True):
        p, q = softmax(t[~mine]), softmax(s[~mine])
        expected.append((p * np.log(p / q)).sum())
    tensors = [torch.from_numpy(a) for a in (teacher, student, own)]
    assert neighbor_distillation(*tensors).item() == pytest.approx(np.mean(expected))
    same = neighbor_distillation(tensors[0], tensors[0] + 3, tensors[2])
    assert same.item() == pytest.approx(0, abs=1e-12)


def test_reconstruction_sums_dimensions_and_averages_rows() -> None:
    x = torch.tensor([[1.0, 2.0], [0.0, 0.0]])
    assert reconstruction(x, torch.zeros(2, 2)).item() == 2.5


@pytest.mark.parametrize("metric", ["cosine", "ip", "l2"])
def test_neighbor_lists_are_exact(metric: str) -> None:
    x = np.random.default_rng(0).normal(size=(60, 4)).astype(np.float32)
    if metric == "cosine":
        x /= np.linalg.norm(x, axis=1, keepdims=True)
    scores = -np.square(x[:, None] - x[None]).sum(axis=2) if metric == "l2" else x @ x.T
    lists = neighbor_lists(x, 7, metric=metric)
    expected = np.argsort(-scores, axis=1)[:, :7]
    assert [set(a) for a in lists.tolist()] == [set(b) for b in expected.tolist()]


def test_batches_are_neighborhoods() -> None:
    rng = np.random.default_rng(0)
    lists = rng.permutation(200).reshape(50, 4).astype(np.int32)[np.arange(200) % 50]
    neighborhoods = Neighborhoods(lists, seeds=3, anchors=5)
    assert neighborhoods.steps_per_epoch == 17
    drawn = neighborhoods.batches(np.random.default_rng(1))
    for _, (documents, anchors) in zip(range(20), drawn, strict=False):
        assert len(np.unique(documents)) == len(documents) <= 12
        assert len(np.unique(anchors)) == len(anchors) == min(5, len(documents))
        assert set(anchors) <= set(documents)
        whole = [set(line) for line in lists.tolist() if set(line) <= set(documents.tolist())]
        assert set().union(*whole) == set(documents)
