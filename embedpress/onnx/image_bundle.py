"""A ResNet and a compressor as one graph: from pixels to codes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import onnx
from onnx import TensorProto
from PIL import Image

from embedpress.onnx.builder import GraphBuilder
from embedpress.onnx.bundle import Bundle, check_dim, closed, compare, session_run
from embedpress.onnx.canary import INPUTS, pack
from embedpress.onnx.extractor import GRAPHS, ExtractorConfig
from embedpress.onnx.parity import expected_of
from embedpress.onnx.resnet import Layers, add_resnet

if TYPE_CHECKING:
    from embedpress.autoencoder.estimator import Compressor
    from embedpress.extract.image import ImageExtractor


def image_bundle(
    compressor: Compressor,
    extractor: ImageExtractor,
    stamps: dict[str, str],
    num_threads: int | None,
) -> Bundle:
    """The image graph with its transform and canaries, checked against torch.

    Raises
    ------
    ExportError
        The graph gives other results than torch.
    """
    check_dim(compressor, extractor.dim, extractor.model_id)
    content = image_graph(compressor, extractor, stamps).SerializeToString(deterministic=True)
    run = session_run(content, num_threads)
    images = drawn_images(extractor.transform.resize)
    for batch in (1, 7):
        pixels = np.stack([extractor.transform(images[i % len(images)]) for i in range(batch)])
        expected = expected_of(compressor, extractor.encode_pixels(pixels))
        compare(run({"pixels": pixels}), expected, f"{batch} images")
    expected = expected_of(compressor, extractor.encode(images))
    stored = {**expected, "images": np.stack([np.asarray(image) for image in images])}
    config = ExtractorConfig(
        kind="image",
        model=extractor.model_id,
        revision=extractor.revision,
        fingerprint=extractor.fingerprint,
        transform=extractor.transform.to_dict(),
    )
    return Bundle(config, {GRAPHS["image"]: content, INPUTS: pack(stored)})


def image_graph(
    compressor: Compressor,
    extractor: ImageExtractor,
    stamps: dict[str, str],
    layers: Layers | None = None,
) -> onnx.ModelProto:
    """``pixels`` -> ``embeddings``, ``latents``, ``codes``, with layers in float32 by default."""
    graph = GraphBuilder()
    add_resnet(graph, extractor.model, "embeddings", layers)
    side = extractor.transform.crop
    return closed(graph, compressor, [("pixels", TensorProto.FLOAT, (3, side, side))], stamps)


def drawn_images(side: int) -> list[Image.Image]:
    """Two pictures that every machine draws alike: waves of colour, and edges on them."""
    y, x = np.mgrid[0:side, 0:side] / side
    waves = [
        127.5 + 127.5 * np.sin(2 * np.pi * (a * x + b * y)) for a, b in ((1, 2), (3, 1), (2, 5))
    ]
    smooth = np.stack(waves, axis=-1).astype(np.uint8)
    edged = np.where((np.hypot(x - 0.5, y - 0.5) < 0.3)[..., None], 255 - smooth, smooth)
    return [Image.fromarray(smooth), Image.fromarray(edged.astype(np.uint8))]
