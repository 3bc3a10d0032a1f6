"""What int8 may lose: recall of its codes, and an input's independence of its batch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from embedpress.errors import ExportError, UsageError
from embedpress.evaluate.exact import nearest_in_blocks, true_neighbors, unit_rows
from embedpress.evaluate.metrics import recall_at_k
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

    A fifth of the inputs ask, the others are searched; the truth are the exact neighbours by
    float32 embeddings. Queries are embedded by the same graph as the others.
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
