"""`embedpress compress`: embeddings to codes or latents."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import Annotated

import typer

from embedpress.cli.lines import show_vectors
from embedpress.cli.options import (
    EngineOption,
    Json,
    MemoryBudget,
    Model,
    Out,
    RayAddress,
    RowsPerShard,
    ShardOption,
    Threads,
    Where,
)
from embedpress.console import progress_bar, stopwatch


class What(str, Enum):
    """What compress writes."""

    codes = "codes"
    latents = "latents"


def compress_command(
    source: Annotated[Path, typer.Argument(metavar="EMB", help="Embeddings: folder or file.")],
    model: Model,
    out: Out,
    what: Annotated[What, typer.Option(help="Bytes or floats.")] = What.codes,
    n_components: Annotated[
        int | None, typer.Option(help="With latents: their floats, one of the sizes of the fit.")
    ] = None,
    column: Annotated[str | None, typer.Option(help="Vector column of a plain file.")] = None,
    rows_per_shard: RowsPerShard = 65_536,
    memory_budget: MemoryBudget = "2G",
    shard: ShardOption = None,
    engine: EngineOption = Where.local,
    ray_address: RayAddress = None,
    num_threads: Threads = None,
    as_json: Json = False,
) -> None:
    """Embeddings to codes or latents, by ONNX Runtime. The same command resumes a stopped job.

    Example: `embedpress compress embeddings -m model -o codes`

    Example: `embedpress compress embeddings -m model -o codes --shard 0/4` beside 1/4, 2/4, 3/4
    """
    from embedpress.engine.options import RunOptions
    from embedpress.onnx.compress import compress

    options = RunOptions(engine.value, ray_address, shard)

    with stopwatch() as seconds, progress_bar("vectors") as progress:
        manifest = compress(
            source,
            model,
            out,
            what=what.value,
            n_components=n_components,
            column=column,
            rows_per_shard=rows_per_shard,
            memory_budget=memory_budget,
            num_threads=num_threads,
            options=options,
            progress=progress,
        )
    show_vectors(manifest, out, seconds(), as_json)
