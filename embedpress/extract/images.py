"""Photos: listing a folder of them, and reading one, whatever its mode, as RGB."""

from __future__ import annotations

import hashlib
import logging
import os
import re
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice
from pathlib import Path
from typing import BinaryIO

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps, UnidentifiedImageError

from embedpress.errors import InputError, UsageError
from embedpress.threads import side_by_side
from embedpress.vectors.files import sha256_of

EXTENSIONS = (
    ".jpg", ".jpeg", ".jfif", ".png", ".gif", ".bmp", ".tif", ".tiff", ".webp", ".ppm", ".pgm",
)  # fmt: skip
# Named one by one: the reader that Pillow would choose for PostScript starts another program.
_READERS = ("JPEG", "PNG", "GIF", "BMP", "TIFF", "WEBP", "PPM")
# A line of pixels, resized by its short side, would become an image of gigabytes.
MAX_ASPECT = 100
# A progressive JPEG has about ten; its thumbnails and other pictures in the file a few more.
MAX_SCANS = 500
_SCAN = b"\xff\xda"
_ADDRESS = re.compile(r" at 0x[0-9a-f]+")

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ImageFile:
    """A photo of a folder.

    Attributes
    ----------
    path : Path
        Where it is.
    id : str
        Its path relative to the folder, with forward slashes.
    label : str or None
        The first folder on that path; None for a photo beside the folders.
    """

    path: Path
    id: str
    label: str | None


def list_images(folder: str | Path) -> list[ImageFile]:
    """List a folder's photos and those of its subfolders.

    Parameters
    ----------
    folder : str or Path

    Returns
    -------
    list of ImageFile
        Sorted by id. Files are known by their extension; hidden ones are left out, and so are
        links that lead out of the folder. Links to folders are not followed.

    Raises
    ------
    UsageError
        For a path that is not a folder.
    InputError
        Where there are no photos in it.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise UsageError(f"{folder}: not a folder")
    root = folder.resolve()
    found = []
    for place, folders, files in os.walk(root):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in files:
            path = Path(place, name)
            if name.startswith(".") or path.suffix.lower() not in EXTENSIONS:
                continue
            if not path.is_file() or not path.resolve().is_relative_to(root):
                _log.warning("%s: left out, a link out of the folder or to nothing", name)
                continue
            parts = path.relative_to(root).parts
            readable = os.fsencode("/".join(parts)).decode("utf-8", "backslashreplace")
            found.append(ImageFile(path, readable, parts[0] if len(parts) > 1 else None))
    if not found:
        raise InputError(f"{folder}: no images in it ({', '.join(EXTENSIONS)})")
    return sorted(found, key=lambda image: image.id)


def load_image(path: str | Path, *, max_pixels: int | None = None) -> Image.Image:
    """Read a photo as 8-bit RGB, upright.

    Parameters
    ----------
    path : str or Path
        Of a JPEG, PNG, GIF, BMP, TIFF, WebP or PPM file, whatever its extension.
    max_pixels : int, optional
        Fewer than ``PIL.Image.MAX_IMAGE_PIXELS``, where that many may not be decoded.

    Returns
    -------
    PIL.Image.Image
        Of mode RGB: turned as its EXIF orientation says, transparency laid on white, 16-bit
        grey scaled to 8 bits, the first frame of an animation.

    Raises
    ------
    InputError
        For a file that is truncated, corrupt, too large (``PIL.Image.MAX_IMAGE_PIXELS``), too
        narrow or no image; the message says which and names no folder.
    """
    path = Path(path)
    try:
        # A pipe would be waited for, a device never ends.
        if path.exists() and not path.is_file():
            raise InputError("not a file")
        with path.open("rb") as file:
            return decode_image(file, max_pixels=max_pixels)
    except InputError as error:
        raise InputError(f"{path.name}: {error}") from None
    except OSError as error:
        raise InputError(f"{path.name}: {_reason(error)}") from error


def decode_image(file: BinaryIO, *, max_pixels: int | None = None) -> Image.Image:
    """Decode an open photo; like :func:`load_image`, but the message names no file."""
    try:
        with Image.open(file, formats=_readers()) as image:
            width, height = image.size
            _check_size(width, height, max_pixels)
            if image.format in ("JPEG", "MPO"):
                _check_scans(file)
            image.load()
            return _rgb(_upright(image))
    except InputError:
        raise
    except Exception as error:  # decoders of untrusted bytes raise anything
        raise InputError(_reason(error)) from error


def read_batches(
    files: list[ImageFile],
    transform: Callable[[Image.Image], npt.NDArray[np.float32]],
    size: int,
    num_threads: int,
) -> Iterator[tuple[list[ImageFile], list[npt.NDArray[np.float32] | str]]]:
    """Read photos in batches, the next batch while the caller works on this one.

    Parameters
    ----------
    files : list of ImageFile
    transform : callable
        Makes an array of an RGB image.
    size : int
        Photos in each batch but the last.
    num_threads : int
        Threads that read.

    Yields
    ------
    tuple of two lists
        The photos of a batch, and for each its array, or why there is none.
    """

    def read(file: ImageFile) -> npt.NDArray[np.float32] | str:
        try:
            return transform(load_image(file.path))
        except InputError as error:
            return str(error).removeprefix(f"{file.path.name}: ")

    found = side_by_side(read, files, num_threads, ahead=size)
    with closing(found):
        for start in range(0, len(files), size):
            batch = files[start : start + size]
            yield batch, list(islice(found, len(batch)))


def contents_of(files: list[ImageFile], num_threads: int) -> str:
    """One sha256 of the ids and the bytes of photos."""
    digest = hashlib.sha256()
    for file, found in zip(files, side_by_side(_digest, files, num_threads), strict=True):
        digest.update(f"{file.id}\0{found}\n".encode())
    return digest.hexdigest()


def _digest(file: ImageFile) -> str:
    # A photo that cannot be opened is skipped by the job, with its reason; not an end of it.
    try:
        return sha256_of(file.path)
    except OSError:
        return "unreadable"


@lru_cache(maxsize=1)
def _readers() -> list[str]:
    # Pillow may be built without some of them, and knows which only once all are loaded.
    Image.init()
    return [name for name in _READERS if name in Image.OPEN]


def _check_size(width: int, height: int, max_pixels: int | None) -> None:
    limit = Image.MAX_IMAGE_PIXELS if max_pixels is None else max_pixels
    if limit is not None and width * height > limit:
        raise InputError(f"{width} x {height} is more than {limit} pixels")
    if max(width, height) > MAX_ASPECT * min(width, height):
        raise InputError(f"{width} x {height} is too narrow")


def _check_scans(file: BinaryIO) -> None:
    """Refuse a JPEG of thousands of scans, each of which goes over all pixels for a few bytes."""
    place, scans, last = file.tell(), 0, b""
    file.seek(0)
    while block := file.read(2**20):
        scans += (last + block).count(_SCAN)
        last = block[-1:]
    file.seek(place)
    if scans > MAX_SCANS:
        raise InputError(f"{scans} scans, more than {MAX_SCANS}, as no photo has")


def _upright(image: Image.Image) -> Image.Image:
    try:
        return ImageOps.exif_transpose(image)
    except Exception:  # a broken EXIF block does not spoil the pixels
        return image


def _rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I"):
        # Pillow would clip such values at 255 instead of scaling them.
        grey = np.clip(np.asarray(image, np.float64) / 257, 0, 255)
        return Image.fromarray(np.rint(grey).astype(np.uint8)).convert("RGB")
    if image.mode == "F":
        values = np.nan_to_num(np.asarray(image, np.float64))
        grey = np.clip(values * (255 if values.max() <= 1 else 1), 0, 255)
        return Image.fromarray(np.rint(grey).astype(np.uint8)).convert("RGB")
    if image.has_transparency_data:
        solid = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", solid.size, "white"), solid).convert("RGB")
    return image.convert("RGB")


def _reason(error: Exception) -> str:
    """One line without the paths and addresses that would differ in another run."""
    if isinstance(error, UnidentifiedImageError):
        return "not an image of a known format"
    if isinstance(error, (Image.DecompressionBombError, Image.DecompressionBombWarning)):
        return "more pixels than PIL.Image.MAX_IMAGE_PIXELS"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    line = (str(error).strip().splitlines() or [""])[0]
    return _ADDRESS.sub("", f"{type(error).__name__}: {line}")[:200]
