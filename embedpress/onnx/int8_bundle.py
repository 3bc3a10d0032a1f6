"""A text model in int8 and a compressor as one graph, judged on real texts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray

from embedpress.errors import ExportError, UsageError
from embedpress.evaluate.exact import nearest_in_blocks, true_neighbors, unit_rows
from embedpress.evaluate.metrics import recall_at_k
from embedpress.extract.batches import padded, token_batches
from embedpress.onnx.bundle import N_CANARIES, Bundle, Feed, Run, session_run
from embedpress.onnx.canary import INPUTS, pack
from embedpress.onnx.extractor import GRAPHS
from embedpress.onnx.int8 import Floats, Int8Dense, Range, Recorder, warn_where_it_is_slow
from embedpress.onnx.parity import Arrays
from embedpress.onnx.sample import sample_texts
from embedpress.onnx.text import BATCH_TOKENS
from embedpress.onnx.text_bundle import text_bundle, text_graph, tokens_of

if TYPE_CHECKING:
    from embedpress.autoencoder.estimator import Compressor
    from embedpress.extract.text import TextExtractor


K = 10
MOST_LOST = 0.01
"""Of recall@10, by int8."""
ALONE_TOLERANCE = 0.02
"""Largest difference between a text alone and in a batch under int8, relative to the largest
value: a float that is rounded in another order can fall to the next of 256 steps."""
MIN_SAMPLE, N_SCALES, MOST_JUDGED, N_ALONE = 500, 256, 2744, 32


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
        At least `MIN_SAMPLE`.

    Raises
    ------
    UsageError
        Too few texts.
    ExportError
        Codes from int8 find fewer of the nearest neighbours than those from float32 by more
        than `MOST_LOST`, or a text's result depends on its neighbours in a batch.
    """
    if len(texts) < MIN_SAMPLE:
        raise UsageError(
            f"the sample has {len(texts)} texts: int8 is judged on {MIN_SAMPLE} of them"
        )
    warn_where_it_is_slow()
    plain = text_bundle(compressor, extractor, stamps, num_threads)
    exact = session_run(plain.files[GRAPHS["text"]], num_threads)
    shuffled = [texts[row] for row in np.random.default_rng(0).permutation(len(texts))]
    n_scales = min(N_SCALES, len(texts) // 4)
    ranges = _ranges(compressor, extractor, stamps, shuffled[:n_scales], num_threads)
    graph = text_graph(compressor, extractor, stamps, Int8Dense(ranges))
    content = graph.SerializeToString(deterministic=True)
    run = session_run(content, num_threads)
    judged = shuffled[n_scales : n_scales + MOST_JUDGED]
    theirs, ours = _outputs(extractor, judged, exact), _outputs(extractor, judged, run)
    alone = [_outputs(extractor, [text], run)["embeddings"] for text in judged[:N_ALONE]]
    check_alone(np.concatenate(alone), ours["embeddings"][:N_ALONE], "text")
    measured = judge_int8(compressor, theirs, ours)
    texts = sample_texts()[:N_CANARIES]
    return Bundle(
        config=replace(plain.config, precision="int8", measured=measured),
        files={
            **plain.files,
            GRAPHS["text"]: content,
            INPUTS: pack(_outputs(extractor, texts, run), list(texts)),
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
        real = feed["attention_mask"].astype(bool).ravel()
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


def check_alone(alone: Floats, among: Floats, what: str) -> None:
    """Refuse a graph whose embedding of an input alone is another than in a batch.

    Parameters
    ----------
    alone, among : ndarray of shape (n, dim), float32
    what : str
        "text" or "photo".

    Raises
    ------
    ExportError
    """
    difference = float(np.abs(alone - among).max())
    if not difference <= ALONE_TOLERANCE * float(np.abs(among).max()):
        raise ExportError(
            f"int8: the embedding of a {what} depends on its batch, by up to {difference:.2e}"
        )


def judge_int8(compressor: Compressor, exact: Arrays, ours: Arrays) -> dict[str, float]:
    """Recall of codes (latents, where there are none) from int8 beside those from float32.

    A fifth of the inputs ask, the others are searched; the truth are the exact neighbours by
    float32 embeddings. Queries are embedded by the same graph as the others.

    Returns
    -------
    dict
        ``recall@10``, ``recall@10 of float32``, ``cosine`` (mean) and ``queries``.

    Raises
    ------
    ExportError
        More than `MOST_LOST` of recall is lost.
    """
    asked = len(exact["embeddings"]) // 5
    truth = true_neighbors(
        exact["embeddings"][:asked], exact["embeddings"][asked:], K, metric=compressor.metric
    )
    recalls = [
        float(recall_at_k(_search(compressor, outputs, asked), truth).mean())
        for outputs in (ours, exact)
    ]
    products = unit_rows(exact["embeddings"]) * unit_rows(ours["embeddings"])
    if recalls[1] - recalls[0] > MOST_LOST:
        raise ExportError(
            f"int8 finds {recalls[0]:.3f} of the 10 nearest neighbours on the sample, float32 "
            f"{recalls[1]:.3f}: more than {MOST_LOST} is lost; export without --int8"
        )
    return {
        "recall@10": round(recalls[0], 4),
        "recall@10 of float32": round(recalls[1], 4),
        "cosine": round(float(products.sum(axis=1).mean()), 5),
        "queries": asked,
    }


def _search(compressor: Compressor, outputs: Arrays, asked: int) -> NDArray[np.int64]:
    tower = compressor.code_tower_
    questions = outputs["embeddings"][:asked]
    if tower is None or tower.quantizer is None:
        queries, base = compressor.transform_queries(questions), outputs["latents"][asked:]
    else:
        # Laid out once a stage for FAISS's scan; once is enough for sums of codewords.
        queries = compressor.encode_queries(questions)[:, : tower.width]
        codes = torch.from_numpy(outputs["codes"][asked:])
        base = tower.quantizer.lookup(codes).detach().numpy()
    l2 = compressor.metric == "l2"
    return nearest_in_blocks(np.ascontiguousarray(queries), [base], K, l2=l2)[0]
