from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from urllib.error import URLError

import numpy as np
import pytest
from PIL import Image
from torch_files import random_network

from embedpress.errors import FormatError, InputError, UsageError
from embedpress.extract import torchvision_trap
from embedpress.extract.image import ImageExtractor
from embedpress.extract.transform import ImageTransform

torch = pytest.importorskip("torch")
torchvision_trap.prepare()
torchvision = pytest.importorskip("torchvision")


@pytest.fixture(scope="module")
def resnet18() -> Any:
    return random_network("resnet18")


@pytest.fixture(scope="module")
def weights(resnet18: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "resnet18.pth"
    torch.save(resnet18.state_dict(), path)
    return path


@pytest.fixture(scope="module")
def photos() -> list[Image.Image]:
    rng = np.random.default_rng(3)
    sizes = [(300, 260), (64, 64), (224, 500), (257, 256), (31, 90)]
    return [Image.fromarray(rng.integers(0, 256, (h, w, 3), np.uint8)) for h, w in sizes]


def save_safetensors(path: Path, state: dict[str, Any], **metadata: str) -> Path:
    from safetensors.torch import save_file

    save_file({name: t.contiguous() for name, t in state.items()}, path, metadata)
    return path


def by_hand(network: Any, photos: list[Image.Image]) -> np.ndarray:
    preset = torchvision.models.ResNet18_Weights.IMAGENET1K_V1.transforms()
    last, network.fc = network.fc, torch.nn.Identity()
    with torch.no_grad():
        found = [network(preset(photo)[None])[0].numpy() for photo in photos]
    network.fc = last
    return np.stack(found)


@pytest.mark.parametrize("resize", [224, 232, 256])
def test_the_transform_is_torchvisions(resize: int, photos: list[Image.Image]) -> None:
    from torchvision.transforms._presets import ImageClassification

    theirs = ImageClassification(crop_size=224, resize_size=resize)
    ours = ImageTransform(resize=resize)
    for photo in photos:
        found = ours(photo)
        assert found.shape == (3, 224, 224)
        assert found.dtype == np.float32
        np.testing.assert_allclose(found, theirs(photo).numpy(), atol=1e-6)


@pytest.mark.parametrize(
    "wrong",
    [
        {"resize": 200},
        {"crop": 0},
        {"resize": 10**6},
        {"resize": 256.5},
        {"mean": (0.5, 0.5)},
        {"mean": (0.5, 0.5, float("nan"))},
        {"std": (0.5, 0.0, 0.5)},
        {"std": ("a", "b", "c")},
        {"interpolation": "guess"},
    ],
)
def test_a_transform_that_cannot_be_meant_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(FormatError, match="image transform: "):
        ImageTransform(**wrong)


def test_embeddings_are_the_pooled_features(
    weights: Path, resnet18: Any, photos: list[Image.Image]
) -> None:
    extractor = ImageExtractor("resnet18", weights=weights)
    assert (extractor.dim, extractor.stride) == (512, "v1.5")
    found = extractor.encode(photos)
    assert found.dtype == np.float32
    expected = by_hand(resnet18, photos)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
    assert np.abs(expected[0] - expected[1]).max() > 0.01
    for batch_size in (1, 2):
        np.testing.assert_allclose(
            extractor.encode(photos, batch_size=batch_size), found, rtol=1e-5, atol=1e-5
        )


def test_any_file_form_and_any_last_layer(
    weights: Path, resnet18: Any, photos: list[Image.Image], tmp_path: Path
) -> None:
    expected = ImageExtractor("resnet18", weights=weights).encode(photos[:2])
    state = dict(resnet18.state_dict())
    forms = [save_safetensors(tmp_path / "a.safetensors", state)]
    other_classes = {**state, "fc.weight": torch.zeros(7, 512), "fc.bias": torch.zeros(7)}
    headless = {name: t for name, t in state.items() if not name.startswith("fc.")}
    counted = {name: t for name, t in state.items() if "num_batches" not in name}
    for number, content in enumerate(
        [
            other_classes,
            headless,
            counted,
            {"state_dict": {f"module.{name}": t for name, t in state.items()}, "epoch": 3},
        ]
    ):
        forms.append(tmp_path / f"{number}.pt")
        torch.save(content, forms[-1])
    for path in forms:
        found = ImageExtractor("resnet18", weights=str(path)).encode(photos[:2])
        np.testing.assert_array_equal(found, expected)


def test_identity_follows_the_file_and_its_use(weights: Path, resnet18: Any, tmp_path: Path):
    first = ImageExtractor("resnet18", weights=weights)
    copy = tmp_path / "copy.pth"
    copy.write_bytes(weights.read_bytes())
    same = ImageExtractor("resnet18", weights=copy)
    assert same.fingerprint == first.fingerprint
    assert same.revision == f"sha256:{first.weights_sha256}"
    state = dict(resnet18.state_dict())
    fingerprints = {first.fingerprint}
    for crop in ("224", "200"):
        path = save_safetensors(tmp_path / f"{crop}.safetensors", state, crop=crop)
        fingerprints.add(ImageExtractor("resnet18", weights=path).fingerprint)
    assert len(fingerprints) == 3


def test_metadata_gives_the_transform(resnet18: Any, tmp_path: Path) -> None:
    notes = {"resize": "240", "crop": "200", "mean": "[0.5, 0.4, 0.3]", "std": "[1, 1, 0.5]"}
    path = save_safetensors(
        tmp_path / "a.safetensors",
        dict(resnet18.state_dict()),
        **notes,
        interpolation="bicubic",
        architecture="resnet18",
    )
    extractor = ImageExtractor("resnet18", weights=path)
    assert extractor.transform == ImageTransform(240, 200, (0.5, 0.4, 0.3), (1, 1, 0.5), "bicubic")
    with pytest.raises(UsageError, match="weights of resnet18, not of resnet34"):
        ImageExtractor("resnet34", weights=path)


@pytest.mark.parametrize(
    ("notes", "message"),
    [
        ({"mean": "[0.5, 0.5"}, "mean is not JSON"),
        ({"mean": "0.5"}, "mean is not a list"),
        ({"mean": '{"a": 1}'}, "mean is not a list"),
        ({"crop": "[224]"}, "crop"),
        ({"resize": "100"}, "crop 224 and resize 100"),
        ({"stride": "v2"}, "stride 'v2' is neither"),
        ({"stride": "v1"}, "stride v1 makes no sense for resnet18"),
    ],
)
def test_metadata_that_cannot_be_meant_is_refused(
    notes: dict[str, str], message: str, resnet18: Any, tmp_path: Path
) -> None:
    path = save_safetensors(tmp_path / "a.safetensors", dict(resnet18.state_dict()), **notes)
    with pytest.raises(FormatError, match=message.replace("[", r"\[")):
        ImageExtractor("resnet18", weights=path)


def test_stride_v1_moves_to_the_first_convolution(
    tmp_path: Path, photos: list[Image.Image]
) -> None:
    network = random_network("resnet50", classes=1)
    plain = save_safetensors(tmp_path / "plain.safetensors", dict(network.state_dict()))
    moved = save_safetensors(tmp_path / "v1.safetensors", dict(network.state_dict()), stride="v1")
    small = photos[1:2]
    first = ImageExtractor("resnet50", weights=plain)
    second = ImageExtractor("resnet50", weights=moved)
    assert (first.dim, first.stride, second.stride) == (2048, "v1.5", "v1")
    np.testing.assert_allclose(first.encode(small), by_hand(network, small), rtol=1e-3, atol=1e-4)
    for layer in (network.layer2, network.layer3, network.layer4):
        layer[0].conv1.stride, layer[0].conv2.stride = (2, 2), (1, 1)
    expected = by_hand(network, small)
    np.testing.assert_allclose(second.encode(small), expected, rtol=1e-3, atol=1e-4)
    assert np.abs(first.encode(small) - expected).max() > 0.01


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_broken_files_are_refused_in_one_line(suffix: str, weights: Path, tmp_path: Path) -> None:
    path = tmp_path / f"a{suffix}"
    for content in (b"", b"nonsense" * 10, weights.read_bytes()[:5000]):
        path.write_bytes(content)
        with pytest.raises(FormatError, match="not a weights file") as caught:
            ImageExtractor("resnet18", weights=path)
        assert "\n" not in str(caught.value)


class _Evil:
    def __reduce__(self) -> Any:
        return (print, ("code of the file was run",))


def test_a_file_never_runs_code(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "evil.pth"
    torch.save({"conv1.weight": _Evil()}, path)
    with pytest.raises(FormatError, match="not a weights file"):
        ImageExtractor("resnet18", weights=path)
    assert "was run" not in capsys.readouterr().out


def test_other_contents_are_refused(resnet18: Any, tmp_path: Path) -> None:
    path = tmp_path / "a.pth"
    state = dict(resnet18.state_dict())
    less = {name: t for name, t in state.items() if name != "conv1.weight"}
    for content, message in (
        ([1, 2], "not a state dict"),
        ({"a": 1}, "not a state dict"),
        (less, r"not weights of resnet18: Missing key\(s\).*conv1\.weight"),
        ({**state, "extra": torch.zeros(1)}, r"Unexpected key\(s\).*extra"),
        ({**state, "conv1.weight": torch.zeros(64, 3, 3, 3)}, "size mismatch for conv1"),
        ({**state, "bn1.bias": torch.full((64,), torch.nan)}, r"bn1\.bias holds NaN"),
    ):
        torch.save(content, path)
        with pytest.raises(FormatError, match=message):
            ImageExtractor("resnet18", weights=path)


def test_bad_options(weights: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="model must be one of resnet18"):
        ImageExtractor("alexnet")
    with pytest.raises(UsageError, match="no such weights file"):
        ImageExtractor("resnet18", weights=tmp_path / "none.pth")
    (tmp_path / "a.bin").touch()
    with pytest.raises(UsageError, match=r"weights are read from \.pth"):
        ImageExtractor("resnet18", weights=tmp_path / "a.bin")
    with pytest.raises(UsageError, match="device 'abacus'"):
        ImageExtractor("resnet18", weights=weights, device="abacus")
    extractor = ImageExtractor("resnet18", weights=weights)
    with pytest.raises(InputError, match="row 1: an image of mode L"):
        extractor.encode([Image.new("RGB", (9, 9)), Image.new("L", (9, 9))])
    with pytest.raises(UsageError, match="batch_size"):
        extractor.encode([], batch_size=0)
    assert extractor.encode([]).shape == (0, 512)


@pytest.mark.parametrize("name", ["IMAGENET1K_V9", "ResNet50_Weights.IMAGENET1K_V1", "best"])
def test_unknown_weights_are_refused_with_the_choices(name: str) -> None:
    with pytest.raises(UsageError, match="take a file or one of IMAGENET1K_V1"):
        ImageExtractor("resnet18", weights=name)


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    return tmp_path / "checkpoints"


def test_weights_out_of_reach_are_one_clear_line(
    hub: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*args: object, **options: object) -> None:
        raise URLError("no route to host")

    monkeypatch.setattr(torch.hub, "download_url_to_file", refuse)
    for name in (None, "IMAGENET1K_V1"):
        with pytest.raises(UsageError, match=r"cannot be downloaded .*no route.*give a file"):
            ImageExtractor("resnet18", weights=name)


@pytest.mark.parametrize(
    ("model", "name", "file", "resize"),
    [
        ("resnet18", "IMAGENET1K_V1", "resnet18-f37072fd.pth", 256),
        ("resnet18", "ResNet18_Weights.DEFAULT", "resnet18-f37072fd.pth", 256),
        ("resnet50", "IMAGENET1K_V2", "resnet50-11ad3fa6.pth", 232),
    ],
)
def test_weights_by_name_are_downloaded_once_with_their_transform(
    model: str, name: str, file: str, resize: int, hub: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []

    def download(url: str, path: str, hash_prefix: str, progress: bool) -> None:
        calls.append((url.rsplit("/", 1)[-1], hash_prefix))
        torch.save(random_network(model, classes=1).state_dict(), path)

    monkeypatch.setattr(torch.hub, "download_url_to_file", download)
    first = ImageExtractor(model, weights=name)
    assert calls == [(file, file.split("-")[1].split(".")[0])]
    assert first.transform == ImageTransform(resize=resize)
    assert first.revision.endswith("Weights.IMAGENET1K_V" + ("2" if resize == 232 else "1"))
    assert ImageExtractor(model, weights=name).weights_sha256 == first.weights_sha256
    assert len(calls) == 1
    assert json.dumps(first.transform.to_dict())
