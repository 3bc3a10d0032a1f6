"""What int8 may lose: recall of its codes, and an input's independence of its batch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from embedpress.autoencoder.judge import leave_one_out_recall
from embedpress.errors import ExportError, UsageError
from embedpress.evaluate.exact import unit_rows
from embedpress.onnx.bundle import Run
from embedpress.onnx.int8 import Floats
from embedpress.onnx.parity import Arrays

if TYPE_CHECKING:
    from embedpress.autoencoder.estimator import Compressor

K = 10
MOST_LOST = 0.01
"""Of recall@10, by int8."""
ALONE_TOLERANCE = 0.02
"""Largest difference between an input alone and in a batch under int8, relative to the largest
value: a float that is rounded in another order can fall to the next of 256 steps."""
MIN_SAMPLE = 500


def check_sample(sample: Sequence[Any], what: str) -> None:
    """Raise UsageError where a sample of "text" or "photo" is too small to judge on."""
    if len(sample) < MIN_SAMPLE:
        raise UsageError(
            f"the sample has {len(sample)} {what}s: int8 is judged on {MIN_SAMPLE} of them"
        )


def judge(
    compressor: Compressor,
    exact: Run,
    ours: Run,
    outputs: Callable[[Sequence[Any], Run], Arrays],
    sample: Sequence[Any],
    *,
    alone: int,
    what: str,
) -> dict[str, float]:
    """Compare a graph in int8 with that in float32 on inputs its scales were not taken from.

    Parameters
    ----------
    exact, ours : Run
        The graphs in float32 and in int8.
    outputs : callable
        Gives what a graph makes of a sequence of inputs.
    sample : sequence
    alone : int
        So many inputs are run one by one too.
    what : str
        "text" or "photo".

    Returns
    -------
    dict
        ``recall@10``, ``recall@10 of float32``, ``cosine`` (mean) and ``queries``.

    Raises
    ------
    ExportError
        Codes from int8 find fewer of the nearest neighbours than those from float32 by more
        than `MOST_LOST`, or an input's result depends on its neighbours in a batch.
    """
    among = outputs(sample, ours)
    single = [outputs([one], ours)["embeddings"] for one in sample[:alone]]
    _check_alone(np.concatenate(single), among["embeddings"][:alone], what)
    return _recalls(compressor, outputs(sample, exact), among)


def _check_alone(alone: Floats, among: Floats, what: str) -> None:
    """Refuse a graph whose embedding of an input alone is another than in a batch."""
    difference = float(np.abs(alone - among).max())
    if not difference <= ALONE_TOLERANCE * float(np.abs(among).max()):
        raise ExportError(
            f"int8: the embedding of a {what} depends on its batch, by up to {difference:.2e}"
        )


def _recalls(compressor: Compressor, exact: Arrays, ours: Arrays) -> dict[str, float]:
    """Recall of codes (latents, where there are none) from int8 beside those from float32.

    Each input asks for the others, by the same graph; the truth are the exact neighbours by
    float32 embeddings. With fewer queries chance would decide about a hundredth.
    """
    embeddings, metric = exact["embeddings"], compressor.metric
    unit = unit_rows(embeddings) if metric == "cosine" else embeddings
    recalls = [
        leave_one_out_recall(
            unit, *_stored(compressor, outputs), metric=metric, k=K, max_queries=len(unit), seed=0
        )
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
        "queries": len(unit),
    }


def _stored(compressor: Compressor, outputs: Arrays) -> tuple[Floats, Floats]:
    """What a search scores against, and the same inputs as queries."""
    tower, embeddings = compressor.code_tower_, outputs["embeddings"]
    if tower is None or tower.quantizer is None:
        return outputs["latents"], compressor.transform_queries(embeddings)
    # Laid out once a stage for FAISS's scan; once is enough for sums of codewords.
    queries = np.ascontiguousarray(compressor.encode_queries(embeddings)[:, : tower.width])
    return tower.quantizer.lookup(torch.from_numpy(outputs["codes"])).detach().numpy(), queries
