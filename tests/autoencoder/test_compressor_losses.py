from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from scipy.special import softmax

from embedpress.autoencoder.augment import mixed
from embedpress.autoencoder.losses import neighbor_distillation, reconstruction, similarity
from embedpress.autoencoder.neighbors import Neighborhoods, searcher
from embedpress.autoencoder.trainer import LENGTHS, Length


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
def test_batches_are_the_true_neighborhoods_of_their_seeds(metric: str) -> None:
    x = np.random.default_rng(0).normal(size=(90, 4)).astype(np.float32)
    if metric == "cosine":
        x /= np.linalg.norm(x, axis=1, keepdims=True)
    scores = -np.square(x[:, None] - x[None]).sum(axis=2) if metric == "l2" else x @ x.T
    nearest = np.argsort(-scores, axis=1)[:, :4]
    neighborhoods = Neighborhoods(x, metric, seeds=3, size=4, anchors=5)
    assert neighborhoods.steps_per_epoch == 8
    drawn = neighborhoods.batches(np.random.default_rng(1))
    for _, (documents, partners, anchors, _) in zip(range(70), drawn, strict=False):
        held = set(documents.tolist())
        assert len(held) == len(documents) <= 12
        assert len(set(anchors.tolist())) == len(anchors) == min(5, len(documents))
        assert set(anchors.tolist()) <= held
        whole = [set(near) for near in nearest.tolist() if set(near) <= held]
        assert set().union(*whole) == held
        for pair in zip(documents.tolist(), partners.tolist(), strict=True):
            assert any(set(pair) <= near for near in whole)


@pytest.mark.parametrize("metric", ["cosine", "ip", "l2"])
def test_torch_finds_the_neighbors_that_faiss_finds(metric: str) -> None:
    rng = np.random.default_rng(0)
    x, asked = (rng.normal(size=(n, 8)).astype(np.float32) for n in (300, 40))
    # What has a number is another device than the processor that FAISS searches on.
    by_faiss, by_torch = (searcher(x, metric, torch.device(d)) for d in ("cpu", "cpu:0"))
    found = by_torch(asked, 7)
    assert np.array_equal(found, by_faiss(asked, 7))
    scores = similarity(torch.from_numpy(asked), torch.from_numpy(x), metric).numpy()
    assert np.array_equal(found, np.argsort(-scores, axis=1)[:, :7])


def test_fewer_vectors_than_a_neighborhood() -> None:
    neighborhoods = Neighborhoods(np.eye(3, dtype=np.float32), "ip", seeds=16, size=64, anchors=512)
    documents, partners, anchors, _ = next(neighborhoods.batches(np.random.default_rng(0)))
    assert documents.tolist() == [0, 1, 2] == sorted(anchors.tolist())
    assert set(partners.tolist()) <= {0, 1, 2}
    assert neighborhoods.steps_per_epoch == 1


@pytest.mark.parametrize("metric", ["cosine", "ip", "l2"])
def test_mixed_vectors_lie_on_the_lines_through_both(metric: str) -> None:
    x, partners = F.normalize(torch.randn(2, 4000, 3, generator=torch.manual_seed(0)), dim=-1)
    step = mixed(x, partners, 0.2, metric) - x
    if metric == "cosine":
        torch.testing.assert_close((step + x).norm(dim=-1), torch.ones(4000))
        # On the plane of both: no part of it leaves along their cross product.
        across = torch.linalg.cross(x, partners)
        assert (step * across).sum(-1).abs().max() < 1e-5
        return
    towards = partners - x
    length = (step * towards).sum(-1) / towards.square().sum(-1)
    torch.testing.assert_close(step, length[:, None] * towards, atol=1e-5, rtol=1e-4)
    assert abs(float(length.mean())) < 0.02  # as often away as towards
    assert abs(float(length.std()) - 0.2) < 0.01


def test_no_mixing_gives_the_very_vectors() -> None:
    x = torch.randn(5, 3)
    assert mixed(x, x.flip(0), 0.0, "ip") is x


def test_a_training_without_epochs_makes_passes_and_never_too_few_steps() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(540, 4)).astype(np.float32)
    # Ten vectors a batch, so that an epoch is 54 steps.
    many = Neighborhoods(x, "ip", seeds=2, size=5, anchors=5)
    few = Neighborhoods(x[:10], "ip", seeds=2, size=5, anchors=5)
    asked = Neighborhoods(x[:10], "ip", seeds=2, size=5, anchors=5, queries=x)
    length = Length(passes=80, fewest_steps=600)
    assert length.steps(3, many) == 162
    assert length.steps(0, many) == 0
    assert length.steps(None, many) == 80 * 54
    assert length.steps(None, few) == 600
    assert length.steps(3, few) == 3
    # As many steps around sample queries as around vectors.
    assert length.steps(None, asked) == 1200
    assert LENGTHS["codes"].steps(None, few) == 1200 > LENGTHS["latents"].steps(None, few)
