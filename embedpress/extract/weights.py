"""Weights of a ResNet: found, downloaded where that is asked, read and checked."""

from __future__ import annotations

import re
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from embedpress.errors import FormatError, UsageError, first_line
from embedpress.extract import torchvision_trap
from embedpress.extract.transform import ImageTransform
from embedpress.vectors.document import parse_json
from embedpress.vectors.files import sha256_of

SUFFIXES = (".pth", ".pt", ".safetensors")
_MOST_SHARED = 4
"""Times a file's size its tensors may have, where some are the same in it."""
_HASH = re.compile(r"-([0-9a-f]{8,})\.")


@dataclass(frozen=True)
class Weights:
    """A state dict and what is needed to use it.

    Attributes
    ----------
    name : str or None
        The enum's name for torchvision's own weights; None for a file of the user's.
    sha256 : str
        Of the file.
    tensors : mapping of str to torch.Tensor
    transform : ImageTransform
        The one the weights were trained with.
    stride_v1 : bool
        Whether a block's stride sits on its 1x1 convolution, as in the first ResNets, and not
        on its 3x3 one, as in torchvision's.
    """

    name: str | None
    sha256: str
    tensors: Mapping[str, Any] = field(repr=False)
    transform: ImageTransform = field(default_factory=ImageTransform)
    stride_v1: bool = False


def load_weights(model: str, weights: str | Path | None) -> Weights:
    """Load the weights of a torchvision model.

    Parameters
    ----------
    model : str
        Name of the network, as ``"resnet50"``.
    weights : str, Path or None
        A .pth, .pt or .safetensors file, or the name of torchvision weights, as
        ``"IMAGENET1K_V2"`` or ``"ResNet50_Weights.IMAGENET1K_V2"``, or None for torchvision's
        default ones; those are downloaded once.

    Returns
    -------
    Weights

    Raises
    ------
    UsageError
        For a file that is not there, a name that does not exist or weights that cannot be
        downloaded.
    FormatError
        For a file that does not hold weights.

    Notes
    -----
    A .safetensors file may say in its metadata how it is used: ``stride`` (``"v1"`` or
    ``"v1.5"``), ``architecture``, and ``resize``, ``crop``, ``mean``, ``std``,
    ``interpolation``, all in JSON. What it does not say is as in torchvision's ImageNet models.
    """
    if weights is not None and (
        Path(weights).suffix.lower() in SUFFIXES or isinstance(weights, Path)
    ):
        return _from_file(model, Path(weights).expanduser())
    return _from_torchvision(model, "DEFAULT" if weights is None else str(weights))


def _from_file(model: str, path: Path) -> Weights:
    if not path.is_file():
        raise UsageError(f"{path}: no such weights file")
    if path.suffix.lower() not in SUFFIXES:
        raise UsageError(f"{path.name}: weights are read from {', '.join(SUFFIXES)}")
    tensors, metadata = _read(path)
    architecture = metadata.get("architecture", model)
    if architecture != model:
        raise UsageError(f"{path.name}: weights of {architecture}, not of {model}; set model=")
    stride = metadata.get("stride", "v1.5")
    if stride not in ("v1", "v1.5"):
        raise FormatError(f"{path.name}: stride {stride!r} is neither v1 nor v1.5")
    return Weights(None, sha256_of(path), tensors, _transform(metadata, path), stride == "v1")


def _from_torchvision(model: str, name: str) -> Weights:
    torchvision_trap.prepare()
    import torch
    from torchvision.models import get_model_weights

    known = get_model_weights(model)
    prefix, _, member = name.rpartition(".")
    if prefix not in ("", known.__name__) or member not in known.__members__:
        names = ", ".join(known.__members__)
        raise UsageError(f"{model} has no weights {name!r}: take a file or one of {names}")
    found = known[member]
    path = Path(torch.hub.get_dir(), "checkpoints", found.url.rsplit("/", 1)[-1])
    if not path.is_file():
        digest = _HASH.search(path.name)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            torch.hub.download_url_to_file(
                found.url, str(path), digest and digest.group(1), progress=False
            )
        except (OSError, RuntimeError) as error:
            raise UsageError(
                f"{found} cannot be downloaded ({error}); give a file of weights of {model}"
            ) from error
    preset = found.transforms()
    transform = ImageTransform(
        preset.resize_size[0],
        preset.crop_size[0],
        tuple(preset.mean),
        tuple(preset.std),
        preset.interpolation.value,
    )
    return Weights(str(found), sha256_of(path), _read(path)[0], transform)


def _read(path: Path) -> tuple[dict[str, Any], dict[str, str]]:
    import torch

    metadata: dict[str, str] = {}
    try:
        if path.suffix.lower() == ".safetensors":
            from safetensors import safe_open

            with safe_open(path, framework="pt") as file:
                metadata = dict(file.metadata() or {})
                state: Any = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        else:
            # Before 2.6 a file could get round weights_only (CVE-2025-32434).
            if tuple(map(int, torch.__version__.split(".")[:2])) < (2, 6):
                raise FormatError(
                    f"{path.name}: torch {torch.__version__} cannot read {path.suffix} files"
                    " safely: update it, or save the weights as .safetensors"
                )
            _check_archive(path)
            state = torch.load(path, map_location="cpu", weights_only=True)
    except FormatError:
        raise
    except Exception as error:  # zip, pickle and safetensors readers each raise their own
        line = first_line(error)
        raise FormatError(f"{path.name}: not a weights file that can be read ({line})") from error
    if isinstance(state, dict) and isinstance(state.get("state_dict"), dict):
        state = state["state_dict"]
    if not isinstance(state, dict) or not all(
        isinstance(name, str) and isinstance(value, torch.Tensor) for name, value in state.items()
    ):
        raise FormatError(f"{path.name}: not a state dict (tensors by name); save that alone")
    # A tensor can name one number of the file a million million times.
    size = sum(value.numel() * value.element_size() for value in state.values())
    plain = all(value.layout == torch.strided and not value.is_meta for value in state.values())
    if not plain or size > _MOST_SHARED * path.stat().st_size:
        raise FormatError(f"{path.name}: tensors of {size} bytes are more than it holds")
    for name, value in state.items():
        if value.is_floating_point() and not bool(torch.isfinite(value).all()):
            raise FormatError(f"{path.name}: {name} holds NaN or infinity")
    return {name.removeprefix("module."): value for name, value in state.items()}, metadata


def _check_archive(path: Path) -> None:
    """Raise where a .pth file, a zip archive that is not packed, would grow."""
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            sizes = sum(entry.file_size for entry in archive.infolist())
        if sizes > path.stat().st_size:
            raise FormatError(f"{path.name}: would grow to {sizes} bytes, as no weights do")


def _transform(metadata: Mapping[str, str], path: Path) -> ImageTransform:
    given: dict[str, Any] = {}
    for name in ("resize", "crop", "mean", "std"):
        if name in metadata:
            try:
                value = parse_json(metadata[name])
            except ValueError as error:
                raise FormatError(f"{path.name}: its metadata's {name} is not JSON") from error
            given[name] = tuple(value) if isinstance(value, list) else value
    for name in ("mean", "std"):
        if not isinstance(given.get(name, ()), tuple):
            raise FormatError(f"{path.name}: its metadata's {name} is not a list")
    return ImageTransform(**given, interpolation=metadata.get("interpolation", "bilinear"))
