"""Images to embeddings, latents and codes by one exported graph."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from embedpress.errors import FormatError, InputError, UsageError
from embedpress.extract.images import load_image
from embedpress.extract.transform import ImageTransform
from embedpress.onnx.canary import check_images
from embedpress.onnx.compressor import Floats
from embedpress.onnx.encoder import Encoder, Feed, as_floats

BATCH_IMAGES = 8
Picture = Image.Image | str | Path


class ImageEncoder(Encoder):
    """A folder of ``embedpress export --with-extractor resnet50``: images in, codes out, no torch.

    Parameters
    ----------
    path : str or Path
        The exported folder.
    num_threads : int, optional
        Threads of each call; by default all that this process may use.
    providers : tuple of str
        ONNX Runtime execution providers.

    Attributes
    ----------
    compressor : OnnxCompressor
        The compressor of the same folder.
    config : ExtractorConfig
    image_transform : ImageTransform
        From an image to the pixels that the graph takes.
    dim, n_components, code_size : int (the last two or None)

    Raises
    ------
    UsageError, FormatError
        No such folder, or not a whole one.

    Notes
    -----
    Calls may come from several threads at once.
    """

    kind = "image"

    def __init__(
        self,
        path: str | Path,
        *,
        num_threads: int | None = None,
        providers: tuple[str, ...] = ("CPUExecutionProvider",),
    ) -> None:
        super().__init__(path, num_threads=num_threads, providers=providers)
        try:
            given: dict[str, Any] = {
                name: tuple(value) if isinstance(value, list) else value
                for name, value in self.config.transform.items()
            }
            self.image_transform = ImageTransform(**given)
        except TypeError as error:
            raise FormatError(f"{self.path}: its image transform cannot be: {error}") from None

    def embed(self, images: Sequence[Picture], *, batch_size: int = BATCH_IMAGES) -> Floats:
        """Embeddings (n, dim), float32, as the extractor gives them.

        Parameters
        ----------
        images : sequence of PIL.Image.Image (mode RGB), or of paths
        batch_size : int
            Images at once. Changes speed and memory; the result only by rounding.

        Raises
        ------
        UsageError, InputError
            For anything but a list of images, naming the row of one that cannot be used.
        """
        return as_floats(self._encode("embeddings", images, batch_size))

    def transform(self, images: Sequence[Picture], *, batch_size: int = BATCH_IMAGES) -> Floats:
        """Latents (n, n_components), float32; see :meth:`embed`."""
        return as_floats(self._encode("latents", images, batch_size))

    def encode(
        self, images: Sequence[Picture], *, batch_size: int = BATCH_IMAGES
    ) -> NDArray[np.uint8]:
        """Codes (n, code_size), uint8; see :meth:`embed`."""
        return self._encode("codes", images, batch_size).astype(np.uint8, copy=False)

    def check_canaries(self) -> int:
        """Encode the images stored with the folder and compare.

        Returns
        -------
        int
            How many images and vectors were compared.

        Raises
        ------
        MismatchError
            If this machine gives other results than the one that exported.
        """
        return self.compressor.check_canaries() + check_images(self)

    def _encode(
        self, output: str, images: Sequence[Picture], batch_size: int
    ) -> NDArray[np.generic]:
        if batch_size < 1:
            raise UsageError(f"batch_size={batch_size} must be at least 1")
        if isinstance(images, (str, Path, Image.Image)):
            raise UsageError("give a list of images, not a single one")
        return self._run(output, len(images), self._feeds(images, batch_size))

    def _feeds(self, images: Sequence[Picture], batch_size: int) -> Iterator[Feed]:
        for start in range(0, len(images), batch_size):
            rows = list(range(start, min(start + batch_size, len(images))))
            yield rows, {"pixels": np.stack([self._pixels(row, images[row]) for row in rows])}

    def _pixels(self, row: int, image: Picture) -> Floats:
        if not isinstance(image, Image.Image):
            image = load_image(image)
        elif image.mode != "RGB":
            raise InputError(f"row {row}: an image of mode {image.mode}; open it with load_image")
        return self.image_transform(image)
