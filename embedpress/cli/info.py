"""`embedpress info`: what a folder is."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from embedpress.cli.options import Json
from embedpress.console import show


def info_command(
    path: Annotated[Path, typer.Argument(metavar="PATH", help="Any folder of embedpress.")],
    verify: Annotated[
        bool, typer.Option("--verify/--no-verify", help="Read everything and check checksums.")
    ] = True,
    as_json: Json = False,
) -> None:
    """What a folder is, and whether its checksums hold.

    Example: `embedpress info codes`
    """
    from embedpress.info import describe

    result = describe(path, verify=verify)
    lines = [f"{name}: {value}" for name, value in result.items() if value is not None]
    show(result, as_json=as_json, text="\n".join(lines))
    if result["bad_files"]:
        raise typer.Exit(1)
