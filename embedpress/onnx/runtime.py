"""The door of the runtime: everything that production needs, with no torch."""

from __future__ import annotations

from pathlib import Path

from embedpress.onnx.compressor import (
    FORMAT_VERSION,
    OnnxCompressor,
    fingerprint,
    load,
    read_config,
)
from embedpress.onnx.extractor import FILE, read_extractor
from embedpress.onnx.image import ImageEncoder
from embedpress.onnx.text import TextEncoder

__all__ = [
    "FORMAT_VERSION",
    "ImageEncoder",
    "OnnxCompressor",
    "TextEncoder",
    "fingerprint",
    "load",
    "open_encoder",
    "read_config",
]


def open_encoder(
    path: str | Path, *, num_threads: int | None = None
) -> TextEncoder | ImageEncoder | None:
    """The encoder of texts or images that a folder holds; None for a compressor alone.

    Parameters
    ----------
    path : str or Path
        A compressor folder, or one of ``embedpress export --with-extractor``.
    num_threads : int, optional
        Threads of each call; by default all that this process may use.

    Returns
    -------
    TextEncoder or ImageEncoder or None

    Raises
    ------
    UsageError, FormatError
        No such folder, or not a whole one.
    """
    folder = Path(path)
    if not (folder / FILE).is_file():
        return None
    if read_extractor(folder).kind == "text":
        return TextEncoder(folder, num_threads=num_threads)
    return ImageEncoder(folder, num_threads=num_threads)
