"""Small pictures of an index's photos, of files under one folder and no other."""

from __future__ import annotations

import io
from pathlib import Path

from embedpress.errors import InputError
from embedpress.extract.images import load_image
from embedpress.serve.refusal import RequestError

SIDE = 320
MOST_PIXELS = 50_000_000


def thumbnail(root: Path, name: str) -> bytes:
    """A JPEG of at most 320 x 320 pixels of a photo under `root`.

    Parameters
    ----------
    root : Path
    name : str
        Its path, relative to `root` or absolute; links that lead out do not count.

    Raises
    ------
    RequestError
        404 for anything but a readable photo in there; it does not say which.
    """
    missing = RequestError(404, "no picture of that path under the image root", param="path")
    try:
        place = root.resolve(strict=True)
        file = (place / name).resolve(strict=True)
        inside = file.is_relative_to(place) and file.is_file()
    except (OSError, ValueError, RuntimeError):  # too long, NUL, a loop of links
        raise missing from None
    if not inside:
        raise missing
    try:
        picture = load_image(file, max_pixels=MOST_PIXELS)
    except InputError:
        raise missing from None
    picture.thumbnail((SIDE, SIDE))
    out = io.BytesIO()
    picture.save(out, "JPEG", quality=85)
    return out.getvalue()
