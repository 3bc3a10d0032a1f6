"""The peers of an evaluation: measured query by query against the form of as many bytes."""

from __future__ import annotations

from dataclasses import replace

from embedpress.evaluate.baselines import Baseline, baseline
from embedpress.evaluate.exact import Floats
from embedpress.evaluate.metrics import mean_with_ci, recall_at_k
from embedpress.evaluate.recipes import recipes
from embedpress.evaluate.result import CurvePoint, RecallRow
from embedpress.evaluate.task import Form, Task

CURVE_PEER = "pca-sq"


def peers_of(
    task: Task, train: Floats, forms: dict[str, Form], kinds: tuple[str, ...]
) -> list[Form]:
    """Train and search every peer of `kinds` that has a form of as many bytes."""
    rows = []
    for name, form in forms.items():
        for kind in kinds:
            # Latents stay floats for other uses than search: PCA is what competes with them.
            rival = name == "codes" or kind == "pca"
            if rival and recipes(kind, form.row.bytes, task.base.shape[1], task.metric):
                peer = _baseline(task, kind, form.row.bytes)
                task.progress(peer.name)
                rows.append(_peer_row(task, peer.fit(train), form))
    return rows


def _baseline(task: Task, kind: str, size: int) -> Baseline:
    return baseline(
        kind,
        size,
        dim=task.base.shape[1],
        metric=task.metric,
        seed=task.seed,
        num_threads=task.num_threads,
    )


def _peer_row(task: Task, peer: Baseline, form: Form) -> Form:
    found = peer.search(task.base, task.queries, task.deepest)
    per_query = recall_at_k(found, task.truth)
    difference, low, high = mean_with_ci(per_query - form.per_query, seed=task.seed)
    row = RecallRow(
        peer.name, "peer", peer.bytes_per_vector, *mean_with_ci(per_query, seed=task.seed)
    )
    row = replace(
        row,
        difference=difference,
        difference_low=low,
        difference_high=high,
        train_seconds=peer.train_seconds,
        encode_rows_per_second=len(task.base) / max(peer.encode_seconds, 1e-9),
        model_bytes=peer.model_bytes,
    )
    return Form(row, found, per_query)


def peer_curve(task: Task, train: Floats, sizes: list[int]) -> list[CurvePoint]:
    """Recall of PCA with a scalar quantizer over several sizes."""
    points = []
    for size in sizes:
        if recipes(CURVE_PEER, size, task.base.shape[1], task.metric):
            task.progress(f"PCA+SQ at {size} bytes")
            peer = _baseline(task, CURVE_PEER, size).fit(train)
            recall = recall_at_k(peer.search(task.base, task.queries, task.k), task.truth)
            points.append(CurvePoint("PCA+SQ", size, float(recall.mean())))
    return points
