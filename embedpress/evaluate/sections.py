"""The report's sections on search, each from an :class:`Evaluation` to HTML, empty without data."""

from __future__ import annotations

from html import escape

from embedpress.evaluate import plots
from embedpress.evaluate.headline import size_text
from embedpress.evaluate.html import bar, interval, note, plot, section, table, table_row
from embedpress.evaluate.result import Evaluation, RecallRow

OURS = ("codes", "latents")


def recalls(e: Evaluation) -> str:
    """Table of recall at equal bytes, and of recall at other depths."""
    order = {"original": 0, "codes": 1, "latents": 1, "peer": 2}
    rows = sorted(e.recall, key=lambda r: (-r.bytes, order.get(r.kind, 3), -r.recall))
    about = (
        "Every byte stored for a vector is counted. Queries are never compressed; every form is "
        "searched by brute force. “Less ours” is a peer's recall less that of the form of as many "
        "bytes, query by query. Brackets, and the ticks on a bar, are intervals."
    )
    head = ("stored as", "bytes", "", f"recall@{e.k}", "less ours", "vectors/s", "training")
    body = "".join(_recall_row(r) for r in rows)
    return section("Recall at equal bytes", about, table(head, body) + _depths(e))


def _recall_row(r: RecallRow) -> str:
    ours, exact = r.kind in OURS, r.kind == "original"
    speed, training = r.encode_rows_per_second, r.train_seconds
    cells = [
        escape(_name(r.name)),
        f"{r.bytes:,}",
        bar(r.recall) if exact else bar(r.recall, r.low, r.high),
        f"{r.recall:.3f}" + ("" if exact else f" {interval(r.low, r.high)}"),
        "–",
        "–" if speed is None else f"{speed:,.0f}",
        "–" if training is None else f"{training:,.1f} s",
    ]
    if r.difference is not None:
        cells[4] = f"{r.difference:+.3f}"
        if r.difference_low is not None and r.difference_high is not None:
            cells[4] += f" {interval(r.difference_low, r.difference_high, '+')}"
    return table_row(cells, ours=ours)


def _name(name: str) -> str:
    return f"embedpress {name}" if name.startswith(OURS) else name


def _depths(e: Evaluation) -> str:
    ks = sorted({one.k for one in e.depths})
    if not ks:
        return ""
    lines: dict[tuple[str, int], dict[int, str]] = {}
    for one in e.depths:
        exact = one.low == one.high == 1
        figure = f"{one.recall:.3f}" + ("" if exact else f" {interval(one.low, one.high)}")
        lines.setdefault((one.name, one.bytes), {})[one.k] = figure
    body = "".join(
        table_row(
            [escape(_name(name)), f"{size:,}", *(line.get(k, "–") for k in ks)],
            ours=name.startswith(OURS),
        )
        for (name, size), line in lines.items()
    )
    words = (
        "Before compression (embeddings) and after, by how many neighbours count: "
        "of the true k, the share among the first k hits."
    )
    return note(words) + table(("stored as", "bytes", *(f"recall@{k}" for k in ks)), body)


def rates(e: Evaluation) -> str:
    """Recall against bytes and against reranked candidates."""
    about = (
        "The dashed line is simulated: base vectors pass through the Gaussian channel of reverse "
        "water-filling, with the covariance of this base. A code above it has made use of what is "
        "not Gaussian in the embeddings, or of what search does not need."
    )
    left = plot(plots.rate_recall(e), "Recall against bytes a vector")
    right = plot(plots.rerank_recall(e), "Recall after reranking against candidates")
    more = note("Recall once the first hits are put in order by the embeddings:") if right else ""
    return section("Rate and recall", about, left + more + right)


def index(e: Evaluation) -> str:
    """What the index loses, apart from what compression loses."""
    if e.index is None:
        return ""
    lost = 1 - e.index.scan
    about = (
        f"Compression loses {lost:.3f} of recall@{e.k}: a scan of all {e.index.form} finds "
        f"{e.index.scan:.3f}. What the index ({e.index.factory}) loses beyond that is the last "
        "column but one; a rerank tier wins back what compression lost. In bold: as it is "
        "searched by default."
    )
    body = "".join(
        table_row(
            [
                escape(p.name),
                f"{p.recall:.3f} {interval(p.low, p.high)}",
                f"{p.difference:+.3f} {interval(p.difference_low, p.difference_high, '+')}",
                f"{p.microseconds:,.0f} µs",
            ],
            ours=p.default,
        )
        for p in e.index.points
    )
    head = ("search", f"recall@{e.k}", "against the scan", "a query")
    picture = plot(plots.index_recall(e), "Recall of the index against time")
    return section("Compression loss and index loss", about, table(head, body) + picture)


def relevance(e: Evaluation) -> str:
    """nDCG and MRR by judgements."""
    if not e.relevance:
        return ""
    body = "".join(
        table_row(
            [
                escape(_name(r.name)),
                f"{r.bytes:,}",
                bar(r.ndcg, r.ndcg_low, r.ndcg_high),
                f"{r.ndcg:.3f} {interval(r.ndcg_low, r.ndcg_high)}",
                f"{r.mrr:.3f} {interval(r.mrr_low, r.mrr_high)}",
            ],
            ours=r.name.startswith(OURS),
        )
        for r in e.relevance
    )
    about = f"By relevance judgements of {e.relevance[0].queries:,} queries."
    if e.missing_judged:
        about += f" {e.missing_judged:,} judged documents are not in the base: never found."
    head = ("stored as", "bytes", "", f"nDCG@{e.k}", f"MRR@{e.k}")
    return section("Relevance", about, table(head, body))


def savings(e: Evaluation) -> str:
    """Bytes and money for a stated number of vectors."""
    shown = [r for r in e.recall if r.kind in ("original", *OURS)]
    if len(shown) < 2:
        return ""
    n = e.planned_vectors
    before = shown[0].bytes * n
    body = ""
    for r in shown:
        total = r.bytes * n
        saved = (before - total) / 1e9 * e.price
        body += table_row(
            [
                escape(_name(r.name)),
                f"{r.bytes:,}",
                size_text(total),
                f"${total / 1e9 * e.price:,.0f}",
                "–" if r.kind == "original" else f"${saved:,.0f}",
            ],
            ours=r.kind in OURS,
        )
    about = (
        f"{n:,} vectors in memory at ${e.price:,.2f} for a gigabyte (10⁹ bytes) and a month; say "
        "--planned-vectors and --price for others. Codes alone, without ids and without what is "
        "stored once."
    )
    head = ("stored as", "bytes a vector", "together", "a month", "saved a month")
    return section("Bytes and money", about, table(head, body))
