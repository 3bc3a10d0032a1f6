"""The sections of the report, each from an :class:`Evaluation` to HTML, empty without data."""

from __future__ import annotations

import base64
from html import escape

from embedpress.evaluate import plots
from embedpress.evaluate.result import Evaluation, RecallRow, WorstQuery


def recalls(e: Evaluation) -> str:
    """Table of recall at equal bytes."""
    order = {"original": 0, "codes": 1, "latents": 1, "peer": 2}
    rows = sorted(e.recall, key=lambda r: (-r.bytes, order.get(r.kind, 3), -r.recall))
    note = (
        "Every byte stored for a vector is counted. Queries are never compressed; every form is "
        "searched by brute force. “Less ours” is a peer's recall less that of the form of as many "
        "bytes, query by query. Brackets, and the black ticks on a bar, are intervals."
    )
    head = ("stored as", "bytes", "", f"recall@{e.k}", "less ours", "vectors/s", "training")
    body = "".join(_recall_row(row) for row in rows)
    return _section("Recall at equal bytes", note, _table(head, body))


def _recall_row(row: RecallRow) -> str:
    ours = row.kind in ("codes", "latents")
    left, width = 100 * row.low, 100 * max(0.0, row.high - row.low)
    span = f'<div class="span" style="left:{left:.2f}%;width:{width:.2f}%"></div>'
    fill = f'<div class="fill" style="width:{100 * row.recall:.2f}%"></div>'
    exact = row.kind == "original"
    speed, training = row.encode_rows_per_second, row.train_seconds
    cells = [
        escape(f"embedpress {row.name}" if ours else row.name),
        f"{row.bytes:,}",
        f'<div class="track">{fill}{"" if exact else span}</div>',
        f"{row.recall:.3f}" + ("" if exact else f" {_interval(row.low, row.high, '')}"),
        "–",
        "–" if speed is None else f"{speed:,.0f}",
        "–" if training is None else f"{training:,.1f} s",
    ]
    if row.difference is not None:
        cells[4] = f"{row.difference:+.3f}"
        if row.difference_low is not None and row.difference_high is not None:
            cells[4] += f" {_interval(row.difference_low, row.difference_high, '+')}"
    return _row(cells, ours=ours)


def _interval(low: float, high: float, sign: str) -> str:
    return f'<span class="interval">[{low:{sign}.3f}, {high:{sign}.3f}]</span>'


def rates(e: Evaluation) -> str:
    """Recall against bytes and against reranked candidates."""
    note = (
        "The dashed line is simulated: base vectors pass through the Gaussian channel of reverse "
        "water-filling, with the covariance of this base. A code above it has made use of what is "
        "not Gaussian in the embeddings, or of what search does not need."
    )
    left = _image(plots.rate_recall(e), "Recall against bytes a vector")
    right = _image(plots.rerank_recall(e), "Recall after reranking against candidates")
    more = (
        '<p class="note">Recall once the first hits are put in order by the embeddings:</p>'
        if right
        else ""
    )
    return _section("Rate and recall", note, left + more + right)


def relevance(e: Evaluation) -> str:
    """nDCG and MRR by judgements."""
    if not e.relevance:
        return ""
    body = "".join(
        _row(
            [
                escape(r.name),
                f"{r.bytes:,}",
                f"{r.ndcg:.3f} {_interval(r.ndcg_low, r.ndcg_high, '')}",
                f"{r.mrr:.3f} {_interval(r.mrr_low, r.mrr_high, '')}",
            ],
            ours=r.name in ("codes", "latents"),
        )
        for r in e.relevance
    )
    note = f"By relevance judgements of {e.relevance[0].queries:,} queries."
    head = ("stored as", "bytes", f"nDCG@{e.k}", f"MRR@{e.k}")
    return _section("Relevance", note, _table(head, body))


def reconstructions(e: Evaluation) -> str:
    """How near restored embeddings are."""
    picture = _image(plots.reconstruction_cosines(e), "Distribution of reconstruction cosines")
    if not picture:
        return ""
    names = {
        "cosine_mean": "mean cosine",
        "cosine_p01": "1 % of vectors below",
        "cosine_p05": "5 % below",
        "cosine_p50": "median",
        "cosine_p95": "95 % below",
        "relative_error": "squared error, share of the whole",
    }
    body = "".join(
        _row([label, *(f"{getattr(r, name):.3f}" for r in e.reconstruction)])
        for name, label in names.items()
    )
    note = "Cosine of held-out embeddings with what the decoder restores from the compressed form."
    table = _table(("", *(r.form for r in e.reconstruction)), body)
    return _section("Reconstruction", note, f'<div class="pair"><div>{picture}</div>{table}</div>')


def space(e: Evaluation) -> str:
    """Use of latents and codewords."""
    facts, pictures = [], []
    if e.latents is not None:
        dead = e.latents.dead
        facts.append(
            f"Latents: effective rank {e.latents.effective_rank:.1f} of {e.latents.n_components}, "
            f"{dead} dead {'component' if dead == 1 else 'components'}."
        )
        pictures.append(_image(plots.latent_spectrum(e), "Variance of the latents"))
    if e.codes is not None:
        unused, all_words = sum(e.codes.unused), 256 * e.codes.code_size
        mean = sum(e.codes.entropy_bits) / e.codes.code_size
        facts.append(
            f"Codes: {unused:,} of {all_words:,} codewords never used by {e.codes.rows:,} "
            f"vectors, {mean:.2f} bits of entropy a byte on average."
        )
        pictures.append(_image(plots.code_entropy(e), "Entropy of each byte of the codes"))
    if not facts:
        return ""
    items = "".join(f"<li>{escape(fact)}</li>" for fact in facts)
    note = "Whether the compressed space is used to the full."
    grid = f'<div class="pair">{"".join(f"<div>{p}</div>" for p in pictures)}</div>'
    return _section("Use of the space", note, f'<ul class="facts">{items}</ul>{grid}')


def training(e: Evaluation) -> str:
    """Training curves."""
    picture = _image(plots.training(e), "Training curves")
    note = "Held-out recall and loss as training went; step 0 is the linear start."
    return _section("Training", note, picture) if picture else ""


def worst(e: Evaluation) -> str:
    """Queries of lowest recall, as text."""
    if not e.worst:
        return ""
    note = f"The queries of lowest recall@{e.k} by {e.form}, and a few of the hits they lost."
    return _section("Worst queries", note, "".join(_query(e, q) for q in e.worst))


def _query(e: Evaluation, q: WorstQuery) -> str:
    text = q.text if q.text is not None else f"query {q.row}"
    lists = "".join(
        f'<div class="hits"><span class="tag">{tag}</span><ul>'
        + "".join(f"<li>{escape(hit)}</li>" for hit in hits)
        + "</ul></div>"
        for tag, hits in (("lost", q.lost), ("came instead", q.intruders))
        if hits
    )
    share = f'<span class="share">{q.recall * e.k:.0f} of {e.k}</span>'
    return f'<div class="query">{share}<b>{escape(text)}</b>{lists}</div>'


def _section(title: str, note: str, content: str) -> str:
    return f'<section><h2>{escape(title)}</h2><p class="note">{escape(note)}</p>{content}</section>'


def _table(head: tuple[str, ...], body: str) -> str:
    cells = "".join(f"<th>{escape(cell)}</th>" for cell in head)
    return f'<div class="scroll"><table><tr>{cells}</tr>{body}</table></div>'


def _row(cells: list[str], *, ours: bool = False) -> str:
    start = '<tr class="ours">' if ours else "<tr>"
    return start + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>"


def _image(svg: bytes | None, alt: str) -> str:
    if svg is None:
        return ""
    # As an image rather than inline: no script or style can pass between it and the page.
    data = base64.b64encode(svg).decode("ascii")
    return f'<img alt="{escape(alt)}" src="data:image/svg+xml;base64,{data}">'
