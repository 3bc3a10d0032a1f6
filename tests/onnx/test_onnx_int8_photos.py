"""int8 convolutions: close to float32, the same in any batch, or refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto
from PIL import Image
from samples import SMALL
from torch_files import random_network

from embedpress.autoencoder.estimator import Compressor
from embedpress.autoencoder.pretrained import save
from embedpress.errors import ExportError, InputError, UsageError
from embedpress.extract.image import ImageExtractor
from embedpress.extract.images import load_image
from embedpress.onnx import int8_image_bundle, int8_judge
from embedpress.onnx.builder import GraphBuilder
from embedpress.onnx.bundle import session_run
from embedpress.onnx.export import export
from embedpress.onnx.int8_conv import ENTRY, Int8Layers, RecordingLayers
from embedpress.onnx.resnet import FloatLayers
from embedpress.onnx.runtime import ImageEncoder

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.filterwarnings("ignore:this processor lacks")

N_PHOTOS = 160


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Smooth pictures of all colours, as photos are smooth."""
    folder, rng = tmp_path_factory.mktemp("photos"), np.random.default_rng(5)
    for number in range(N_PHOTOS):
        coarse = rng.integers(0, 256, (6, 8, 3), np.uint8)
        picture = Image.fromarray(coarse).resize((80, 64), Image.Resampling.BICUBIC)
        picture.save(folder / f"{number:03}.png")
    return folder


@pytest.fixture(scope="module")
def model(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A compressor of a small network's features, and the network's weights."""
    from safetensors.torch import save_file

    folder = tmp_path_factory.mktemp("model")
    weights = folder / "resnet18.safetensors"
    state = {name: t.contiguous() for name, t in random_network("resnet18").state_dict().items()}
    save_file(state, weights, {"resize": "64", "crop": "48"})
    images = [load_image(file) for file in sorted(photos.iterdir())]
    features = ImageExtractor("resnet18", weights=weights, num_threads=1).encode(images)
    save(Compressor(**{**SMALL, "epochs": 2}).fit(features), folder / "compressor")
    return folder / "compressor", weights


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    """Few photos will do, and random weights are no model: what they lose says nothing."""
    monkeypatch.setattr(int8_image_bundle, "N_SCALES", 40)
    monkeypatch.setattr(int8_judge, "MIN_SAMPLE", 100)
    monkeypatch.setattr(int8_judge, "MOST_LOST", 0.5)


@pytest.fixture(scope="module")
def deployed(
    model: tuple[Path, Path], photos: Path, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[bool], Path]:
    made: dict[bool, Path] = {}

    def deploy(int8: bool) -> Path:
        if int8 not in made:
            made[int8] = tmp_path_factory.mktemp("deployed") / "out"
            options: dict[str, Any] = {"int8": True, "sample": photos} if int8 else {}
            compressor, weights = model
            options |= {"with_extractor": "resnet18", "weights": weights, "num_threads": 1}
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(int8_judge, "MIN_SAMPLE", 100)
                patch.setattr(int8_image_bundle, "N_SCALES", 40)
                patch.setattr(int8_judge, "MOST_LOST", 0.5)
                export(compressor, made[int8], **options)
        return made[int8]

    return deploy


def test_int8_is_close_to_float32_and_smaller(
    deployed: Callable[[bool], Path], photos: Path
) -> None:
    encoders = [ImageEncoder(deployed(int8), num_threads=1) for int8 in (True, False)]
    files = sorted(photos.iterdir())[:40]
    ours, theirs = (encoder.embed(files) for encoder in encoders)
    cosine = (ours * theirs).sum(1) / np.linalg.norm(ours, axis=1) / np.linalg.norm(theirs, axis=1)
    assert cosine.min() > 0.98
    assert not np.array_equal(ours, theirs)
    assert encoders[0].check_canaries() == 18
    documents = [json.loads((deployed(int8) / "extractor.json").read_text()) for int8 in (1, 0)]
    assert [one["precision"] for one in documents] == ["int8", "float32"]
    assert set(documents[0]["measured"]) == {
        "recall@10", "recall@10 of float32", "cosine", "queries",
    }  # fmt: skip
    assert documents[0]["measured"]["queries"] == N_PHOTOS - 40
    sizes = [(deployed(int8) / "image_encoder.onnx").stat().st_size for int8 in (True, False)]
    assert sizes[0] < 0.3 * sizes[1]


def test_a_photo_does_not_depend_on_its_batch(
    deployed: Callable[[bool], Path], photos: Path
) -> None:
    encoder = ImageEncoder(deployed(True), num_threads=1)
    files = sorted(photos.iterdir())[:12]
    alone = np.concatenate([encoder.embed([file]) for file in files])
    for batch in (5, 12):
        among = encoder.embed(files, batch_size=batch)
        largest = float(np.abs(alone).max())
        np.testing.assert_allclose(among, alone, atol=int8_judge.ALONE_TOLERANCE * largest)


@pytest.mark.usefixtures("few")
def test_what_loses_too_much_is_refused(
    model: tuple[Path, Path], photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = int8_image_bundle._limits

    def clipped(*arguments: Any) -> dict[str, tuple[float, float]]:
        return {name: (low / 50, high / 50) for name, (low, high) in real(*arguments).items()}

    monkeypatch.setattr(int8_image_bundle, "_limits", clipped)
    monkeypatch.setattr(int8_judge, "MOST_LOST", 0.01)
    given: dict[str, Any] = {"with_extractor": "resnet18", "weights": model[1], "num_threads": 1}
    with pytest.raises(ExportError, match=r"more than 0\.01 is lost; export without --int8"):
        export(model[0], tmp_path / "out", int8=True, sample=photos, **given)
    monkeypatch.setattr(int8_judge, "ALONE_TOLERANCE", -1.0)
    with pytest.raises(ExportError, match="the embedding of a photo depends on its batch"):
        export(model[0], tmp_path / "out", int8=True, sample=photos, **given)
    assert not (tmp_path / "out").exists()


def test_samples(model: tuple[Path, Path], photos: Path, tmp_path: Path) -> None:
    def refused(int8: bool, sample: Path | None) -> None:
        given: dict[str, Any] = {"with_extractor": "resnet18", "weights": model[1]}
        export(model[0], tmp_path / "out", int8=int8, sample=sample, **given)

    with pytest.raises(UsageError, match="judged on photos: give a folder of them as sample"):
        refused(True, None)
    with pytest.raises(UsageError, match="a sample of photos is for int8"):
        refused(False, photos)
    with pytest.raises(UsageError, match="the sample has 160 photos: int8 is judged on 500"):
        refused(True, photos)
    with pytest.raises(UsageError, match="nothing: not a folder"):
        refused(True, tmp_path / "nothing")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="no images in it"):
        refused(True, tmp_path / "empty")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("kernel", "stride", "padding", "groups"),
    [(1, 1, 0, 1), (3, 1, 1, 1), (3, 2, 1, 1), (1, 2, 0, 1), (3, 1, 1, 4)],
)
@pytest.mark.parametrize("relu", [False, True])
def test_a_block_differs_from_float32_by_few_steps(
    kernel: int, stride: int, padding: int, groups: int, relu: bool
) -> None:
    rng = np.random.default_rng(kernel + stride)
    conv = torch.nn.Conv2d(8, 12, kernel, stride, padding, groups=groups)
    weight = rng.standard_normal(tuple(conv.weight.shape)).astype(np.float32)
    weight *= rng.uniform(0.01, 3, (12, 1, 1, 1)).astype(np.float32)
    bias = rng.standard_normal(12).astype(np.float32)
    pixels = np.maximum(rng.standard_normal((3, 8, 9, 9)), 0).astype(np.float32)

    def model(layers: Any) -> Any:
        graph = GraphBuilder()
        x = layers.enter(graph, "pixels")
        add = layers.conv_relu if relu else layers.conv
        y = add(graph, x, weight, bias, "first", conv)
        other = add(graph, x, weight[::-1].copy(), bias, "second", conv)
        z = layers.add_relu(graph, y, other, "sum")
        graph.add("Identity", layers.leave(graph, z), name="out")
        ports = [("pixels", TensorProto.FLOAT, (8, 9, 9))]
        side = (9 + 2 * padding - kernel) // stride + 1
        return graph.model(ports, [("out", TensorProto.FLOAT, (12, side, side))], {})

    exact = session_run(model(FloatLayers()).SerializeToString(), 1)({"pixels": pixels})["out"]
    recorder = RecordingLayers()
    watched = recorder.observed(model(recorder))
    seen = session_run(watched.SerializeToString(), 1)({"pixels": pixels})
    np.testing.assert_allclose(seen["out"], exact, rtol=1e-5, atol=1e-5)
    limits = {
        layer: (float(seen[f"{layer}.Min"]), float(seen[f"{layer}.Max"]))
        for layer in recorder.outputs
    }
    assert set(limits) == {ENTRY, "first", "second", "sum"}
    assert limits[ENTRY] == (pixels.min(), pixels.max())
    assert limits["sum"] == pytest.approx((exact.min(), exact.max()), abs=1e-5)
    assert relu == (limits["first"][0] >= 0)
    ours = session_run(model(Int8Layers(limits)).SerializeToString(), 1)({"pixels": pixels})["out"]
    assert ours.min() >= 0
    # The sum's own rounding, one of each summand's, and what their inputs' roundings add up to.
    steps = {name: (max(high, 0) - min(low, 0)) / 255 for name, (low, high) in limits.items()}
    away = np.abs(ours - exact)
    assert away.max() < 6 * max(steps.values())
    assert away.mean() < max(steps["first"], steps["second"], steps["sum"])
    assert np.corrcoef(ours.ravel(), exact.ravel())[0, 1] > 0.995
