"""Batches of texts that are alike in length, each within a budget of tokens."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

BLOCK, CHARACTERS = 16_384, 2**23
"""Texts and characters tokenized at once: bounds the memory of a long list, long enough to sort
by length."""


def text_blocks(texts: Sequence[str]) -> Iterator[tuple[int, int]]:
    """Cut a list into spans that are tokenized at once."""
    start = characters = 0
    for row, text in enumerate(texts):
        if row > start and (row - start == BLOCK or characters + len(text) > CHARACTERS):
            yield start, row
            start, characters = row, 0
        characters += len(text)
    if start < len(texts):
        yield start, len(texts)


def token_batches(lengths: Sequence[int], budget: int) -> Iterator[list[int]]:
    """Rows in batches of similar length, longest first, each within the budget when padded.

    Parameters
    ----------
    lengths : sequence of int
        Tokens of each row.
    budget : int
        Tokens of a batch, padding counted; a longer row is a batch of its own.

    Yields
    ------
    list of int
        Rows of one batch; every row comes once.
    """
    batch: list[int] = []
    for row in sorted(range(len(lengths)), key=lambda row: -lengths[row]):
        if batch and max(1, lengths[batch[0]]) * (len(batch) + 1) > budget:
            yield batch
            batch = []
        batch.append(row)
    if batch:
        yield batch


def padded(
    tokens: Sequence[Sequence[int]], padding: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Token ids and their attention mask, both (n, longest).

    A tokenizer without special tokens gives nothing at all for an empty text; it is read as one
    token of padding.
    """
    width = max(1, *(len(ids) for ids in tokens), 1)
    ids = np.full((len(tokens), width), padding, np.int64)
    mask = np.zeros((len(tokens), width), np.int64)
    for row, found in enumerate(tokens):
        ids[row, : len(found)] = found
        mask[row, : max(1, len(found))] = 1
    return ids, mask
