"""The report's section on the queries that lost the most, as text or as pictures."""

from __future__ import annotations

import io
from html import escape
from pathlib import Path

from embedpress.errors import InputError
from embedpress.evaluate.html import picture, section
from embedpress.evaluate.result import Evaluation, WorstQuery

SIDE = 112


def worst(e: Evaluation, images: Path | None = None) -> str:
    """Queries of lowest recall, what they lost and what came instead.

    Parameters
    ----------
    e : Evaluation
    images : Path, optional
        The folder in which texts are names of photos.
    """
    if not e.worst:
        return ""
    about = f"The queries of lowest recall@{e.k} by {e.form}, and a few of the hits they lost."
    return section("Worst queries", about, "".join(_query(e, q, images) for q in e.worst))


def _query(e: Evaluation, q: WorstQuery, images: Path | None) -> str:
    lists = "".join(
        f'<div class="hits"><span class="tag">{tag}</span>{_shown(hits, images)}</div>'
        for tag, hits in (("lost", q.lost), ("came instead", q.intruders))
        if hits
    )
    text = q.text if q.text is not None else f"query {q.row}"
    asked = f"<b>{escape(text)}</b>" if images is None else _photo(text, images)
    share = f'<span class="share">{q.recall * e.k:.0f} of {e.k} found</span>'
    return f'<div class="query">{share}{asked}{lists}</div>'


def _shown(hits: list[str], images: Path | None) -> str:
    if images is not None:
        return f'<div class="photos">{"".join(_photo(hit, images) for hit in hits)}</div>'
    return "<ul>" + "".join(f"<li>{escape(hit)}</li>" for hit in hits) + "</ul>"


def _photo(name: str, images: Path) -> str:
    """A small copy of a photo in the page, or its name where it cannot be read."""
    from embedpress.analyze.sheet import photo_path, thumbnail

    try:
        small = thumbnail(photo_path(images, name), SIDE)
    except InputError:
        return f"<b>{escape(name)}</b>"
    out = io.BytesIO()
    small.save(out, format="JPEG", quality=85)
    return picture(out.getvalue(), "image/jpeg", name, kind="photo")
