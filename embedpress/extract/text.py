"""Embeddings of texts by any BERT-like model, equal to sentence-transformers' own."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from embedpress.errors import InputError, UsageError
from embedpress.extract.batches import SORTED, TOKENIZED, padded, text_blocks, token_batches
from embedpress.extract.bert import fingerprints, length_limit, load_bert
from embedpress.extract.device import exact_float32, resolve_device
from embedpress.extract.hub import model_folder
from embedpress.extract.recipe import read_recipe
from embedpress.vectors.budget import give_back

_LARGE = 1024
"""Tokens of a batch that leaves gaps in the memory worth closing."""


class TextExtractor:
    """A BERT-like network, its tokenizer and its pooling.

    Parameters
    ----------
    model : str or Path
        A folder with a transformers or sentence-transformers model, or a hub id.
    pooling : {"mean", "cls", "max"}, optional
        By default what a sentence-transformers folder says, else mean.
    normalize : bool, optional
        Scale embeddings to length one. By default what the folder says, else False.
    max_length : int, optional
        Tokens kept of a text, special tokens counted. By default what the folder says, else
        the model's limit.
    revision : str, optional
        Branch, tag or commit of a hub id.
    device : str
        As torch writes it.
    num_threads : int, optional
        Threads of each :meth:`encode`; torch's own choice by default.

    Attributes
    ----------
    dim : int
        Length of an embedding.
    model_id : str
        The model as it was given.
    weights_sha256 : str
        Of the weights file; of the list of such sums where there are several.
    fingerprint : str
        sha256 over the weights, the network's and the tokenizer's configuration.
    truncated : int
        Texts so far that were longer than `max_length`; they are embedded by their beginning.
    model, tokenizer
        The torch module and the transformers tokenizer.
    padding : int
        Id of the padding token.
    recipe : Recipe

    Raises
    ------
    UsageError
        For a model that cannot be had or options that do not fit it.
    FormatError
        For broken or incomplete weights.

    Notes
    -----
    Pooling as in sentence-transformers (Reimers and Gurevych, 2019).
    """

    def __init__(
        self,
        model: str | Path,
        *,
        pooling: str | None = None,
        normalize: bool | None = None,
        max_length: int | None = None,
        revision: str | None = None,
        device: str = "cpu",
        num_threads: int | None = None,
    ) -> None:
        self.model_id = str(model)
        self.device = resolve_device(device)
        self.num_threads = num_threads
        folder, self.revision = model_folder(model, revision)
        self.recipe = read_recipe(folder, pooling=pooling)
        self.pooling = self.recipe.pooling
        self.normalized = self.recipe.normalize if normalize is None else normalize
        self.model, self.tokenizer = load_bert(self.recipe)
        self.model.to(self.device)
        self.dim = int(self.model.config.hidden_size)
        self.padding = int(self.tokenizer.pad_token_id or 0)
        self.max_length = length_limit(max_length, self.recipe, self.model, self.tokenizer)
        self.weights_sha256, self.fingerprint = fingerprints(self.recipe)
        self.truncated = 0

    def encode(self, texts: Sequence[str], *, batch_tokens: int = 4096) -> npt.NDArray[np.float32]:
        """Embed texts.

        Parameters
        ----------
        texts : sequence of str
            Empty strings are allowed.
        batch_tokens : int
            The most tokens of a batch, padding counted. Changes speed and memory; the
            embeddings only by rounding.

        Returns
        -------
        ndarray of float32, shape (len(texts), dim)
            In the order of the texts.

        Raises
        ------
        InputError
            For anything that is not a string, naming its row.
        UsageError
            For a budget smaller than one text of `max_length` tokens.
        """
        if isinstance(texts, str):
            raise UsageError("give a list of texts, not a single string")
        self.check_batch_tokens(batch_tokens)
        for row, text in enumerate(texts):
            if not isinstance(text, str):
                raise InputError(f"row {row}: a text must be a string, not {text!r:.40}")
        embeddings = np.empty((len(texts), self.dim), np.float32)
        with exact_float32(self.num_threads):
            for start, stop in text_blocks(texts, *SORTED):
                tokens = self.tokenize(texts[start:stop])
                for rows in token_batches([len(t) for t in tokens], batch_tokens):
                    ids, mask = padded([tokens[row] for row in rows], self.padding)
                    embeddings[[start + row for row in rows]] = self._forward(ids, mask)
                    # Elsewhere activations take no memory of this process, and batches are short.
                    if ids.size >= _LARGE and self.device.type == "cpu":
                        give_back()
        bad = np.flatnonzero(~np.isfinite(embeddings).all(axis=1))
        if bad.size:
            raise InputError(f"row {bad[0]}: the model gave NaN or infinity for this text")
        return embeddings

    def check_batch_tokens(self, batch_tokens: int) -> None:
        """Raise `UsageError` for a budget smaller than one text of `max_length` tokens."""
        if batch_tokens < self.max_length:
            raise UsageError(
                f"batch_tokens must be at least max_length ({self.max_length}), not {batch_tokens}"
            )

    def rehearse(self, batch_tokens: int) -> None:
        """Run the largest batch there can be, after which the memory of batches is known."""
        width = self.max_length
        ids = np.full((batch_tokens // width, width), self.padding, np.int64)
        self.encode_tokens(ids, np.ones_like(ids))

    def tokenize(self, texts: Sequence[str]) -> list[list[int]]:
        """Token ids of texts, each cut to `max_length`."""
        tokens: list[list[int]] = []
        cut = 0
        for start, stop in text_blocks(texts, *TOKENIZED):
            whole = [self.recipe.prepared(text) for text in texts[start:stop]]
            found = self.tokenizer(whole, verbose=False)["input_ids"]
            long = [row for row, ids in enumerate(found) if len(ids) > self.max_length]
            if long:
                # Only the tokenizer knows which special tokens stay at the end of a cut text.
                shorter = self.tokenizer(
                    [whole[row] for row in long], truncation=True, max_length=self.max_length
                )["input_ids"]
                for row, ids in zip(long, shorter, strict=True):
                    found[row] = ids
            tokens += found
            cut += len(long)
        if cut and not self.truncated:
            warnings.warn(
                f"texts longer than max_length={self.max_length} tokens are cut "
                f"({cut} of the first {len(texts)}); this is said once",
                stacklevel=3,
            )
        self.truncated += cut
        return tokens

    def encode_tokens(
        self, input_ids: npt.NDArray[np.int64], attention_mask: npt.NDArray[np.int64]
    ) -> npt.NDArray[np.float32]:
        """Embed one batch of tokens.

        Parameters
        ----------
        input_ids, attention_mask : ndarray of int64, shape (n, longest)
            As :func:`embedpress.extract.batches.padded` makes them.

        Returns
        -------
        ndarray of float32, shape (n, dim)
        """
        with exact_float32(self.num_threads):
            return self._forward(input_ids, attention_mask)

    def _forward(
        self, ids: npt.NDArray[np.int64], mask: npt.NDArray[np.int64]
    ) -> npt.NDArray[np.float32]:
        import torch

        attention = torch.from_numpy(mask).to(self.device)
        output = self.model(
            input_ids=torch.from_numpy(ids).to(self.device), attention_mask=attention
        )
        hidden = output.last_hidden_state
        kept = attention.unsqueeze(-1)
        if self.pooling == "cls":
            pooled = hidden[:, 0]
        elif self.pooling == "max":
            pooled = hidden.masked_fill(kept == 0, float("-inf")).amax(dim=1)
        else:
            pooled = (hidden * kept).sum(dim=1) / kept.sum(dim=1)
        if self.normalized:
            pooled = torch.nn.functional.normalize(pooled, dim=1)
        result: npt.NDArray[np.float32] = pooled.cpu().numpy()
        return result
