"""`embedpress push`: an index to another database."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import Annotated

import typer

from embedpress.cli.options import Json, Model, Threads
from embedpress.console import progress_bar, show, stopwatch


class Form(str, Enum):
    """What the codes of an index are pushed as."""

    latents = "latents"
    embeddings = "embeddings"


def push_command(
    index: Annotated[Path, typer.Argument(metavar="INDEX", help="Index folder.")],
    model: Model,
    to: Annotated[
        str,
        typer.Option(help="milvus://HOST:PORT[/DB], FILE.db, parquet:FOLDER or csv:FILE."),
    ],
    form: Annotated[
        Form, typer.Option(help="For the query encoder (latents), or for plain queries.")
    ] = Form.latents,
    collection: Annotated[str, typer.Option(help="Of Milvus.")] = "embedpress",
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Remove such a collection first.")
    ] = False,
    batch_rows: Annotated[int, typer.Option(help="Rows sent to Milvus at once.")] = 1000,
    num_threads: Threads = None,
    as_json: Json = False,
) -> None:
    """Hand an index over: vectors, ids and metadata. The same command resumes a stopped push.

    Example: `embedpress push index -m model --to items.db`, then
    `embedpress search items.db -m model --text "a warm film"`

    Example: `embedpress push index -m model --to csv:items.csv`, for pgvector's COPY
    """
    from dataclasses import asdict

    from embedpress.push.verb import push

    with stopwatch() as seconds, progress_bar("vectors") as progress:
        pushed = push(
            index,
            model,
            to,
            form=form.value,
            collection=collection,
            overwrite=overwrite,
            batch_rows=batch_rows,
            num_threads=num_threads,
            progress=progress,
        )
    text = (
        f"{pushed.rows:,} vectors of {pushed.dim} floats in {to}, {seconds():.1f} s "
        f"({pushed.written:,} written); compare them by {pushed.metric}"
    )
    result = {"to": to, "seconds": seconds(), **asdict(pushed)}
    show(result, as_json=as_json, text="\n".join(filter(None, [text, pushed.sql])))
