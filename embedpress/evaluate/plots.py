"""The plots of the report, each from an :class:`Evaluation` to SVG, or None without data."""

from __future__ import annotations

from typing import Any

from embedpress.evaluate.figure import COLORS, INK, new_figure, outline, plain, tidy, to_svg
from embedpress.evaluate.result import Evaluation, IndexLoss

FORM_COLORS = {"codes": COLORS[1], "latents": COLORS[2], "reranker": COLORS[3]}
LINE_COLORS = {"Gaussian channel": INK, "PCA+SQ": COLORS[0]}


def rate_recall(evaluation: Evaluation) -> bytes | None:
    """Recall against bytes a vector: lines over several sizes, a point for everything else."""
    figure = new_figure(7.2, 4.2)
    axes = figure.add_subplot()
    k = evaluation.k
    tidy(axes, x="bytes a vector (logarithmic)", y=f"recall@{k}")
    axes.set_xscale("log", base=2)
    for name in dict.fromkeys(point.name for point in evaluation.curve):
        points = sorted((p.bytes, p.recall) for p in evaluation.curve if p.name == name)
        channel = name == "Gaussian channel"
        axes.plot(
            *zip(*points, strict=True),
            color=LINE_COLORS.get(name, COLORS[5]),
            linestyle="--" if channel else "-",
            marker="" if channel else ".",
            linewidth=1.6,
            label=plain(name),
        )
    sizes = {p.bytes for p in evaluation.curve}
    sizes |= {row.bytes for row in evaluation.recall if row.kind != "original"}
    peers = sorted((r for r in evaluation.recall if r.kind == "peer"), key=lambda r: r.recall)
    for form, color in FORM_COLORS.items():
        rows = [row for row in evaluation.recall if row.kind == form]
        if rows:
            axes.errorbar(
                [row.bytes for row in rows],
                [row.recall for row in rows],
                [
                    [max(0.0, row.recall - row.low) for row in rows],
                    [max(0.0, row.high - row.recall) for row in rows],
                ],
                fmt="D",
                color=color,
                markersize=8,
                capsize=3,
                zorder=4,
                label=f"embedpress {form}",
            )
    if peers:
        axes.plot(
            [r.bytes for r in peers],
            [r.recall for r in peers],
            linestyle="",
            marker="o",
            markersize=5,
            markerfacecolor="white",
            markeredgecolor=COLORS[0],
            zorder=3,
            label="peers",
        )
        _name_points(axes, [(r.bytes, r.recall, r.name) for r in peers])
    if sizes:
        ticks = _thinned(sorted(sizes))
        axes.set_xlim(min(sizes) / 1.35, max(sizes) * 1.35)
        axes.set_xticks(ticks, [f"{n:,}" for n in ticks])
        axes.minorticks_off()
    axes.set_ylim(0, 1.02)
    if axes.get_legend_handles_labels()[0]:
        axes.legend(frameon=False, fontsize=9, loc="lower right")
    return to_svg(figure)


def _thinned(sizes: list[int]) -> list[int]:
    kept: list[int] = []
    for size in sizes:
        if not kept or size >= 1.4 * kept[-1]:
            kept.append(size)
    return kept


def _name_points(axes: Any, points: list[tuple[float, float, str]]) -> None:
    # Names of points of one size stand in a column beside it, pushed apart where they would touch.
    by_size: dict[float, list[tuple[float, str]]] = {}
    for x, y, name in points:
        by_size.setdefault(x, []).append((y, name))
    for x, column in by_size.items():
        below = -1.0
        for y, name in sorted(column):
            at = max(y, below + 0.048)
            below = at
            axes.annotate(
                plain(name),
                (x, y),
                xytext=(1.07 * x, at),
                textcoords="data",
                fontsize=8,
                color=INK,
                va="center",
                zorder=6,
                path_effects=outline(2.5),
                arrowprops={"arrowstyle": "-", "color": "#9aa5b1", "linewidth": 0.6},
            )


def rerank_recall(evaluation: Evaluation) -> bytes | None:
    """Recall once the first hits are reordered, against how many they are."""
    if not evaluation.rerank:
        return None
    figure = new_figure(5.2, 3.4)
    axes = figure.add_subplot()
    tidy(axes, x="candidates reordered (logarithmic)", y=f"recall@{evaluation.k}")
    axes.set_xscale("log")
    for form in dict.fromkeys(p.form for p in evaluation.rerank):
        points = [(p.candidates, p.recall) for p in evaluation.rerank if p.form == form]
        color = FORM_COLORS.get(form, COLORS[0])
        axes.plot(*zip(*points, strict=True), marker="o", color=color, label=plain(form))
    ticks = sorted({p.candidates for p in evaluation.rerank})
    axes.set_xticks(ticks, [f"{n:,}" for n in ticks])
    axes.minorticks_off()
    lowest = min(p.recall for p in evaluation.rerank)
    axes.set_ylim(max(0.0, lowest - 0.08), 1.01)
    axes.legend(frameon=False, fontsize=9, loc="lower right")
    return to_svg(figure)


def reconstruction_cosines(evaluation: Evaluation) -> bytes | None:
    """Histogram of the cosines between embeddings and what is restored of them."""
    if not evaluation.reconstruction:
        return None
    figure = new_figure(5.2, 3.4)
    axes = figure.add_subplot()
    tidy(axes, x="cosine with the original embedding", y="share of vectors, per unit of cosine")
    for item in evaluation.reconstruction:
        color = FORM_COLORS.get(item.form, COLORS[0])
        heights = [
            count / max(1, item.rows) / max(high - low, 1e-12)
            for count, low, high in zip(item.counts, item.edges[:-1], item.edges[1:], strict=True)
        ]
        label = f"{item.form}: mean {item.cosine_mean:.3f}"
        axes.stairs(heights, item.edges, fill=True, alpha=0.25, color=color)
        axes.stairs(heights, item.edges, color=color, linewidth=1.3, label=plain(label))
    axes.set_yticks([])
    axes.set_ylabel("density", color=INK)
    axes.set_xlim(min(item.edges[0] for item in evaluation.reconstruction), 1.0)
    axes.legend(frameon=False, fontsize=9, loc="upper left")
    return to_svg(figure)


def training(evaluation: Evaluation) -> bytes | None:
    """Held-out recall and training loss over the steps, a panel each."""
    towers = {name: records for name, records in evaluation.history.items() if records}
    panels = [
        (key, title)
        for key, title in (("recall", "held-out recall"), ("loss", "training loss"))
        if any(key in record for records in towers.values() for record in records)
    ]
    if not panels:
        return None
    figure = new_figure(5.2 * len(panels), 3.4)
    for place, (key, title) in enumerate(panels):
        axes = figure.add_subplot(1, len(panels), place + 1)
        tidy(axes, x="step", y=title)
        for name, records in towers.items():
            points = [(r.get("step", j), r[key]) for j, r in enumerate(records) if key in r]
            if points:
                color = FORM_COLORS.get(name, COLORS[0])
                line = zip(*points, strict=True)
                axes.plot(*line, marker=".", color=color, label=plain(name))
        axes.legend(frameon=False, fontsize=9)
    return to_svg(figure)


def index_recall(evaluation: Evaluation) -> bytes | None:
    """Recall of an index against the time of a query, from few inverted lists to many."""
    loss = evaluation.index
    if loss is None or len(loss.points) < 2:
        return None
    figure = new_figure(5.2, 3.4)
    axes = figure.add_subplot()
    tidy(axes, x="microseconds a query (logarithmic)", y=f"recall@{evaluation.k}")
    axes.set_xscale("log")
    color = FORM_COLORS.get(loss.form, COLORS[0])
    axes.axhline(loss.scan, color=INK, linestyle="--", linewidth=1.2, label=f"all {loss.form}")
    plain_points = [p for p in loss.points if not p.reranked]
    axes.plot(
        [p.microseconds for p in plain_points],
        [p.recall for p in plain_points],
        marker="o",
        color=color,
        label="the index",
    )
    # The first, the default and the last are named; the others lie between them.
    shown = {plain_points[0].name, plain_points[-1].name}
    shown |= {p.name for p in plain_points if p.nprobe in _defaults(loss)}
    for p in plain_points:
        if p.name in shown:
            axes.annotate(
                plain(p.name),
                (p.microseconds, p.recall),
                xytext=(0, -14),
                textcoords="offset points",
                ha="center",
                fontsize=8,
                color=INK,
                path_effects=outline(2.5),
            )
    for p in loss.points:
        if p.reranked:
            axes.plot(
                p.microseconds, p.recall, "D", color=COLORS[0], markersize=8, label=plain(p.name)
            )
    lowest, highest = min(p.recall for p in loss.points), max(p.recall for p in loss.points)
    axes.set_ylim(max(0.0, lowest - 0.12), min(1.02, max(highest, loss.scan) + 0.06))
    axes.margins(x=0.18)
    _plain_ticks(axes)
    axes.legend(frameon=False, fontsize=9, loc="lower right")
    return to_svg(figure)


def _defaults(loss: IndexLoss) -> set[int | None]:
    return {p.nprobe for p in loss.points if p.default}


def _plain_ticks(axes: Any) -> None:
    """1, 2, 5, 10 ... in place of powers of ten."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    axes.xaxis.set_minor_formatter(NullFormatter())
