"""Data with true classes for the benchmarks of clusters, each embedded once into ``data/``.

Banking77 (13,083 customer questions, 77 intents) and clothing photos (3,409 in 10 classes, a
folder a class) are named by their folders; WordNet (117,791 glosses, 45 lexicographer classes) is
fetched.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import wordnet
from numpy.typing import NDArray
from split import ROOT, run_script

from embedpress.errors import UsageError
from embedpress.extract.job import extract_images, extract_text
from embedpress.vectors import open_vectors

DATA = ROOT / "data"


@dataclass(frozen=True)
class Labelled:
    """Embeddings of unit length (n, d), float32, and the class of each."""

    vectors: NDArray[np.float32]
    classes: list[str]

    @property
    def n_classes(self) -> int:
        """Classes that occur."""
        return len(set(self.classes))


def banking77(folder: Path) -> list[Path]:
    """Embeddings of train.csv and test.csv (columns text, category) through MiniLM."""
    from demo import minilm_folder

    out = DATA / "banking77"
    out.mkdir(parents=True, exist_ok=True)
    parts = [pyarrow.csv.read_csv(folder / f"{name}.csv") for name in ("train", "test")]
    table = pa.concat_tables(parts)
    questions = out / "questions.parquet"
    if not questions.is_file():
        pq.write_table(pa.table({"text": table["text"], "label": table["category"]}), questions)
    extract_text(questions, out / "embeddings", model=minilm_folder())
    return [out / "embeddings"]


def clothing(folder: Path) -> list[Path]:
    """Embeddings of the photos in train/ and validation/, a folder a class, through ResNet-50."""
    out = DATA / "clothing"
    weights = out / "resnet50.safetensors"
    run_script("convert_resnet.py", "-o", weights)
    for name in ("train", "validation"):
        extract_images(folder / name, out / name, weights=weights)
    return [out / "train", out / "validation"]


def load(dataset: str, folder: Path | None) -> Labelled:
    """One of "banking77", "wordnet", "clothing"; the first and the last by their folder."""
    if dataset != "wordnet" and (folder is None or not folder.is_dir()):
        raise UsageError(f"{dataset} needs its folder: give --{dataset} FOLDER")
    if dataset == "wordnet":
        parts = [wordnet.embeddings_folder()]
    else:
        assert folder is not None
        parts = banking77(folder) if dataset == "banking77" else clothing(folder)
    read = [open_vectors(part).read(columns=["label"]) for part in parts]
    vectors = np.concatenate([batch.vectors for batch in read])
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return Labelled(
        vectors, [str(c) for batch in read for c in batch.metadata["label"].to_pylist()]
    )
