"""Options that several verbs have, and how their values are read."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import Annotated

import typer

from embedpress.errors import UsageError
from embedpress.hub import compressor_folder


class Where(str, Enum):
    """Where a job runs."""

    local = "local"
    ray = "ray"


def resolved_model(model: Path | None) -> Path | None:
    """The folder of a compressor that a command line names, downloaded where that is a hub id."""
    return None if model is None else compressor_folder(str(model))


Json = Annotated[bool, typer.Option("--json", help="Print one JSON object as the last line.")]
Threads = Annotated[
    int | None, typer.Option("--num-threads", help="Threads; all available by default.")
]
Out = Annotated[Path, typer.Option("-o", "--output", help="Folder to write.")]
Model = Annotated[
    Path,
    typer.Option(
        "-m",
        "--model",
        help="Compressor folder, or a hub id as org/name or org/name@revision.",
        callback=resolved_model,
    ),
]
MemoryBudget = Annotated[str, typer.Option(help="Most memory to take, as in 512M or 2G.")]
EngineOption = Annotated[
    Where, typer.Option("--engine", help="In this process, or by tasks on a Ray cluster.")
]
RayAddress = Annotated[
    str | None,
    typer.Option(help="Ray cluster; RAY_ADDRESS by default, else one started here.", metavar="A"),
]
RowsPerShard = Annotated[int, typer.Option(help="Rows of each file but the last.")]
ShardOption = Annotated[
    str | None,
    typer.Option(
        "--shard",
        metavar="I/N",
        help="Do every N-th shard, from I (0 to N-1); the last of N processes joins them.",
    ),
]
LogDir = Annotated[
    Path | None, typer.Option(help="Folder for TensorBoard's event files of the training.")
]
CodeSize = Annotated[
    str | None,
    typer.Option(
        help="Bytes of a code; 0 for none; auto for the fewest that reach --target-recall.",
        show_default="32",
    ),
]
TargetRecall = Annotated[
    float | None,
    typer.Option(help="Held-out recall@10 that --code-size auto reaches; 0.9 by default."),
]
Epochs = Annotated[int | None, typer.Option(help="Passes over the vectors; 60 to 90 by default.")]
TimeBudget = Annotated[
    float | None,
    typer.Option(help="Seconds of training at the most, for each size with --code-size auto."),
]


def parse_code_size(text: str | None, target_recall: float | None) -> int | str | None:
    """What --code-size says; without it a target is to be reached."""
    if text is None:
        return 32 if target_recall is None else "auto"
    if text == "auto":
        return text
    try:
        return int(text) or None
    except ValueError:
        raise UsageError(f"--code-size {text!r} must be a whole number or auto") from None
