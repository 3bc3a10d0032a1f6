"""Names and colours of the groups on a map."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from embedpress.evaluate.figure import outline, plain

Point = tuple[float, float]
# Tol's muted and vibrant schemes joined: told apart by all common kinds of colour blindness when
# names stand beside them.
PALETTE = (
    "#332288", "#ee7733", "#117733", "#cc3377", "#33bbee", "#999933", "#882255", "#44aa99",
    "#aa4499", "#0077bb", "#b8860b", "#cc6677",
)  # fmt: skip
LONGEST = 28


def spread_colors(centres: list[Point], extent: NDArray[np.float64]) -> list[str]:
    """A colour for each group; where one serves twice, its groups lie far apart.

    Parameters
    ----------
    centres : list of (x, y)
        Of the groups, the largest first.
    extent : ndarray, shape (2,), float64
        Width and height of the map.

    Returns
    -------
    list of str
    """
    chosen: list[int] = []
    places = np.asarray(centres, np.float64).reshape(-1, 2) / extent
    for group, place in enumerate(places):
        if group < len(PALETTE):
            chosen.append(group)
            continue
        away = np.linalg.norm(places[:group] - place, axis=1)
        taken = np.asarray(chosen)
        nearest = [float(away[taken == color].min()) for color in range(len(PALETTE))]
        chosen.append(int(np.argmax(nearest)))
    return [PALETTE[color] for color in chosen]


def name_groups(
    figure: Any, axes: Any, names: list[str], centres: list[Point], colors: list[str]
) -> None:
    """Write the names of groups near their centres, none over another.

    The largest come first; a name that finds no free place nearby is left out.
    """
    figure.draw_without_rendering()
    taken: list[Any] = []
    crowded = len(names) > len(PALETTE)
    for name, (x, y), color in zip(names, centres, colors, strict=False):
        text = plain(name if len(name) <= LONGEST else name[: LONGEST - 1] + "…")
        label = axes.text(
            x, y, text, fontsize=8 if crowded else 11, fontweight="bold", ha="center",
            va="center", color=color, path_effects=outline(3 if crowded else 4), zorder=5,
        )  # fmt: skip
        label.set_in_layout(False)
        box = _settle(figure, axes, label, taken)
        if box is None:
            label.remove()
        else:
            taken.append(box)


def _settle(figure: Any, axes: Any, label: Any, taken: list[Any]) -> Any:
    """Move a name the least until it covers no other, and into the frame; None if it cannot."""
    from matplotlib.transforms import Bbox

    renderer = figure.canvas.get_renderer()
    box = label.get_window_extent(renderer)
    frame = axes.get_window_extent(renderer)
    width, height = box.width + 6, box.height + 2
    wanted = np.array([(box.x0 + box.x1) / 2, (box.y0 + box.y1) / 2])
    low = np.array([frame.x0 + width / 2, frame.y0 + height / 2])
    high = np.maximum(low, [frame.x1 - width / 2, frame.y1 - height / 2])

    def box_at(centre: NDArray[np.float64]) -> Any:
        return Bbox.from_bounds(centre[0] - width / 2, centre[1] - height / 2, width, height)

    for radius in np.arange(0, 10) * 0.75 * height:
        turns = np.linspace(0, 2 * np.pi, 17)[:-1] + np.pi / 2
        ring = wanted + radius * np.column_stack([np.cos(turns) * 1.6, np.sin(turns)])
        free = [
            c for c in np.clip(ring, low, high) if not any(box_at(c).overlaps(b) for b in taken)
        ]
        if free:
            label.set_position(axes.transData.inverted().transform(free[0]))
            return box_at(free[0])
    return None


def densest(points: NDArray[np.float32]) -> Point:
    """Where most of a group lies: the middle of the points around its fullest grid cell."""
    if len(points) < 8:
        x, y = np.median(points, axis=0)
        return float(x), float(y)
    bins = int(np.clip(np.sqrt(len(points)) / 3, 4, 24))
    counts, x_edges, y_edges = np.histogram2d(points[:, 0], points[:, 1], bins=bins)
    padded = np.pad(counts, 1)
    around = sum(
        padded[1 + i : padded.shape[0] - 1 + i, 1 + j : padded.shape[1] - 1 + j]
        for i in (-1, 0, 1)
        for j in (-1, 0, 1)
    )
    i, j = np.unravel_index(int(np.argmax(around)), counts.shape)
    x0, x1 = x_edges[max(0, i - 1)], x_edges[min(bins, i + 2)]
    y0, y1 = y_edges[max(0, j - 1)], y_edges[min(bins, j + 2)]
    inside = (points[:, 0] >= x0) & (points[:, 0] <= x1)
    inside &= (points[:, 1] >= y0) & (points[:, 1] <= y1)
    x, y = np.median(points[inside], axis=0)
    return float(x), float(y)
