"""`embedpress extract`: texts or photos to embeddings."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from embedpress.cli.lines import show_vectors
from embedpress.cli.options import (
    EngineOption,
    Json,
    MemoryBudget,
    Out,
    RayAddress,
    RowsPerShard,
    ShardOption,
    Threads,
    Where,
)
from embedpress.console import progress_bar, stopwatch


def extract_text_command(
    source: Annotated[
        Path,
        typer.Argument(
            metavar="INPUT", help=".txt (a line each), .jsonl, .csv, .parquet, a saved dataset."
        ),
    ],
    out: Out,
    model: Annotated[
        str, typer.Option(help="Model folder or hub id.")
    ] = "sentence-transformers/all-MiniLM-L6-v2",
    column: Annotated[str, typer.Option(help="Column that holds the texts.")] = "text",
    id_column: Annotated[
        str | None, typer.Option(help="Column that holds the ids; row numbers by default.")
    ] = None,
    pooling: Annotated[
        str | None, typer.Option(help="mean, cls or max; what the model says by default.")
    ] = None,
    normalize: Annotated[
        bool | None,
        typer.Option("--normalize/--no-normalize", help="Scale embeddings to length 1."),
    ] = None,
    max_length: Annotated[int | None, typer.Option(help="Tokens kept of a text.")] = None,
    revision: Annotated[str | None, typer.Option(help="Revision of a hub id.")] = None,
    batch_tokens: Annotated[int, typer.Option(help="Most tokens of a batch.")] = 4096,
    device: Annotated[str, typer.Option(help="cpu, cuda, mps.")] = "cpu",
    rows_per_shard: RowsPerShard = 8192,
    memory_budget: MemoryBudget = "2G",
    shard: ShardOption = None,
    engine: EngineOption = Where.local,
    ray_address: RayAddress = None,
    num_threads: Threads = None,
    as_json: Json = False,
) -> None:
    """Embeddings of texts by a BERT-like model. The same command resumes a stopped job.

    Example: `embedpress extract text reviews.jsonl -o embeddings --model ./minilm`
    """
    from embedpress.engine.options import RunOptions
    from embedpress.extract.job import extract_text

    options = RunOptions(engine.value, ray_address, shard)
    with stopwatch() as seconds, progress_bar("texts") as progress:
        manifest = extract_text(
            source,
            out,
            model=model,
            column=column,
            id_column=id_column,
            batch_tokens=batch_tokens,
            pooling=pooling,
            normalize=normalize,
            max_length=max_length,
            revision=revision,
            device=device,
            rows_per_shard=rows_per_shard,
            memory_budget=memory_budget,
            num_threads=num_threads,
            options=options,
            progress=progress,
        )
    show_vectors(manifest, out, seconds(), as_json)


def extract_image_command(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="Photos, in subfolders too.")],
    out: Out,
    model: Annotated[str, typer.Option(help="resnet18, 34, 50, 101 or 152.")] = "resnet50",
    weights: Annotated[
        str | None, typer.Option(help="Weights by torchvision's name, or a local file.")
    ] = None,
    batch_size: Annotated[int, typer.Option(help="Photos at once.")] = 32,
    max_skipped: Annotated[
        int | None, typer.Option(help="Fail beyond so many unreadable photos.")
    ] = None,
    device: Annotated[str, typer.Option(help="cpu, cuda, mps.")] = "cpu",
    rows_per_shard: RowsPerShard = 2048,
    memory_budget: MemoryBudget = "2G",
    shard: ShardOption = None,
    engine: EngineOption = Where.local,
    ray_address: RayAddress = None,
    num_threads: Threads = None,
    as_json: Json = False,
) -> None:
    """Embeddings of photos by a ResNet. The same command resumes a stopped job.

    Example: `embedpress extract image photos -o embeddings --weights resnet50.safetensors`
    """
    from embedpress.engine.options import RunOptions
    from embedpress.extract.job import extract_images

    options = RunOptions(engine.value, ray_address, shard)
    with stopwatch() as seconds, progress_bar("images") as progress:
        manifest = extract_images(
            folder,
            out,
            model=model,
            weights=weights,
            batch_size=batch_size,
            max_skipped=max_skipped,
            device=device,
            rows_per_shard=rows_per_shard,
            memory_budget=memory_budget,
            num_threads=num_threads,
            options=options,
            progress=progress,
        )
    show_vectors(manifest, out, seconds(), as_json)
