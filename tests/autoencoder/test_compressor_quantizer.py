from __future__ import annotations

import numpy as np
import pytest
import torch

from embedpress.autoencoder.quantizer import AdditiveQuantizer

SHAPES = [(1, 4, 3), (2, 2, 6), (4, 1, 12), (3, 2, 5)]


def books(stages: int, groups: int, width: int) -> np.ndarray:
    rng = np.random.default_rng(stages)
    scale = 0.5 ** np.arange(stages)[:, None, None, None]
    return (rng.normal(size=(stages, groups, 256, width)) * scale).astype(np.float32)


@pytest.mark.parametrize(("stages", "groups", "width"), SHAPES)
def test_codes_are_the_greedy_nearest_codewords(stages: int, groups: int, width: int) -> None:
    book = books(stages, groups, width)
    z = np.random.default_rng(5).normal(size=(200, groups * width)).astype(np.float32)
    codes = AdditiveQuantizer(torch.from_numpy(book)).assign(torch.from_numpy(z)).numpy()
    assert codes.shape == (200, stages * groups)
    residual = z.astype(np.float64).reshape(200, groups, width)
    for stage in range(stages):
        for group in range(groups):
            part = residual[:, group]
            distances = np.square(part[:, None] - book[stage, group].astype(float)).sum(axis=2)
            chosen = codes[:, stage * groups + group]
            assert np.array_equal(chosen, distances.argmin(axis=1))
            residual[:, group] = part - book[stage, group][chosen]


@pytest.mark.parametrize(("stages", "groups", "width"), SHAPES)
def test_lookup_sums_the_codewords(stages: int, groups: int, width: int) -> None:
    book = books(stages, groups, width)
    codes = np.random.default_rng(1).integers(0, 256, (30, stages * groups))
    found = AdditiveQuantizer(torch.from_numpy(book)).lookup(torch.from_numpy(codes))
    for row, code in zip(found.detach().numpy(), codes, strict=True):
        expected = np.zeros((groups, width))
        for m, word in enumerate(code):
            expected[m % groups] += book[m // groups, m % groups, word]
        np.testing.assert_allclose(row, expected.ravel(), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("stages", "groups", "width"), SHAPES)
def test_one_table_entry_a_byte_makes_the_inner_product(
    stages: int, groups: int, width: int
) -> None:
    book = books(stages, groups, width)
    quantizer = AdditiveQuantizer(torch.from_numpy(book))
    rng = np.random.default_rng(2)
    codes = rng.integers(0, 256, (20, stages * groups))
    q = rng.normal(size=(20, groups * width)).astype(np.float32)
    expanded = quantizer.expand_queries(torch.from_numpy(q)).numpy()
    centroids = book.reshape(stages * groups, 256, width)
    scanned = [
        sum(float(part @ centroids[m, code[m]]) for m, part in enumerate(line.reshape(-1, width)))
        for line, code in zip(expanded, codes, strict=True)
    ]
    latents = quantizer.lookup(torch.from_numpy(codes)).detach().numpy()
    np.testing.assert_allclose(scanned, (q * latents).sum(axis=1), rtol=1e-4, atol=1e-5)


def test_codewords_have_their_own_codes() -> None:
    quantizer = AdditiveQuantizer(torch.from_numpy(books(1, 2, 4)))
    codes = torch.arange(256).repeat_interleave(2).reshape(256, 2)
    assert torch.equal(quantizer.assign(quantizer.lookup(codes)), codes)


def test_equal_codewords_give_the_first() -> None:
    book = np.repeat(books(1, 1, 4)[:, :, :1], 256, axis=2)
    z = torch.randn(9, 4, generator=torch.Generator().manual_seed(0))
    assert AdditiveQuantizer(torch.from_numpy(book)).assign(z).eq(0).all()


def test_gradients_pass_to_latents_and_to_chosen_codewords() -> None:
    quantizer = AdditiveQuantizer(torch.from_numpy(books(2, 1, 3)))
    z = torch.randn(5, 3, generator=torch.Generator().manual_seed(0)).requires_grad_()
    words, commitment = quantizer.straight_through(z)
    codes = quantizer.assign(z)
    torch.testing.assert_close(words, quantizer.lookup(codes))
    expected = (z - words).square().sum(-1).mean()
    torch.testing.assert_close(commitment, expected)
    weights = torch.arange(15.0).reshape(5, 3)
    (words * weights).sum().backward()
    torch.testing.assert_close(z.grad, weights)
    gradient = quantizer.codebooks.grad
    assert gradient is not None
    for stage in range(2):
        touched = set(gradient[stage, 0].abs().sum(-1).nonzero().ravel().tolist())
        assert touched <= set(codes[:, stage].tolist())
        torch.testing.assert_close(gradient[stage, 0].sum(0), weights.sum(0))
