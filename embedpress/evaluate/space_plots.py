"""The plots of the compressed space, each from an :class:`Evaluation` to SVG, or None."""

from __future__ import annotations

import numpy as np

from embedpress.evaluate.figure import COLORS, FAINT, INK, new_figure, plain, tidy, to_svg
from embedpress.evaluate.plots import FORM_COLORS
from embedpress.evaluate.result import Evaluation


def neighbourhoods(evaluation: Evaluation) -> bytes | None:
    """Trustworthiness and continuity against the number of neighbours, a panel each."""
    if not evaluation.neighbourhoods:
        return None
    figure = new_figure(10.4, 3.4)
    forms = dict.fromkeys(one.form for one in evaluation.neighbourhoods)
    lowest = min(min(o.trustworthiness, o.continuity) for o in evaluation.neighbourhoods)
    for place, name in enumerate(("trustworthiness", "continuity")):
        axes = figure.add_subplot(1, 2, place + 1)
        tidy(axes, x="neighbours (logarithmic)", y=name)
        axes.set_xscale("log")
        for form in forms:
            points = [(o.k, getattr(o, name)) for o in evaluation.neighbourhoods if o.form == form]
            color = FORM_COLORS.get(form, COLORS[0])
            marker = "o" if form == "codes" else "s"
            axes.plot(*zip(*points, strict=True), marker=marker, color=color, label=plain(form))
        ks = sorted({o.k for o in evaluation.neighbourhoods})
        axes.set_xticks(ks, [f"{k:,}" for k in ks])
        axes.minorticks_off()
        axes.set_ylim(lowest - 0.1 * (1.02 - lowest), 1 + 0.03 * (1.02 - lowest))
        axes.legend(frameon=False, fontsize=9, loc="lower left")
    return to_svg(figure)


def latent_histograms(evaluation: Evaluation) -> bytes | None:
    """The distribution of every component of the latents: a column each, dark where many are.

    One hue, light to dark, is read alike with and without colour vision.
    """
    space = evaluation.latents
    if space is None or not space.histograms:
        return None
    counts = np.asarray(space.histograms, np.float64).T
    shares = counts / np.maximum(counts.sum(axis=0), 1)
    figure = new_figure(10.4, 3.6)
    axes = figure.add_subplot()
    tidy(axes, x="component of the latents", y="value")
    n = space.n_components
    extent = (0.5, n + 0.5, space.edges[0], space.edges[-1])
    drawn = axes.imshow(
        100 * shares, origin="lower", aspect="auto", extent=extent, cmap="Blues",
        vmin=0, vmax=100 * float(np.quantile(shares.max(axis=0), 0.9)) or 1,
        interpolation="nearest",
    )  # fmt: skip
    axes.grid(False)
    bar = figure.colorbar(drawn, ax=axes, extend="max", pad=0.015)
    bar.set_label("% of vectors in a bin", color=INK)
    bar.outline.set_visible(False)
    return to_svg(figure)


def latent_spectrum(evaluation: Evaluation) -> bytes | None:
    """Share of the latents' variance along each of their principal directions."""
    space = evaluation.latents
    if space is None:
        return None
    figure = new_figure(5.2, 3.4)
    axes = figure.add_subplot()
    tidy(axes, x="principal direction of the latents", y="share of variance")
    n = space.n_components
    axes.bar(range(1, n + 1), space.variance_shares, width=1.0, color=FORM_COLORS["latents"])
    axes.axvline(space.effective_rank, color=INK, linestyle="--", linewidth=1.2)
    right = space.effective_rank > 0.6 * n
    axes.annotate(
        f"effective rank {space.effective_rank:.1f}",
        (space.effective_rank, 0.94 * max(space.variance_shares)),
        xytext=(-5 if right else 5, 0),
        textcoords="offset points",
        ha="right" if right else "left",
        fontsize=9,
        color=INK,
    )
    axes.set_xlim(0.4, n + 0.6)
    axes.grid(False, axis="x")
    return to_svg(figure)


def code_entropy(evaluation: Evaluation) -> bytes | None:
    """Bits that each byte of a code carries."""
    use = evaluation.codes
    if use is None:
        return None
    figure = new_figure(5.2, 3.4)
    axes = figure.add_subplot()
    tidy(axes, x="byte of the code", y="entropy (bits of 8)")
    axes.bar(range(use.code_size), [8] * use.code_size, width=0.86, color=FAINT)
    axes.bar(range(use.code_size), use.entropy_bits, width=0.86, color=FORM_COLORS["codes"])
    axes.set_ylim(0, 8.2)
    axes.set_xlim(-0.6, use.code_size - 0.4)
    axes.grid(False, axis="x")
    return to_svg(figure)
