"""Texts to embeddings, latents and codes by one exported graph."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from embedpress.errors import FormatError, InputError, UsageError, first_line
from embedpress.extract.batches import SORTED, padded, text_blocks, token_batches
from embedpress.onnx.canary import check_texts
from embedpress.onnx.compressor import Floats
from embedpress.onnx.encoder import Encoder, Feed, as_floats
from embedpress.onnx.extractor import TOKENIZER
from embedpress.vectors import sha256_of

BATCH_TOKENS = 256
"""What one run works on fits the processor's cache: with 1,024 it takes a fifth longer."""


class TextEncoder(Encoder):
    """A folder of ``embedpress export --with-extractor``: texts in, codes out, no torch.

    Parameters
    ----------
    path : str or Path
        The exported folder.
    num_threads : int, optional
        Threads of each call; by default all that this process may use. With 1 the tokenizer,
        too, works in the calling thread.
    providers : tuple of str
        ONNX Runtime execution providers.

    Attributes
    ----------
    compressor : OnnxCompressor
        The compressor of the same folder.
    config : ExtractorConfig
    dim, n_components, code_size : int (the last two or None)
    max_length : int
        Tokens kept of a text.

    Raises
    ------
    UsageError, FormatError
        No such folder, or not a whole one.

    Notes
    -----
    Calls may come from several threads at once. Texts are tokenized as by transformers, sorted
    by length and run in batches of few tokens.
    """

    kind = "text"

    def __init__(
        self,
        path: str | Path,
        *,
        num_threads: int | None = None,
        providers: tuple[str, ...] = ("CPUExecutionProvider",),
    ) -> None:
        super().__init__(path, num_threads=num_threads, providers=providers)
        self.max_length = self.config.max_length
        self._tokenizer = _read_tokenizer(
            self.path / TOKENIZER,
            self.compressor.config.get("sha256", {}).get(TOKENIZER),
            self.max_length,
        )
        self._cut = 0
        self._lock = threading.Lock()

    @property
    def truncated(self) -> int:
        """Texts so far that were longer than `max_length`; their beginning was encoded."""
        return self._cut

    def embed(self, texts: Sequence[str], *, batch_tokens: int = BATCH_TOKENS) -> Floats:
        """Embeddings (n, dim), float32, as the extractor gives them.

        Parameters
        ----------
        texts : sequence of str
        batch_tokens : int
            The most tokens of a batch, padding counted; a longer text is a batch of its own.
            Changes speed and memory; the result only by rounding.

        Raises
        ------
        UsageError, InputError
            For one string instead of a list, or anything that is not a string.
        """
        return as_floats(self._encode("embeddings", texts, batch_tokens))

    def transform(self, texts: Sequence[str], *, batch_tokens: int = BATCH_TOKENS) -> Floats:
        """Latents (n, n_components), float32; see :meth:`embed`."""
        return as_floats(self._encode("latents", texts, batch_tokens))

    def encode(
        self, texts: Sequence[str], *, batch_tokens: int = BATCH_TOKENS
    ) -> NDArray[np.uint8]:
        """Codes (n, code_size), uint8; see :meth:`embed`."""
        return self._encode("codes", texts, batch_tokens).astype(np.uint8, copy=False)

    def tokenize(self, texts: Sequence[str]) -> list[list[int]]:
        """Token ids of each text, special ones among them, cut to `max_length`."""
        check_texts_given(texts)
        return self._tokens(texts)

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        """Tokens that are read of each text, special ones counted."""
        return [len(ids) for ids in self.tokenize(texts)]

    def embed_tokens(self, tokens: Sequence[Sequence[int]]) -> Floats:
        """Embeddings (n, dim), float32, of texts that :meth:`tokenize` was given."""
        feeds = self._token_feeds(tokens, BATCH_TOKENS)
        return as_floats(self._run("embeddings", len(tokens), feeds))

    def check_canaries(self) -> int:
        """Encode the texts stored with the folder and compare.

        Returns
        -------
        int
            How many texts and vectors were compared.

        Raises
        ------
        MismatchError
            If this machine gives other results than the one that exported.
        """
        return self.compressor.check_canaries() + check_texts(self)

    def _encode(self, output: str, texts: Sequence[str], batch_tokens: int) -> NDArray[np.generic]:
        if batch_tokens < 1:
            raise UsageError(f"batch_tokens={batch_tokens} must be at least 1")
        check_texts_given(texts)
        return self._run(output, len(texts), self._feeds(texts, batch_tokens))

    def _feeds(self, texts: Sequence[str], batch_tokens: int) -> Iterator[Feed]:
        for start, stop in text_blocks(texts, *SORTED):
            for rows, feed in self._token_feeds(self._tokens(texts[start:stop]), batch_tokens):
                yield [start + row for row in rows], feed

    def _token_feeds(self, tokens: Sequence[Sequence[int]], batch_tokens: int) -> Iterator[Feed]:
        for rows in token_batches([len(ids) for ids in tokens], batch_tokens):
            ids, mask = padded([tokens[row] for row in rows], self.config.padding)
            yield rows, {"input_ids": ids, "attention_mask": mask}

    def _tokens(self, texts: Sequence[str]) -> list[list[int]]:
        prompt, lower = self.config.prompt, self.config.lower_case
        whole = [prompt + (text.lower() if lower else text) for text in texts]
        try:
            if self.compressor.num_threads == 1:
                # The tokenizer's own threads are of the whole process, not of one call.
                found = [self._tokenizer.encode(text) for text in whole]
            else:
                found = self._tokenizer.encode_batch_fast(whole)
        except Exception as error:  # tokenizers raises plain Exception and TypeError
            raise InputError(f"a text cannot be tokenized: {first_line(error)}") from None
        cut = sum(bool(one.overflowing) for one in found)
        if cut:
            with self._lock:
                self._cut += cut
        return [one.ids for one in found]


def check_texts_given(texts: Sequence[str]) -> None:
    """Refuse one string, and rows that are no strings.

    Raises
    ------
    UsageError, InputError
    """
    if isinstance(texts, str):
        raise UsageError("give a list of texts, not a single string")
    for row, text in enumerate(texts):
        if not isinstance(text, str):
            raise InputError(f"row {row}: a text must be a string, not {text!r:.40}")


def _read_tokenizer(path: Path, sha256: str | None, max_length: int) -> Tokenizer:
    if not path.is_file():
        raise FormatError(f"{path.parent} has no {path.name}: export again")
    if sha256 is not None and sha256_of(path) != sha256:
        raise FormatError(f"{path} was changed since it was written: export again")
    try:
        tokenizer = Tokenizer.from_file(str(path))
        tokenizer.no_padding()
        tokenizer.enable_truncation(max_length)
    except Exception as error:  # tokenizers raises plain Exception
        raise FormatError(f"{path} is not a tokenizer: {first_line(error)}") from None
    return tokenizer
