"""Batches of texts that are alike in length, each within a budget of tokens."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

SORTED = 16_384, 2**23
"""Texts and characters sorted by length together: bounds the memory of a long list."""
TOKENIZED = 512, 2**18
"""Texts and characters tokenized at once: a tokenizer notes far more of each token than its id."""


def text_blocks(
    texts: Sequence[str], most_texts: int, most_characters: int
) -> Iterator[tuple[int, int]]:
    """Cut a list into spans of so many texts and characters; a longer text is one of its own."""
    start = characters = 0
    for row, text in enumerate(texts):
        if row > start and (row - start == most_texts or characters + len(text) > most_characters):
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
