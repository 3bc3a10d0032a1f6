"""A text model in int8 and a compressor as one graph, judged on real texts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from embedpress.extract.batches import padded, token_batches
from embedpress.onnx.bundle import N_CANARIES, Bundle, Feed, Run, session_run
from embedpress.onnx.canary import INPUTS, pack
from embedpress.onnx.extractor import GRAPHS
from embedpress.onnx.int8 import Int8Dense, Range, Recorder, warn_where_it_is_slow
from embedpress.onnx.int8_judge import check_sample, judge
from embedpress.onnx.parity import Arrays
from embedpress.onnx.sample import sample_texts
from embedpress.onnx.text import BATCH_TOKENS
from embedpress.onnx.text_bundle import text_bundle, text_graph, tokens_of

if TYPE_CHECKING:
    from embedpress.autoencoder.estimator import Compressor
    from embedpress.extract.text import TextExtractor


N_SCALES, MOST_JUDGED, N_ALONE = 256, 2744, 32


def int8_bundle(
    compressor: Compressor,
    extractor: TextExtractor,
    stamps: dict[str, str],
    texts: Sequence[str],
    num_threads: int | None,
) -> Bundle:
    """The same with dense layers in int8, its scales taken from some texts and judged on others.

    Parameters
    ----------
    texts : sequence of str
        At least :data:`~embedpress.onnx.int8_judge.MIN_SAMPLE`.

    Raises
    ------
    UsageError
        Too few texts.
    ExportError
        As for :func:`~embedpress.onnx.int8_judge.judge`.
    """
    check_sample(texts, "text")
    warn_where_it_is_slow()
    plain = text_bundle(compressor, extractor, stamps, num_threads)
    exact = session_run(plain.files[GRAPHS["text"]], num_threads)
    shuffled = [texts[row] for row in np.random.default_rng(0).permutation(len(texts))]
    n_scales = min(N_SCALES, len(texts) // 4)
    ranges = _ranges(compressor, extractor, stamps, shuffled[:n_scales], num_threads)
    graph = text_graph(compressor, extractor, stamps, Int8Dense(ranges))
    content = graph.SerializeToString(deterministic=True)
    run = session_run(content, num_threads)
    outputs = partial(_outputs, extractor)
    judged = shuffled[n_scales : n_scales + MOST_JUDGED]
    measured = judge(compressor, exact, run, outputs, judged, alone=N_ALONE, what="text")
    texts = sample_texts()[:N_CANARIES]
    return Bundle(
        config=replace(plain.config, precision="int8", measured=measured),
        files={
            **plain.files,
            GRAPHS["text"]: content,
            INPUTS: pack(outputs(texts, run), list(texts)),
        },
    )


def _ranges(
    compressor: Compressor,
    extractor: TextExtractor,
    stamps: dict[str, str],
    texts: Sequence[str],
    num_threads: int | None,
) -> dict[str, Range]:
    """What each dense layer reads on these texts."""
    recorder = Recorder()
    model = recorder.observed(text_graph(compressor, extractor, stamps, recorder))
    run = session_run(model.SerializeToString(), num_threads)
    names = set(recorder.inputs.values())
    ranges: dict[str, Range] = {}
    for _, feed in _feeds(extractor, texts):
        real = feed["attention_mask"].astype(bool).T.ravel()
        outputs = run(feed)
        for name in names:
            values = outputs[name][real]
            ranges.setdefault(name, Range(values[0], values[0])).widen(values)
    return recorder.by_layer(ranges)


def _feeds(extractor: TextExtractor, texts: Sequence[str]) -> Iterator[tuple[list[int], Feed]]:
    tokens = tokens_of(extractor, texts)
    for rows in token_batches([len(ids) for ids in tokens], BATCH_TOKENS):
        ids, mask = padded([tokens[row] for row in rows], extractor.padding)
        yield rows, {"input_ids": ids, "attention_mask": mask}


def _outputs(extractor: TextExtractor, texts: Sequence[str], run: Run) -> Arrays:
    """A graph's outputs for texts."""
    found: Arrays = {}
    for rows, feed in _feeds(extractor, texts):
        for name, values in run(feed).items():
            whole = found.setdefault(name, np.empty((len(texts), values.shape[1]), values.dtype))
            whole[rows] = values
    return found
