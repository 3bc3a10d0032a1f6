"""The report of an evaluation: one HTML file with everything in it."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping
from html import escape
from importlib import resources
from pathlib import Path
from typing import Any

from embedpress.evaluate import inside, sections
from embedpress.evaluate.headline import cards, verdict
from embedpress.evaluate.result import Evaluation
from embedpress.evaluate.worst import worst
from embedpress.vectors.files import write_atomic


def write_report(
    path: str | Path,
    result: Evaluation | Mapping[str, Any],
    *,
    title: str = "What compression keeps",
    images: str | Path | None = None,
) -> None:
    """Write an evaluation as one self-contained HTML file.

    Parameters
    ----------
    path : str or Path
        The file; it is replaced as a whole.
    result : Evaluation or mapping
        An evaluation, or its :meth:`~embedpress.evaluate.result.Evaluation.to_dict`.
    title : str
    images : str or Path, optional
        The folder in which the texts of the worst queries are names of photos: small copies of
        these are put into the page.

    Raises
    ------
    FormatError
        A mapping that is not an evaluation.
    MissingDependencyError
        Without matplotlib.
    StorageError
        If the disk refuses.
    """
    write_atomic(path, render(result, title=title, images=images))


def render(
    result: Evaluation | Mapping[str, Any],
    *,
    title: str = "What compression keeps",
    images: str | Path | None = None,
) -> str:
    """The report as HTML text; see :func:`write_report`."""
    e = result if isinstance(result, Evaluation) else Evaluation.from_dict(dict(result))
    style = resources.files("embedpress.evaluate").joinpath("report.css").read_text("utf-8")
    setup = (
        f"{e.base_rows:,} base vectors of {e.dim} dimensions, {e.query_rows:,} held-out queries, "
        f"metric {e.metric}, recall@{e.k}. Intervals are 95 % bootstrap intervals over the queries."
    )
    parts = [
        f"<h1>{escape(title)}</h1>",
        f'<p class="setup">{escape(setup)}</p>',
        cards(e),
        f'<p class="verdict">{escape(verdict(e))}</p>',
        sections.recalls(e),
        sections.rates(e),
        sections.index(e),
        sections.relevance(e),
        sections.savings(e),
        inside.reconstructions(e),
        inside.neighbourhoods(e),
        inside.space(e),
        inside.training(e),
        worst(e, None if images is None else Path(images)),
    ]
    body = "\n".join(part for part in parts if part)
    # What the page may use, so that nothing in a text can make it use more.
    digest = base64.b64encode(hashlib.sha256(f"\n{style}".encode()).digest()).decode("ascii")
    policy = f"default-src 'none'; img-src data:; style-src 'sha256-{digest}'"
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>\n{style}</style>\n</head>\n"
        f"<body>\n<main>\n{body}\n<footer>Made by embedpress. Seed {e.seed}.</footer>\n"
        "</main>\n</body>\n</html>\n"
    )
