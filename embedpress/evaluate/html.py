"""Pieces of the report's HTML: no script, no style attribute, nothing from elsewhere."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from html import escape


def section(title: str, note: str, content: str) -> str:
    """A titled part with a line of explanation."""
    return f'<section><h2>{escape(title)}</h2><p class="note">{escape(note)}</p>{content}</section>'


def table(head: Sequence[str], body: str) -> str:
    """A table of finished rows."""
    cells = "".join(f"<th>{escape(cell)}</th>" for cell in head)
    return f'<div class="scroll"><table><tr>{cells}</tr>{body}</table></div>'


def table_row(cells: Sequence[str], *, ours: bool = False) -> str:
    """A row of cells that are HTML already."""
    start = '<tr class="ours">' if ours else "<tr>"
    return start + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>"


def note(text: str) -> str:
    """A line between two figures."""
    return f'<p class="note">{escape(text)}</p>'


def pair(*parts: str) -> str:
    """Figures side by side where there is room; those without data are left out."""
    boxes = "".join(f"<div>{part}</div>" for part in parts if part)
    return f'<div class="pair">{boxes}</div>' if boxes else ""


def plot(svg: bytes | None, alt: str) -> str:
    """A plot as an image."""
    return "" if svg is None else picture(svg, "image/svg+xml", alt, kind="plot")


def picture(data: bytes, media_type: str, alt: str, *, kind: str) -> str:
    """An image that lies in the page: no script or style can pass between it and the page."""
    coded = base64.b64encode(data).decode("ascii")
    return f'<img class="{kind}" alt="{escape(alt)}" src="data:{media_type};base64,{coded}">'


def interval(low: float, high: float, sign: str = "") -> str:
    """The two ends of an interval."""
    return f'<span class="interval">[{low:{sign}.3f}, {high:{sign}.3f}]</span>'


def bar(share: float, low: float | None = None, high: float | None = None) -> str:
    """A share of 1 as a bar, its interval as two ticks."""
    ticks = "".join(
        f'<rect class="tick" x="{100 * end - 0.4:.2f}" y="2" width="0.8" height="8"/>'
        for end in (low, high)
        if end is not None
    )
    return (
        '<svg class="track" viewBox="0 0 100 12" preserveAspectRatio="none" aria-hidden="true">'
        '<rect class="ground" width="100" height="12"/>'
        f'<rect class="fill" width="{100 * share:.2f}" height="12"/>{ticks}</svg>'
    )
