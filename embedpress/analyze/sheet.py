"""Contact sheets: the typical photos of each cluster side by side, a row a cluster."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from embedpress.errors import InputError
from embedpress.extract.images import load_image
from embedpress.vectors import write_atomic

SIDE = 128
GAP = 6
HEAD = 24
INK, FAINT, PAPER = "#1d2733", "#d9dee4", "white"


def contact_sheet(path: Path, rows: Sequence[tuple[str, Sequence[Path]]]) -> int:
    """Draw rows of photos under their titles.

    Parameters
    ----------
    path : Path
        The PNG to write.
    rows : sequence of (title, photos)
        Each photo is shown whole, 128 pixels at its longer side.

    Returns
    -------
    int
        Photos that could not be read: a grey square with a cross stands for each.
    """
    columns = max((len(photos) for _, photos in rows), default=1)
    width = GAP + max(columns, 3) * (SIDE + GAP)
    height = GAP + len(rows) * (HEAD + SIDE + GAP)
    sheet = Image.new("RGB", (width, height), PAPER)
    draw = ImageDraw.Draw(sheet)
    font = ImageFont.load_default(size=14)
    unread = 0
    for number, (title, photos) in enumerate(rows):
        top = GAP + number * (HEAD + SIDE + GAP)
        draw.text((GAP, top + 2), _fitted(title, width - 2 * GAP, font), fill=INK, font=font)
        for column, photo in enumerate(photos):
            left = GAP + column * (SIDE + GAP)
            box = (left, top + HEAD, left + SIDE - 1, top + HEAD + SIDE - 1)
            try:
                small = thumbnail(photo)
            except InputError:
                unread += 1
                draw.rectangle(box, fill=FAINT)
                draw.line((box[:2], box[2:]), fill=INK)
                draw.line(((box[0], box[3]), (box[2], box[1])), fill=INK)
                continue
            at = (left + (SIDE - small.width) // 2, top + HEAD + (SIDE - small.height) // 2)
            sheet.paste(small, at)
    out = io.BytesIO()
    sheet.save(out, format="PNG", optimize=True)
    write_atomic(path, out.getvalue())
    return unread


def thumbnail(path: Path, side: int = SIDE) -> Image.Image:
    """A photo within a square of `side` pixels.

    Raises
    ------
    InputError
        A file that is not there or no photo.
    """
    image = load_image(path)
    image.thumbnail((side, side), Image.Resampling.LANCZOS)
    return image


def photo_path(folder: Path, name: str) -> Path:
    """Where a photo of a dataset lies, which may not lead out of its folder.

    Raises
    ------
    InputError
        A name with a way out.
    """
    root = folder.resolve()
    try:
        path = (root / name).resolve()
    except (OSError, ValueError, RuntimeError):  # too long, NUL, a loop of links
        raise InputError(f"the photo {name!r} cannot be a path") from None
    if not path.is_relative_to(root):
        raise InputError(f"the photo {name!r} leads out of {folder}")
    return path


def _fitted(title: str, width: int, font: ImageFont.FreeTypeFont | ImageFont.ImageFont) -> str:
    text = " ".join(title.split())
    while text and font.getlength(text) > width:
        text = text[:-2].rstrip() + "…" if len(text) > 2 else ""
    return text
