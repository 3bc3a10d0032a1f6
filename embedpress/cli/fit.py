"""`embedpress fit`: embeddings to a compressor."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import Annotated

import typer

from embedpress.cli.lines import figure_lines
from embedpress.cli.options import (
    CodeSize,
    Epochs,
    Json,
    LogDir,
    Out,
    TargetRecall,
    Threads,
    TimeBudget,
    parse_code_size,
)
from embedpress.console import show, stopwatch, training_bar
from embedpress.errors import UsageError


class Metric(str, Enum):
    """What near means."""

    cosine = "cosine"
    ip = "ip"
    l2 = "l2"


def fit_command(
    source: Annotated[Path, typer.Argument(metavar="EMB", help="Embeddings: folder or file.")],
    out: Out,
    n_components: Annotated[int, typer.Option(help="Floats of a latent; 0 for none.")] = 64,
    nested: Annotated[
        str, typer.Option(help="Shorter latents, as in 16,32: the first floats of the whole one.")
    ] = "",
    code_size: CodeSize = None,
    target_recall: TargetRecall = None,
    metric: Annotated[
        Metric | None, typer.Option(help="What near means; what EMB says by default.")
    ] = None,
    reranker: Annotated[
        bool, typer.Option(help="Train a network that reorders first hits by their codes.")
    ] = True,
    hidden_sizes: Annotated[
        str | None,
        typer.Option(
            help="Hidden layers, as in 1024,512; empty for linear. By default what suits each."
        ),
    ] = None,
    dropout: Annotated[float, typer.Option(help="Share of hidden units dropped.")] = 0.0,
    batch_norm: Annotated[bool, typer.Option(help="Batch-normalise hidden layers.")] = False,
    noise: Annotated[
        float, typer.Option(help="Denoising: most noise in a query, of its norm.")
    ] = 0.0,
    mask: Annotated[float, typer.Option(help="Denoising: most entries a query lacks.")] = 0.0,
    mixup: Annotated[
        float, typer.Option(help="Augmentation: step towards a neighbour; 0 for none.")
    ] = 0.2,
    reconstruction_weight: Annotated[
        float, typer.Option(help="Of restoring embeddings; 6 keeps classes for clustering.")
    ] = 0.5,
    weight_decay: Annotated[float, typer.Option(help="Of AdamW.")] = 0.0,
    epochs: Epochs = None,
    time_budget: TimeBudget = None,
    patience: Annotated[
        int | None, typer.Option(help="Stop after so many evaluations without a gain.")
    ] = None,
    queries: Annotated[
        Path | None,
        typer.Option(help="Embeddings of sample queries, where they are of another kind."),
    ] = None,
    max_samples: Annotated[int, typer.Option(help="Train on at most so many rows.")] = 100_000,
    column: Annotated[str | None, typer.Option(help="Vector column of a plain file.")] = None,
    log_dir: LogDir = None,
    seed: Annotated[int, typer.Option(help="Of every random choice.")] = 0,
    device: Annotated[str, typer.Option(help="cpu, cuda, mps.")] = "cpu",
    num_threads: Threads = None,
    as_json: Json = False,
) -> None:
    """Train a compressor: latents and codes, exported to ONNX and measured.

    Example: `embedpress fit embeddings -o model --n-components 64 --code-size 32`

    Example: `embedpress fit embeddings -o model --target-recall 0.9`
    """
    from embedpress.autoencoder.estimator import Compressor
    from embedpress.autoencoder.fit import fit
    from embedpress.autoencoder.judge import figures

    compressor = Compressor(
        n_components or None,
        parse_code_size(code_size, target_recall),
        target_recall=target_recall,
        metric=metric.value if metric else _metric_of(source),
        nested_sizes=_whole_numbers("--nested", nested),
        reranker=reranker,
        hidden_sizes=(
            None if hidden_sizes is None else _whole_numbers("--hidden-sizes", hidden_sizes)
        ),
        dropout=dropout,
        batch_norm=batch_norm,
        noise=noise,
        mask=mask,
        mixup=mixup,
        reconstruction_weight=reconstruction_weight,
        weight_decay=weight_decay,
        epochs=epochs,
        time_budget=time_budget,
        patience=patience,
        max_samples=max_samples,
        seed=seed,
        device=device,
        num_threads=num_threads,
    )
    with stopwatch() as seconds, training_bar() as progress:
        config = fit(
            source,
            out,
            compressor,
            column=column,
            queries=queries,
            progress=progress,
            log_dir=log_dir,
        )
    found = figures(compressor)
    result = {
        "output": str(out),
        "fingerprint": config["fingerprint"],
        "dim": config["dim"],
        "n_components": config["n_components"],
        "code_size": config["code_size"],
        **found,
        "seconds": seconds(),
    }
    lines = [f"compressor in {out}, {seconds():.0f} s", *figure_lines(result)]
    show(result, as_json=as_json, text="\n".join(lines))


def _metric_of(source: Path) -> str:
    from embedpress.vectors import is_plain, read_manifest

    return "cosine" if is_plain(source) else read_manifest(source).metric


def _whole_numbers(option: str, text: str) -> tuple[int, ...]:
    try:
        return tuple(int(part) for part in text.split(",") if part.strip())
    except ValueError:
        raise UsageError(f"{option} {text!r} must be whole numbers, as in 32,16") from None
