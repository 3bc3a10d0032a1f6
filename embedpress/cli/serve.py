"""`embedpress serve`: an index to an HTTP service."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from embedpress.cli.options import Json, Model, Threads
from embedpress.console import show


def serve_command(
    index: Annotated[Path, typer.Argument(metavar="INDEX", help="Index folder.")],
    model: Model,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port; 0 takes a free one.")] = 8080,
    workers: Annotated[int, typer.Option(help="Processes that share the port.")] = 1,
    map_folder: Annotated[
        Path | None, typer.Option("--map", help="Folder of embedpress map, for the page.")
    ] = None,
    image_root: Annotated[
        Path | None, typer.Option(help="Folder of the photos; the page shows files in it.")
    ] = None,
    api_key_file: Annotated[
        Path | None,
        typer.Option(help="File of the key that requests carry; else EMBEDPRESS_API_KEY."),
    ] = None,
    allow_host: Annotated[
        list[str] | None, typer.Option(help="Name that Host headers may have; repeatable.")
    ] = None,
    max_queue: Annotated[int, typer.Option(help="Most inputs that wait; then 429.")] = 2048,
    max_batch: Annotated[int, typer.Option(help="Most texts or pictures run at once.")] = 32,
    max_wait: Annotated[
        float, typer.Option(help="Milliseconds that a batch waits for others.")
    ] = 2.0,
    max_inputs: Annotated[int, typer.Option(help="Most inputs of a request; then 413.")] = 1024,
    max_body: Annotated[str, typer.Option(help="Most bytes of a request; then 413.")] = "16M",
    stop_timeout: Annotated[
        int, typer.Option(help="Seconds that requests have to end in when stopped.")
    ] = 30,
    reload_interval: Annotated[
        float, typer.Option(help="Seconds between looks for a new index; 0 for never.")
    ] = 2.0,
    memory_map: Annotated[
        bool, typer.Option("--memory-map", help="Leave the vectors on disk.")
    ] = False,
    num_threads: Threads = None,
    as_json: Json = False,
) -> None:
    """An HTTP service of embeddings, compression and search, with a page to search by.

    Example: `embedpress serve index -m model --map map`
    """
    from embedpress.serve.run import serve
    from embedpress.serve.settings import Settings
    from embedpress.vectors import parse_size

    settings = Settings(
        index=str(index),
        model=str(model),
        host=host,
        port=port,
        workers=workers,
        map=None if map_folder is None else str(map_folder),
        image_root=None if image_root is None else str(image_root),
        max_queue=max_queue,
        max_batch=max_batch,
        max_wait=max_wait,
        max_inputs=max_inputs,
        max_body=parse_size(max_body),
        allowed_hosts=tuple(allow_host or ()),
        stop_timeout=stop_timeout,
        reload_interval=reload_interval,
        memory_map=memory_map,
        num_threads=num_threads,
    )
    serve(
        settings,
        api_key_file=api_key_file,
        tell=lambda where: show(
            where, as_json=as_json, text=f"serving {index} at {where['url']} (Ctrl-C stops it)"
        ),
    )
