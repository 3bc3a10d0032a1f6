"""Embeddings of photos: the pooled features of a ResNet."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from embedpress.errors import FormatError, InputError, MissingDependencyError, UsageError
from embedpress.extract import torchvision_trap
from embedpress.extract.device import exact_float32, resolve_device
from embedpress.extract.images import load_image
from embedpress.extract.weights import Weights, load_weights

__all__ = ["MODELS", "ImageExtractor", "load_image"]

MODELS = ("resnet18", "resnet34", "resnet50", "resnet101", "resnet152")


class ImageExtractor:
    """A ResNet without its last layer, and the transform it was trained with.

    Parameters
    ----------
    model : str
        One of ``resnet18``, ``resnet34``, ``resnet50``, ``resnet101``, ``resnet152``.
    weights : str or Path, optional
        A .safetensors, .pth or .pt file, or the name of torchvision weights, which are
        downloaded once; by default torchvision's newest. A classification layer in them is
        left out, of whatever size.
    device : str
        As torch writes it.
    num_threads : int, optional
        Threads of each :meth:`encode`; torch's own choice by default.

    Attributes
    ----------
    dim : int
        Length of an embedding: 512 for the two small networks, else 2,048.
    transform : ImageTransform
    model_id : str
        Name of the network.
    weights : str
        The weights as they were given.
    revision : str
        Which weights these are: an enum's name, or ``sha256:`` and the file's sum.
    weights_sha256, fingerprint : str
        Of the weights file; of that with the network, its stride and its transform.
    model
        The torch module.

    Raises
    ------
    UsageError
        For a network, weights or device that cannot be had.
    FormatError
        For a file that does not hold the weights of this network.

    Notes
    -----
    He et al., Deep Residual Learning, 2016. Weights of the first version, whose stride is on
    the 1x1 convolution, work where their file says so; see :func:`load_weights`.
    """

    def __init__(
        self,
        model: str = "resnet50",
        *,
        weights: str | Path | None = None,
        device: str = "cpu",
        num_threads: int | None = None,
    ) -> None:
        if model not in MODELS:
            raise UsageError(f"model must be one of {', '.join(MODELS)}, not {model!r}")
        self.device = resolve_device(device)
        self.num_threads = num_threads
        torchvision_trap.prepare()
        try:
            import torchvision  # noqa: F401
        except ImportError as error:
            raise MissingDependencyError(
                "image extraction needs torchvision: pip install 'embedpress[train]'"
            ) from error
        loaded = load_weights(model, weights)
        self.model = _network(model, loaded).to(self.device)
        self.model_id = model
        self.weights = "DEFAULT" if weights is None else str(weights)
        self.weights_sha256 = loaded.sha256
        self.revision = loaded.name or f"sha256:{loaded.sha256}"
        self.stride = "v1" if loaded.stride_v1 else "v1.5"
        self.transform = loaded.transform
        self.dim = 512 if model in ("resnet18", "resnet34") else 2048
        parts = [model, loaded.sha256, self.stride, self.transform.to_dict()]
        self.fingerprint = hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()

    def encode(
        self, images: Sequence[Image.Image], *, batch_size: int = 32
    ) -> npt.NDArray[np.float32]:
        """Embed images.

        Parameters
        ----------
        images : sequence of PIL.Image.Image
            Of mode RGB, as :func:`load_image` gives them.
        batch_size : int
            Images at once. Changes speed and memory; the embeddings only by rounding.

        Returns
        -------
        ndarray of float32, shape (len(images), dim)

        Raises
        ------
        InputError
            For an image of another mode, naming its row.
        """
        if batch_size < 1:
            raise UsageError(f"batch_size must be at least 1, not {batch_size}")
        for row, image in enumerate(images):
            if image.mode != "RGB":
                raise InputError(f"row {row}: an image of mode {image.mode}; use load_image")
        embeddings = np.empty((len(images), self.dim), np.float32)
        for start in range(0, len(images), batch_size):
            stop = min(start + batch_size, len(images))
            pixels = np.stack([self.transform(image) for image in images[start:stop]])
            embeddings[start:stop] = self.encode_pixels(pixels)
        return embeddings

    def encode_pixels(self, pixels: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Embed one batch that was already transformed.

        Parameters
        ----------
        pixels : ndarray of float32, shape (n, 3, crop, crop)

        Returns
        -------
        ndarray of float32, shape (n, dim)
        """
        import torch

        with exact_float32(self.num_threads):
            batch = torch.from_numpy(pixels).to(self.device)
            features: npt.NDArray[np.float32] = self.model(batch).cpu().numpy()
        if not np.isfinite(features).all():
            raise InputError("the network gave NaN or infinity: are these its weights?")
        return features


def _network(model: str, weights: Weights) -> Any:
    import torch
    from torchvision.models import get_model

    # Without memory of its own, so that no time goes into random numbers to be overwritten.
    with torch.device("meta"):
        network: Any = get_model(model, weights=None)
    network.fc = torch.nn.Identity()
    state = {name: t for name, t in weights.tensors.items() if not name.startswith("fc.")}
    try:
        network.load_state_dict(state, strict=True, assign=True)
    except RuntimeError as error:
        problem = [*str(error).splitlines(), "", ""][1].strip()
        raise FormatError(f"these are not weights of {model}: {problem[:200]}") from error
    if weights.stride_v1:
        _move_stride(network, model)
    return network.float().eval().requires_grad_(False)


def _move_stride(network: Any, model: str) -> None:
    for layer in (network.layer2, network.layer3, network.layer4):
        block = layer[0]
        if not hasattr(block, "conv3"):
            raise FormatError(f"stride v1 makes no sense for {model}: its blocks have no 1x1")
        block.conv1.stride, block.conv2.stride = block.conv2.stride, block.conv1.stride
