"""Photos for the benchmarks: CIFAR-10 through an ImageNet ResNet-50, 2,048 floats each.

Of 22,000 photos, drawn by seed 0, 10,000 are the base that methods are trained on, 10,000 a base
that none was trained on, and 2,000 the queries. Fetched and embedded once, into ``data/cifar``.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from split import ROOT, Split, run_script

from embedpress.extract.job import extract_images
from embedpress.vectors import open_vectors
from embedpress.vectors.files import atomic_path

DATA = ROOT / "data" / "cifar"
N_PHOTOS, N_BASE = 22_000, 10_000
# A photo has 32 pixels: at 224 the network would take four times as long and see no more.
SIDE = 112


def with_small_photos(weights: Path, out: Path) -> None:
    """Copy weights so that the extractor resizes photos to 112 pixels, as it reads in the file."""
    from convert_resnet import write_safetensors
    from safetensors import safe_open

    with safe_open(weights, "np") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        notes = {**file.metadata(), "resize": str(SIDE), "crop": str(SIDE)}
    with atomic_path(out) as path:
        write_safetensors(path, tensors, notes)


def embeddings_folder(data: Path = DATA, n_photos: int = N_PHOTOS) -> Path:
    """The folder of all photos' embeddings, made where it is missing."""
    weights, small = data / "resnet50.safetensors", data / f"resnet50-{SIDE}.safetensors"
    run_script("fetch_cifar.py", "-o", data / "photos", "--count", n_photos)
    run_script("convert_resnet.py", "-o", weights)
    if not small.is_file():
        with_small_photos(weights, small)
    folder = data / "embeddings"
    extract_images(data / "photos", folder, weights=small, max_skipped=0)
    return folder


def load_split() -> Split:
    """The benchmark's vectors."""
    vectors = open_vectors(embeddings_folder()).read(columns=()).vectors
    order = np.random.default_rng(0).permutation(len(vectors))
    parts = np.split(vectors[order], [N_BASE, 2 * N_BASE])
    return Split(*(np.ascontiguousarray(part) for part in parts))
