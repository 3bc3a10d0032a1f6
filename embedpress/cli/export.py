"""`embedpress export`: a compressor to the graphs of production."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import Annotated, Any

import typer

from embedpress.cli.options import Json, Out, Threads, resolved_model
from embedpress.console import show


class ExportFormat(str, Enum):
    """What export writes."""

    onnx = "onnx"
    sentence_transformers = "sentence-transformers"


def export_command(
    model: Annotated[
        Path,
        typer.Argument(
            metavar="MODEL", help="Compressor folder or hub id.", callback=resolved_model
        ),
    ],
    out: Out,
    with_extractor: Annotated[
        str | None,
        typer.Option(help="Text model (folder, hub id) or ResNet name, to go into the graph."),
    ] = None,
    weights: Annotated[str | None, typer.Option(help="Weights of a ResNet.")] = None,
    int8: Annotated[bool, typer.Option("--int8", help="Quantize the extractor to int8.")] = False,
    sample: Annotated[
        Path | None,
        typer.Option(help="What int8 is judged on: texts (a file, a line each) or a photo folder."),
    ] = None,
    format: Annotated[ExportFormat, typer.Option(help="Of the folder.")] = ExportFormat.onnx,
    num_threads: Threads = None,
    as_json: Json = False,
) -> None:
    """Write what production needs, each ONNX graph checked against the network again.

    Example: `embedpress export model -o deploy`

    Example: `embedpress export model -o deploy --with-extractor ./minilm --int8`

    Example: `embedpress export model -o deploy --with-extractor resnet50 --int8 --sample photos`

    Example: `embedpress export model -o st --with-extractor hub/id --format sentence-transformers`
    """
    from embedpress.onnx.export import export

    files = export(
        model,
        out,
        with_extractor=with_extractor,
        weights=weights,
        int8=int8,
        sample=sample,
        format=format.value,
        num_threads=num_threads,
    )
    result: dict[str, Any] = {"output": str(out), "files": files}
    show(result, as_json=as_json, text=f"{out}: " + ", ".join(files))
