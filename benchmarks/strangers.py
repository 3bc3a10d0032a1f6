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
import pyarrow.csv
import pyarrow.json
import pyarrow.parquet as pq
import wordnet
from numpy.typing import NDArray
from split import ROOT, run_script

from embedpress.extract.job import extract_images, extract_text
from embedpress.vectors import open_vectors
from embedpress.vectors.files import atomic_path

DATA = ROOT / "data"
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
    from demo import minilm_folder

    def embed(name: str, table: Callable[[], pa.Table], count: int | None = None) -> Path:
        file, folder = DATA / name / "texts.parquet", DATA / name / "embeddings"
        if not file.is_file():
            texts = table()
            if count is not None:
                drawn = np.random.default_rng(0).permutation(len(texts))[:count]
                texts = texts.take(np.sort(drawn))
            file.parent.mkdir(parents=True, exist_ok=True)
            with atomic_path(file) as path:
                pq.write_table(texts, path)
        extract_text(file, folder, model=minilm_folder(), max_length=128)
        return folder

    def banking_table() -> pa.Table:
        parts = [pyarrow.csv.read_csv(banking / f"{part}.csv") for part in ("train", "test")]
        return pa.concat_tables(parts).rename_columns(["text", "label"])

    def reviews_table() -> pa.Table:
        run_script("fetch_reviews.py", "-o", DATA / "reviews.parquet")
        return pq.read_table(DATA / "reviews.parquet", columns=["text"])

    known = open_vectors(embed("banking77", banking_table)).read()
    strangers = {
        "medical questions": embed(
            "medquad-questions",
            lambda: pyarrow.json.read_json(medquad / "queries.jsonl").select(["text"]),
            N_TEXTS,
        ),
        "film reviews": embed("reviews-sample", reviews_table, N_TEXTS),
        "glosses": wordnet.embeddings_folder(),
    }
    return Domain(
        "bank",
        known.vectors,
        np.array(known.metadata["label"].to_pylist()),
        {
            name: open_vectors(folder).read(N_TEXTS, columns=()).vectors
            for name, folder in strangers.items()
        },
    )


def clothes_and_pictures(clothing: Path) -> Domain:
    """Photos of clothing among other pictures."""
    weights = DATA / "clothing" / "resnet50.safetensors"
    run_script("convert_resnet.py", "-o", weights)
    run_script("fetch_cifar.py", "-o", DATA / "cifar-few", "--count", N_PHOTOS)
    run_script("fetch_emoji.py", "-o", DATA / "emoji", "--count", N_PHOTOS)

    def embed(photos: Path, folder: Path) -> Path:
        extract_images(photos, folder, weights=weights, max_skipped=0)
        return folder

    parts = [
        open_vectors(embed(clothing / part, DATA / "clothing" / part)).read()
        for part in ("train", "validation")
    ]
    paths = [path for part in parts for path in part.metadata["path"].to_pylist()]
    strangers = {
        "photos of CIFAR-10": embed(DATA / "cifar-few", DATA / "cifar-few-embeddings"),
        "emoji": embed(DATA / "emoji", DATA / "emoji-embeddings"),
    }
    return Domain(
        "clothes",
        np.concatenate([part.vectors for part in parts]),
        np.array([Path(path).parent.name for path in paths]),
        {name: open_vectors(folder).read(columns=()).vectors for name, folder in strangers.items()},
    )
