"""From a photo to the numbers that a network was trained on, with Pillow and numpy alone."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from embedpress.errors import FormatError

_RESAMPLING = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
}
_LARGEST = 4096


@dataclass(frozen=True)
class ImageTransform:
    """Resize by the short side, crop the middle, normalise: torchvision's own steps.

    Parameters
    ----------
    resize : int
        Pixels of the short side.
    crop : int
        Side of the square, at most `resize`.
    mean, std : tuple of three floats
        Of red, green and blue, where pixels are 0 to 1.
    interpolation : {"bilinear", "bicubic", "nearest"}

    Raises
    ------
    FormatError
        For numbers that cannot be meant.

    Notes
    -----
    The same to the last bit as ``torchvision.transforms`` on a PIL image.
    """

    resize: int = 256
    crop: int = 224
    mean: tuple[float, ...] = (0.485, 0.456, 0.406)
    std: tuple[float, ...] = (0.229, 0.224, 0.225)
    interpolation: str = "bilinear"

    def __post_init__(self) -> None:
        sizes = isinstance(self.resize, int) and isinstance(self.crop, int)
        if not sizes or not 1 <= self.crop <= self.resize <= _LARGEST:
            raise FormatError(
                f"image transform: crop {self.crop} and resize {self.resize} must be whole "
                f"numbers, 1 <= crop <= resize <= {_LARGEST}"
            )
        for name, values in (("mean", self.mean), ("std", self.std)):
            sound = len(values) == 3 and all(
                isinstance(v, (int, float)) and math.isfinite(v) for v in values
            )
            if not sound or (name == "std" and min(values) <= 0):
                raise FormatError(f"image transform: {name} {values!r} must be three numbers")
        if self.interpolation not in _RESAMPLING:
            raise FormatError(f"image transform: interpolation {self.interpolation!r} is unknown")

    def __call__(self, image: Image.Image) -> npt.NDArray[np.float32]:
        """Turn an RGB image into an array of shape (3, crop, crop)."""
        width, height = image.size
        short = min(width, height)
        size = (self.resize * width // short, self.resize * height // short)
        if size != image.size:
            image = image.resize(size, _RESAMPLING[self.interpolation])
        left = round((size[0] - self.crop) / 2)
        top = round((size[1] - self.crop) / 2)
        image = image.crop((left, top, left + self.crop, top + self.crop))
        pixels = np.asarray(image, np.uint8).transpose(2, 0, 1).astype(np.float32) / np.float32(255)
        mean = np.asarray(self.mean, np.float32).reshape(3, 1, 1)
        std = np.asarray(self.std, np.float32).reshape(3, 1, 1)
        result: npt.NDArray[np.float32] = (pixels - mean) / std
        return result

    def to_dict(self) -> dict[str, Any]:
        """The parameters as JSON values."""
        return {**asdict(self), "mean": list(self.mean), "std": list(self.std)}
