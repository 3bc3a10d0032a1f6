"""The report's sections on the compressor: what it restores, keeps near and makes use of."""

from __future__ import annotations

from html import escape

from embedpress.evaluate import plots, space_plots
from embedpress.evaluate.html import pair, plot, section, table, table_row
from embedpress.evaluate.result import Evaluation


def reconstructions(e: Evaluation) -> str:
    """How near restored embeddings are."""
    picture = plot(plots.reconstruction_cosines(e), "Distribution of reconstruction cosines")
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
        table_row([label, *(f"{getattr(r, name):.3f}" for r in e.reconstruction)])
        for name, label in names.items()
    )
    about = "Cosine of held-out embeddings with what the decoder restores from the compressed form."
    figures = table(("", *(r.form for r in e.reconstruction)), body)
    return section("Reconstruction", about, pair(picture, figures))


def neighbourhoods(e: Evaluation) -> str:
    """Trustworthiness and continuity."""
    picture = plot(space_plots.neighbourhoods(e), "Trustworthiness and continuity")
    if not picture:
        return ""
    rows = e.neighbourhoods[0].rows
    about = (
        f"Among {rows:,} vectors of the base, all pairs ranked before and after. Trustworthiness "
        "falls where strangers came near, continuity where neighbours went away; 1 is perfect, "
        "about .5 is chance."
    )
    return section("Neighbourhoods", about, picture)


def space(e: Evaluation) -> str:
    """Use of latents and codewords."""
    facts, pictures = [], []
    if e.latents is not None:
        dead = e.latents.dead
        facts.append(
            f"Latents: effective rank {e.latents.effective_rank:.1f} of {e.latents.n_components}, "
            f"{dead} dead {'component' if dead == 1 else 'components'}."
        )
        pictures.append(plot(space_plots.latent_spectrum(e), "Variance of the latents"))
    if e.codes is not None:
        unused, all_words = sum(e.codes.unused), 256 * e.codes.code_size
        mean = sum(e.codes.entropy_bits) / e.codes.code_size
        facts.append(
            f"Codes: {unused:,} of {all_words:,} codewords never used by {e.codes.rows:,} "
            f"vectors, {mean:.2f} bits of entropy a byte on average."
        )
        pictures.append(plot(space_plots.code_entropy(e), "Entropy of each byte of the codes"))
    if not facts:
        return ""
    items = "".join(f"<li>{escape(fact)}</li>" for fact in facts)
    about = "Whether the compressed space is used to the full."
    histograms = plot(space_plots.latent_histograms(e), "Distribution of each latent component")
    content = f'<ul class="facts">{items}</ul>{pair(*pictures)}{histograms}'
    return section("Use of the space", about, content)


def training(e: Evaluation) -> str:
    """Training curves."""
    picture = plot(plots.training(e), "Training curves")
    about = "Held-out recall and loss as training went; step 0 is the linear start."
    return section("Training", about, picture) if picture else ""
