"""Figures by matplotlib without its global state: colours, a plain look, bytes out."""

from __future__ import annotations

import io
from typing import Any

from embedpress.errors import MissingDependencyError

# Okabe and Ito (2008): told apart by all common kinds of colour blindness.
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
INK = "#1d2733"
FAINT = "#d9dee4"


def new_figure(width: float, height: float, *, dpi: int = 100) -> Any:
    """An empty matplotlib figure of a size in inches.

    Raises
    ------
    MissingDependencyError
        Without matplotlib.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingDependencyError(
            "pictures need matplotlib: pip install 'embedpress[train]'"
        ) from error
    figure = Figure(figsize=(width, height), dpi=dpi, facecolor="white", layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def tidy(axes: Any, *, x: str, y: str) -> None:
    """Name the axes; keep only the lines that carry something."""
    axes.set_xlabel(x, color=INK)
    axes.set_ylabel(y, color=INK)
    axes.tick_params(colors=INK, labelsize=9)
    axes.grid(True, color=FAINT, linewidth=0.7)
    axes.set_axisbelow(True)
    for side, spine in axes.spines.items():
        spine.set_visible(side in ("left", "bottom"))
        spine.set_color("#8b95a1")


def outline(width: float) -> list[Any]:
    """Path effects that set text off from what is drawn beneath it."""
    from matplotlib.patheffects import withStroke

    return [withStroke(linewidth=width, foreground="white")]


def plain(text: str) -> str:
    """Text that matplotlib shows as it is, dollar signs too."""
    return " ".join(text.split()).replace("$", r"\$")


def to_svg(figure: Any) -> bytes:
    """The figure as SVG, the same bytes each time."""
    import matplotlib

    out = io.BytesIO()
    with matplotlib.rc_context({"svg.hashsalt": "embedpress", "svg.fonttype": "path"}):
        figure.savefig(out, format="svg", metadata={"Date": None, "Creator": None})
    return out.getvalue()


def to_png(figure: Any) -> bytes:
    """The figure as PNG, the same bytes each time."""
    out = io.BytesIO()
    figure.savefig(out, format="png", metadata={"Software": None})
    return out.getvalue()
