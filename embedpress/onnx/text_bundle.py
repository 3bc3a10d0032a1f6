"""A text model and a compressor as one graph: from token ids to codes."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import onnx
from onnx import TensorProto

from embedpress.errors import ExportError, UsageError
from embedpress.extract.batches import padded
from embedpress.onnx import bert
from embedpress.onnx.builder import GraphBuilder
from embedpress.onnx.bundle import (
    N_CANARIES,
    Bundle,
    Feed,
    check_dim,
    closed,
    compare,
    session_run,
)
from embedpress.onnx.canary import INPUTS, pack
from embedpress.onnx.extractor import GRAPHS, TOKENIZER, ExtractorConfig
from embedpress.onnx.parity import expected_of
from embedpress.onnx.sample import sample_texts

if TYPE_CHECKING:
    from embedpress.autoencoder.estimator import Compressor
    from embedpress.extract.text import TextExtractor


def text_bundle(
    compressor: Compressor,
    extractor: TextExtractor,
    stamps: dict[str, str],
    num_threads: int | None,
) -> Bundle:
    """The text graph with its tokenizer and canaries, checked against torch.

    Raises
    ------
    UsageError
        A network or a tokenizer that cannot be exported.
    ExportError
        The graph gives other results than torch.
    """
    check_dim(compressor, extractor.dim, extractor.model_id)
    tokenizer = tokenizer_of(extractor)
    content = text_graph(compressor, extractor, stamps).SerializeToString(deterministic=True)
    run = session_run(content, num_threads)
    for feed in parity_feeds(extractor):
        expected = expected_of(compressor, extractor.encode_tokens(**feed))
        compare(run(feed), expected, "x".join(map(str, feed["input_ids"].shape)) + " tokens")
    texts = sample_texts()[:N_CANARIES]
    expected = expected_of(compressor, extractor.encode(texts))
    return Bundle(
        config=text_config(extractor),
        files={
            GRAPHS["text"]: content,
            TOKENIZER: tokenizer,
            INPUTS: pack(expected, texts),
        },
    )


def text_graph(
    compressor: Compressor,
    extractor: TextExtractor,
    stamps: dict[str, str],
    dense: bert.Dense = bert.dense,
) -> onnx.ModelProto:
    """``input_ids``, ``attention_mask`` -> ``embeddings``, ``latents``, ``codes``."""
    graph = GraphBuilder()
    tokens = bert.add_bert(graph, bert.read_bert(extractor.model), dense)
    bert.add_pooling(graph, tokens, extractor.pooling, extractor.normalized, "embeddings")
    ports = [(name, TensorProto.INT64, ("sequence",)) for name in ("input_ids", "attention_mask")]
    return closed(graph, compressor, ports, stamps)


def text_config(extractor: TextExtractor) -> ExtractorConfig:
    """What extractor.json says of a text extractor."""
    return ExtractorConfig(
        kind="text",
        # A folder's place means nothing on another machine.
        model=Path(extractor.model_id).name if extractor.revision is None else extractor.model_id,
        revision=extractor.revision,
        fingerprint=extractor.fingerprint,
        pooling=extractor.pooling,
        normalize=extractor.normalized,
        max_length=extractor.max_length,
        lower_case=extractor.recipe.lower_case,
        prompt=extractor.recipe.prompt,
        padding=extractor.padding,
    )


def tokenizer_of(extractor: TextExtractor) -> bytes:
    """The extractor's tokenizer.json, which must give the same tokens without transformers.

    Raises
    ------
    UsageError
        A tokenizer that has no such form.
    ExportError
        One whose tokens differ.
    """
    from tokenizers import Tokenizer

    backend = getattr(extractor.tokenizer, "backend_tokenizer", None)
    if backend is None:
        raise UsageError(
            f"the tokenizer of {extractor.model_id} is a slow one, without a tokenizer.json: "
            "convert it with transformers first"
        )
    text: str = backend.to_str()
    alone = Tokenizer.from_str(text)
    alone.no_padding()
    alone.enable_truncation(extractor.max_length)
    words = " ".join(sample_texts()[:60])
    hard = ["", " ", "\t\n", "É日本語 😀 naïve", "a" * 300, "[MASK] <s> </s>", words, words[:999]]
    texts = [*hard, *sample_texts()[:300]]
    found = [one.ids for one in alone.encode_batch([extractor.recipe.prepared(t) for t in texts])]
    for ours, theirs, given in zip(found, tokens_of(extractor, texts), texts, strict=True):
        if ours != theirs:
            raise ExportError(f"tokenizer.json alone gives other tokens for {given!r:.60}")
    return text.encode()


def tokens_of(extractor: TextExtractor, texts: Sequence[str]) -> list[list[int]]:
    """Token ids, with no warning of those that are cut: here that is meant."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return extractor.tokenize(texts)


def parity_feeds(extractor: TextExtractor) -> list[Feed]:
    """Real tokens in batches of 1, 7 and 256 texts, of 1 token to as many as are kept."""
    longest = min(extractor.max_length, 512)
    stream = [ids for tokens in tokens_of(extractor, sample_texts()) for ids in tokens[1:-1]]
    rng = np.random.default_rng(0)
    batches = [[1], [2], [longest // 3], [longest]]
    batches += [[1, 2, 5, 17, longest // 4, longest // 2, longest]]
    # As many as would fit with long texts, too, were it not for the time.
    batches += [list(rng.integers(1, min(48, longest), 256))]
    feeds = []
    for lengths in batches:
        starts = rng.integers(0, len(stream) - longest, len(lengths))
        tokens = [stream[at : at + max(1, n)] for at, n in zip(starts, lengths, strict=True)]
        ids, mask = padded(tokens, extractor.padding)
        feeds.append({"input_ids": ids, "attention_mask": mask})
    return feeds
