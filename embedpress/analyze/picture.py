"""The drawing of a map: a point for each row, coloured and named by group."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from embedpress.analyze.names import PALETTE, densest, name_groups, spread_colors
from embedpress.errors import InputError, UsageError
from embedpress.evaluate.figure import INK, new_figure, plain, to_png
from embedpress.vectors.check import check_vectors
from embedpress.vectors.files import write_atomic

Floats = NDArray[np.float32]
OTHERS = "#b4bcc5"
ASPECT = 0.78
MOST_GROUPS = 40
CROWDED = 15_000
"""Points above which their density is shaded in place of single ones."""
KERNEL = (0.06, 0.24, 0.4, 0.24, 0.06)


def draw_map(
    points: Any,
    groups: Sequence[Any] | NDArray[Any],
    path: str | Path,
    *,
    title: str,
    most_groups: int | None = None,
) -> None:
    """Draw points coloured by group, each group named where it is densest.

    Parameters
    ----------
    points : array_like, shape (n, 2), float
    groups : sequence, length n
        Names or numbers; the largest `most_groups` get a colour and a name, others are grey.
        Of more than 12 some share a colour, far from each other.
    path : str or Path
        The PNG to write, replaced as a whole.
    title : str
    most_groups : int, optional
        1 to 40; by default 12 where these hold most of the points, else 40.

    Raises
    ------
    InputError
        Points that cannot be drawn, or groups of another number.
    UsageError
        `most_groups` out of range.
    MissingDependencyError
        Without matplotlib.
    StorageError
        If the disk refuses.
    """
    xy = check_vectors(points, dim=2, what="points")
    if len(groups) != len(xy):
        raise InputError(f"there are {len(groups)} groups for {len(xy)} points")
    if most_groups is not None and not 1 <= most_groups <= MOST_GROUPS:
        raise UsageError(f"most_groups is {most_groups}: give 1 to {MOST_GROUPS}")
    texts = np.asarray([str(group) for group in groups], dtype=object)
    names, numbers, sizes = np.unique(texts, return_inverse=True, return_counts=True)
    order = np.argsort(-sizes, kind="stable")
    if most_groups is None:
        few = sizes[order[: len(PALETTE)]].sum() > len(xy) / 2
        most_groups = len(PALETTE) if few else MOST_GROUPS
    shown = order[:most_groups]
    rank = np.full(len(names), len(shown))
    rank[shown] = np.arange(len(shown))
    write_atomic(path, _draw(xy, rank[numbers], [str(names[g]) for g in shown], title))


def _draw(points: Floats, groups: NDArray[np.int64], names: list[str], title: str) -> bytes:
    figure = new_figure(10, 8, dpi=160)
    axes = figure.add_subplot()
    low, high = _window(points)
    axes.set(xlim=(low[0], high[0]), ylim=(low[1], high[1]), xticks=[], yticks=[])
    axes.set_box_aspect(ASPECT)
    centres = [densest(points[groups == group]) for group in range(len(names))]
    colors = [*spread_colors(centres, high - low), OTHERS]
    if len(points) > CROWDED:
        shade = _shading(points, groups, colors, low, high)
        extent = (low[0], high[0], low[1], high[1])
        axes.imshow(shade, extent=extent, origin="lower", aspect="auto", interpolation="bilinear")
    else:
        # One shuffled layer, so that no group hides another by being drawn last.
        order = np.random.default_rng(0).permutation(len(points))
        axes.scatter(
            points[order, 0],
            points[order, 1],
            s=float(np.clip(70_000 / len(points), 5, 26)),
            c=[colors[group] for group in groups[order]],
            alpha=0.8,
            linewidths=0,
        )
    axes.set_title(plain(title), color=INK, fontsize=13, loc="left", pad=10)
    for spine in axes.spines.values():
        spine.set_color("#c9d0d8")
    rest = float((groups == len(names)).mean())
    if rest:
        axes.set_xlabel(f"grey: smaller groups, {rest:.0%} of the points", color=INK, loc="left")
    name_groups(figure, axes, names, centres, colors)
    return to_png(figure)


def _shading(
    points: Floats,
    groups: NDArray[np.int64],
    colors: list[str],
    low: NDArray[np.float64],
    high: NDArray[np.float64],
) -> NDArray[np.float32]:
    """An image of the density: hue by the groups of a cell, strength by its number of points.

    Single points would lie on top of each other, and then the picture shows the order of drawing.
    """
    from matplotlib.colors import to_rgb

    tall = int(np.clip(np.sqrt(len(points)) * 1.7, 250, 900))
    shape = np.array([round(tall / ASPECT), tall])
    cell = ((points - low) / (high - low) * shape).astype(np.int64)
    inside = ((cell >= 0) & (cell < shape)).all(axis=1)
    flat = cell[inside, 1] * shape[0] + cell[inside, 0]
    counts = np.stack(
        [
            _softened(
                np.bincount(flat[groups[inside] == g], minlength=int(shape.prod()))
                .reshape(tall, -1)
                .astype(np.float32)
            )
            for g in range(len(colors))
        ]
    )
    total = counts.sum(axis=0)
    # Squared shares let the leading group of a cell tell, where plain ones would mix to mud.
    shares = (counts / np.maximum(total, 1e-9)) ** 2
    shares[-1] *= 0.5
    shares /= np.maximum(shares.sum(axis=0), 1e-9)
    rgb = np.array([to_rgb(color) for color in colors], np.float32)
    strong = np.quantile(total[total > 0.05], 0.95)
    alpha = np.clip(total / strong, 0, 1) ** 0.5
    hue = np.einsum("gyx,gc->yxc", shares, rgb)
    return np.asarray(np.clip(np.dstack([hue, 0.95 * alpha]), 0, 1), np.float32)


def _softened(image: NDArray[np.float32]) -> NDArray[np.float32]:
    for axis in (0, 1):
        padded = np.pad(image, [(2, 2) if a == axis else (0, 0) for a in (0, 1)])
        n = image.shape[axis]
        shifted = [padded.take(range(s, s + n), axis=axis) for s in range(5)]
        image = np.tensordot(np.asarray(KERNEL, np.float32), np.stack(shifted), axes=1)
    return image


def _window(points: Floats) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The part of the plane that is shown: a few far points must not shrink all others."""
    low, high = np.percentile(points.astype(np.float64), [0.1, 99.9], axis=0)
    width = np.maximum(high - low, 1e-6 * np.maximum(1.0, np.abs(high)))
    return low - 0.05 * width, high + 0.05 * width
