"""Known vectors and strangers among them, for the benchmark of outliers.

Text through MiniLM: customer questions to a bank (Banking77) are known; strangers are questions of
intents that were left out, medical questions (MedQuAD), film reviews and WordNet's glosses.
Pictures through ResNet-50: photos of clothing are known; strangers are kinds of clothing that were
left out, photos of CIFAR-10 and emoji. Fetched and embedded once, into ``data/``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.json
import pyarrow.parquet as pq
import wordnet
from labelled import DATA, load
from numpy.typing import NDArray
from split import run_script

from embedpress.extract.job import extract_images, extract_text
from embedpress.vectors import open_vectors
from embedpress.vectors.files import atomic_path

SHARE = 0.1
"""Of strangers among what is judged."""
LEFT_OUT = 0.25
"""Of the known classes: their vectors are the near strangers."""
N_TEXTS, N_PHOTOS = 2_000, 500

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Mixture:
    """Vectors to learn from, and others to judge, some of which are strangers (True)."""

    name: str
    known: Floats
    judged: Floats
    strange: NDArray[np.bool_]


@dataclass(frozen=True)
class Domain:
    """Vectors of one kind with their classes, and named strangers to them."""

    name: str
    vectors: Floats
    classes: NDArray[np.str_]
    strangers: dict[str, Floats]

    def mixtures(self, seed: int) -> list[Mixture]:
        """Each kind of strangers among known vectors that were not learnt from."""
        rng = np.random.default_rng(seed)
        names = np.unique(self.classes)
        left_out = rng.choice(names, max(1, round(LEFT_OUT * len(names))), replace=False)
        near = np.isin(self.classes, left_out)
        rows = rng.permutation(np.flatnonzero(~near))
        known, held = np.split(self.vectors[rows], [round(0.75 * len(rows))])
        pools = {"classes left out": self.vectors[near], **self.strangers}
        return [
            self._mixture(name, known, held, rng.permutation(pool)) for name, pool in pools.items()
        ]

    def _mixture(self, name: str, known: Floats, held: Floats, pool: Floats) -> Mixture:
        count = min(len(pool), round(SHARE / (1 - SHARE) * len(held)))
        judged = np.concatenate([held, pool[:count]])
        return Mixture(f"{self.name}: {name}", known, judged, np.arange(len(judged)) >= len(held))


def questions_and_texts(banking: Path, medquad: Path) -> Domain:
    """Customer questions among other texts."""
    known = load("banking77", banking)

    def medical() -> pa.Table:
        return pyarrow.json.read_json(medquad / "queries.jsonl").select(["text"])

    def reviews() -> pa.Table:
        run_script("fetch_reviews.py", "-o", DATA / "reviews.parquet")
        return pq.read_table(DATA / "reviews.parquet", columns=["text"])

    strangers = {
        "medical questions": sample_of_texts("medquad-questions", medical),
        "film reviews": sample_of_texts("reviews-sample", reviews),
        "glosses": wordnet.embeddings_folder(),
    }
    return Domain(
        "bank",
        known.vectors,
        np.array(known.classes),
        {
            name: open_vectors(folder).read(N_TEXTS, columns=()).vectors
            for name, folder in strangers.items()
        },
    )


def sample_of_texts(name: str, table: Callable[[], pa.Table]) -> Path:
    """Embeddings of some rows of a table with a column "text"."""
    from demo import minilm_folder

    file, folder = DATA / name / "texts.parquet", DATA / name / "embeddings"
    if not file.is_file():
        rows = table()
        drawn = np.random.default_rng(0).permutation(len(rows))[:N_TEXTS]
        file.parent.mkdir(parents=True, exist_ok=True)
        with atomic_path(file) as path:
            pq.write_table(rows.take(np.sort(drawn)), path)
    extract_text(file, folder, model=minilm_folder())
    return folder


def clothes_and_pictures(clothing: Path) -> Domain:
    """Photos of clothing among other pictures."""
    known = load("clothing", clothing)
    weights = DATA / "clothing" / "resnet50.safetensors"
    run_script("fetch_cifar.py", "-o", DATA / "cifar-few", "--count", N_PHOTOS)
    run_script("fetch_emoji.py", "-o", DATA / "emoji", "--count", N_PHOTOS)
    strangers = {"photos of CIFAR-10": "cifar-few", "emoji": "emoji"}
    found = {}
    for name, pictures in strangers.items():
        folder = DATA / f"{pictures}-embeddings"
        extract_images(DATA / pictures, folder, weights=weights, max_skipped=0)
        found[name] = open_vectors(folder).read(columns=()).vectors
    return Domain("clothes", known.vectors, np.array(known.classes), found)
