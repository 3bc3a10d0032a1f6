"""A training's history: its records, and which of them tells of the weights that were kept."""

from __future__ import annotations

import itertools
import math
from typing import Any

Record = dict[str, Any]
"""An evaluation: step, seconds, loss and its parts, recall, where they are measured noisy_recall
and the recall of each nested size."""


def nested_recall(size: int) -> str:
    """The name in a record of the recall that the first `size` floats of a latent give."""
    return f"recall_{size}"


def runs(records: list[Record]) -> list[list[Record]]:
    """A tower's history cut into its trainings, each from its step 0 on."""
    starts = [i for i, record in enumerate(records) if i and not record.get("step")]
    edges = [0, *starts, len(records)] if records else []
    return [records[i:j] for i, j in itertools.pairwise(edges)]


def judged_figure(record: Record, monitor: str) -> float:
    """The figure that `monitor` goes by, NaN where it was not measured.

    Recall is judged with corrupted queries where training is to denoise them.
    """
    name = _recall_name(record) if monitor == "recall" else monitor
    return float(record.get(name, math.nan))


def lost_recall(record: Record, start: Record) -> bool:
    """Whether fewer held-out neighbours are found than at the start."""
    name = _recall_name(start)
    return bool(record.get(name, math.inf) < start.get(name, -math.inf))


def _recall_name(record: Record) -> str:
    return "noisy_recall" if "noisy_recall" in record else "recall"


def kept_record(run: list[Record], monitor: str) -> Record:
    """The evaluation whose weights a training is left with.

    It is the first one with the best figure that `monitor` names; where that was never
    measured, the last one. A lower loss is no gain if it lost neighbours: weights of lower
    held-out recall than those at step 0 give way to these.
    """
    sign = -1 if monitor == "recall" else 1
    judged = [record for record in run if math.isfinite(judged_figure(record, monitor))]
    best = min(judged, key=lambda record: sign * judged_figure(record, monitor), default=run[-1])
    return run[0] if lost_recall(best, run[0]) else best
