"""Fetch pictures of emoji: 64 x 64 pixels, drawn by one vendor.

They come from the npm package emoji-datasource-google 16.0.0 (74 MB; the pictures are Google's Noto
emoji, Apache-2.0), which carries each as a PNG file. Here they stand on white.
"""

from __future__ import annotations

import io
import tarfile
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from fetching import package, script
from PIL import Image

from embedpress.vectors.files import write_atomic

NAME = "emoji-datasource-google@16.0.0"
SHA256 = "fb5fd131b362aab7a55542d2a147a79708cce0a8b1c1bbacd470172708b5c438"
FOLDER, SUFFIX = "package/img/google/64/", ".png"


def main(
    output: Annotated[Path, typer.Option("--output", "-o", help="A folder for the pictures.")],
    count: Annotated[int, typer.Option(help="How many, drawn by seed 0.", min=1)] = 500,
    archive: Annotated[
        Path | None, typer.Option(help="The package's .tgz, already downloaded.")
    ] = None,
) -> None:
    """Fetch pictures of emoji as PNG files.

    Example: python scripts/fetch_emoji.py -o data/emoji --count 500
    """
    done = output / "source.txt"
    source = f"{SHA256}, {count} pictures\n"
    if done.is_file() and done.read_text(errors="replace") == source:
        typer.echo(f"{output} is there and whole; nothing to do")
        return
    output.mkdir(parents=True, exist_ok=True)
    with package(["npm", NAME], SHA256, archive) as path, tarfile.open(path) as file:
        members = {
            name.removeprefix(FOLDER): member
            for name, member in zip(file.getnames(), file.getmembers(), strict=True)
            if name.startswith(FOLDER) and name.endswith(SUFFIX)
        }
        names = sorted(members)
        drawn = np.random.default_rng(0).permutation(len(names))[:count]
        for name in (names[row] for row in sorted(drawn)):
            content = file.extractfile(members[name])
            assert content is not None
            with Image.open(content) as picture:
                drawing = picture.convert("RGBA")
            sheet = Image.new("RGBA", drawing.size, "white")
            data = io.BytesIO()
            Image.alpha_composite(sheet, drawing).convert("RGB").save(data, "PNG")
            write_atomic(output / Path(name).name, data.getvalue())
    write_atomic(done, source)
    typer.echo(f"{output}: {min(count, len(names))} pictures")


if __name__ == "__main__":
    script(main)
