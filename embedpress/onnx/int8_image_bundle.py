"""A ResNet in int8 and a compressor as one graph, judged on real photos."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from embedpress.extract.images import load_image
from embedpress.onnx.bundle import Bundle, Feed, Run, session_run
from embedpress.onnx.canary import INPUTS, pack
from embedpress.onnx.extractor import GRAPHS
from embedpress.onnx.image_bundle import drawn_images, image_bundle, image_graph
from embedpress.onnx.int8 import warn_where_it_is_slow
from embedpress.onnx.int8_conv import Int8Layers, Limits, RecordingLayers
from embedpress.onnx.int8_judge import check_sample, judge
from embedpress.onnx.parity import Arrays

if TYPE_CHECKING:
    from embedpress.autoencoder.estimator import Compressor
    from embedpress.extract.image import ImageExtractor

N_SCALES, MOST_JUDGED, N_ALONE, BATCH = 128, 1500, 8, 8

Photo = Path | Image.Image


def int8_image_bundle(
    compressor: Compressor,
    extractor: ImageExtractor,
    stamps: dict[str, str],
    photos: Sequence[Path],
    num_threads: int | None,
) -> Bundle:
    """The image graph with its convolutions in int8.

    Scales are taken from some photos, and what is lost is judged on others.

    Parameters
    ----------
    photos : sequence of Path
        At least :data:`~embedpress.onnx.int8_judge.MIN_SAMPLE`.

    Raises
    ------
    UsageError
        Too few photos.
    InputError
        One that cannot be read.
    ExportError
        As for :func:`~embedpress.onnx.int8_judge.judge`.
    """
    check_sample(photos, "photo")
    warn_where_it_is_slow()
    plain = image_bundle(compressor, extractor, stamps, num_threads)
    exact = session_run(plain.files[GRAPHS["image"]], num_threads)
    shuffled = [photos[row] for row in np.random.default_rng(0).permutation(len(photos))]
    limits = _limits(compressor, extractor, stamps, shuffled[:N_SCALES], num_threads)
    graph = image_graph(compressor, extractor, stamps, Int8Layers(limits))
    content = graph.SerializeToString(deterministic=True)
    run = session_run(content, num_threads)
    outputs = partial(_outputs, extractor)
    judged = shuffled[N_SCALES : N_SCALES + MOST_JUDGED]
    measured = judge(compressor, exact, run, outputs, judged, alone=N_ALONE, what="photo")
    drawn = drawn_images(extractor.transform.resize)
    stored = outputs(drawn, run)
    stored["images"] = np.stack([np.asarray(image) for image in drawn])
    return Bundle(
        config=replace(plain.config, precision="int8", measured=measured),
        files={**plain.files, GRAPHS["image"]: content, INPUTS: pack(stored)},
    )


def _limits(
    compressor: Compressor,
    extractor: ImageExtractor,
    stamps: dict[str, str],
    photos: Sequence[Path],
    num_threads: int | None,
) -> dict[str, Limits]:
    """Smallest and largest values that the layers give for these photos."""
    recorder = RecordingLayers()
    model = recorder.observed(image_graph(compressor, extractor, stamps, recorder))
    run = session_run(model.SerializeToString(), num_threads)
    seen = [run(feed) for feed in _feeds(extractor, photos)]
    return {
        layer: (
            min(float(one[f"{layer}.Min"]) for one in seen),
            max(float(one[f"{layer}.Max"]) for one in seen),
        )
        for layer in recorder.outputs
    }


def _feeds(extractor: ImageExtractor, photos: Sequence[Photo]) -> Iterator[Feed]:
    for low in range(0, len(photos), BATCH):
        images = [
            load_image(photo) if isinstance(photo, Path) else photo
            for photo in photos[low : low + BATCH]
        ]
        yield {"pixels": np.stack([extractor.transform(image) for image in images])}


def _outputs(extractor: ImageExtractor, photos: Sequence[Photo], run: Run) -> Arrays:
    """A graph's outputs for photos."""
    parts = [run(feed) for feed in _feeds(extractor, photos)]
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
