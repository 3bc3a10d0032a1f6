"""The top of the report: the outcome in sentences and in a row of cards."""

from __future__ import annotations

from html import escape

from embedpress.evaluate.result import Evaluation, RecallRow


def verdict(e: Evaluation) -> str:
    """The outcome in two or three sentences."""
    ours = e.row(e.form)
    if ours is None:
        return "Nothing compressed was measured."
    size = f"{ours.bytes:,} {'byte' if ours.bytes == 1 else 'bytes'}"
    text = [
        f"At {size} a vector, search by {e.form} finds {ours.recall:.1%} of the {e.k} nearest "
        "neighbours that the full embeddings give."
    ]
    peers = [r for r in e.recall if r.kind == "peer" and r.bytes == ours.bytes]
    if peers:
        best = max(peers, key=lambda r: r.recall)
        text.append(_against(best))
    channel = [p for p in e.curve if p.name == "Gaussian channel" and p.bytes == ours.bytes]
    if channel:
        where = "above" if ours.recall > channel[0].recall else "below"
        text.append(
            f"That is {where} the Gaussian channel of that rate ({channel[0].recall:.3f}), what an "
            "ideal code would keep if the embeddings were Gaussian."
        )
    return " ".join(text)


def _against(best: RecallRow) -> str:
    head = f"The best peer of as many bytes is {best.name} with {best.recall:.3f}"
    if best.difference is None or best.difference_low is None or best.difference_high is None:
        return f"{head}."
    lead, low, high = -best.difference, -best.difference_high, -best.difference_low
    sure = "" if low > 0 or high < 0 else ", which may be chance"
    word = "behind" if lead >= 0 else "ahead"
    span = (low, high) if lead >= 0 else (-high, -low)
    return f"{head}, {abs(lead):.3f} [{span[0]:.3f}, {span[1]:.3f}] {word}{sure}."


def cards(e: Evaluation) -> str:
    """Sizes and recall before and after, as HTML."""
    ours = e.row(e.form)
    if ours is None:
        return ""
    before = e.original_bytes * e.base_rows
    shown = [
        (
            "bytes a vector",
            f"{e.original_bytes:,} → {ours.bytes:,}",
            f"{e.original_bytes / ours.bytes:.1f} times smaller",
        ),
        (
            "this base",
            f"{size_text(before)} → {size_text(ours.bytes * e.base_rows)}",
            f"{e.base_rows:,} vectors",
        ),
        (
            f"recall@{e.k}",
            f"1.000 → {ours.recall:.3f}",
            f"95 % interval {ours.low:.3f} to {ours.high:.3f}",
        ),
    ]
    reranked = [p for p in e.rerank if p.form == e.form and p.candidates == 10 * e.k]
    if reranked:
        what = f"recall@{e.k} after reranking"
        note = f"first {10 * e.k:,} hits put in order by the embeddings"
        shown.append((what, f"{reranked[0].recall:.3f}", note))
    boxes = "".join(
        f'<div class="card"><div class="what">{escape(what)}</div>'
        f'<div class="figure">{escape(figure)}</div><div class="more">{escape(more)}</div></div>'
        for what, figure, more in shown
    )
    return f'<div class="cards">{boxes}</div>'


def size_text(n: int) -> str:
    """Bytes in a unit that a person can read."""
    value = float(n)
    for unit in ("B", "KB", "MB", "GB"):
        if value < 1000:
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.3g} {unit}"
        value /= 1000
    return f"{value:.3g} TB"
