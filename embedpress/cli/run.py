"""`embedpress run`: the whole pipeline."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from embedpress.cli.lines import figure_lines
from embedpress.cli.options import (
    CodeSize,
    Epochs,
    Json,
    LogDir,
    TargetRecall,
    Threads,
    TimeBudget,
    parse_code_size,
)
from embedpress.console import show


def run_command(
    source: Annotated[
        Path, typer.Argument(metavar="INPUT", help="A file of texts or a folder of photos.")
    ],
    out: Annotated[Path, typer.Option("-o", "--output", help="Work folder.")],
    model: Annotated[
        str | None, typer.Option(help="Text model (folder, hub id) or resnet name.")
    ] = None,
    weights: Annotated[str | None, typer.Option(help="Weights of a ResNet.")] = None,
    column: Annotated[str, typer.Option(help="Column that holds the texts.")] = "text",
    id_column: Annotated[str | None, typer.Option(help="Column that holds the ids.")] = None,
    n_components: Annotated[int, typer.Option(help="Floats of a latent.")] = 64,
    code_size: CodeSize = None,
    target_recall: TargetRecall = None,
    epochs: Epochs = None,
    time_budget: TimeBudget = None,
    log_dir: LogDir = None,
    seed: Annotated[int, typer.Option(help="Of every random choice.")] = 0,
    num_threads: Threads = None,
    as_json: Json = False,
) -> None:
    """All of it: extract, fit, compress, index, cluster, map, evaluate. Resumes where stopped.

    Example: `embedpress run reviews.txt -o work --model ./minilm`
    """
    from embedpress.pipeline import run_pipeline

    result = run_pipeline(
        source,
        out,
        model=model,
        weights=weights,
        column=column,
        id_column=id_column,
        n_components=n_components,
        code_size=parse_code_size(code_size, target_recall),
        target_recall=target_recall,
        epochs=epochs,
        time_budget=time_budget,
        log_dir=log_dir,
        seed=seed,
        num_threads=num_threads,
    )
    lines = [f"{name}: {path}" for name, path in result["outputs"].items()]
    lines += ["compressor", *figure_lines(result["compressor"])]
    show(result, as_json=as_json, text="\n".join(lines))
