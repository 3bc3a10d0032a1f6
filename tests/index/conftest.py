from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from index_truth import IDS, METADATA, N
from samples import curved, write_embeddings

from embedpress.index.build import build_index
from embedpress.onnx.compress import compress


@pytest.fixture(scope="session")
def base() -> np.ndarray:
    return curved(N, seed=3)


@pytest.fixture(scope="session")
def queries() -> np.ndarray:
    return curved(25, seed=4)


@pytest.fixture(scope="session")
def embedded(base: np.ndarray, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Folders of the base's embeddings by metric: string ids and metadata."""
    made: dict[str, Path] = {}

    def folder(metric: str = "cosine") -> Path:
        if metric not in made:
            out = tmp_path_factory.mktemp("embedded")
            made[metric] = write_embeddings(out, base, ids=IDS, metadata=METADATA, metric=metric)
        return made[metric]

    return folder


@pytest.fixture(scope="session")
def compressed(
    saved: Callable[..., Path],
    embedded: Callable[..., Path],
    tmp_path_factory: pytest.TempPathFactory,
) -> Callable[..., Path]:
    """Folders of codes or latents by what they are and the compressor's options."""
    made: dict[str, Path] = {}

    def folder(what: str = "codes", **options: Any) -> Path:
        key = repr((what, sorted(options.items())))
        if key not in made:
            made[key] = tmp_path_factory.mktemp(what)
            source = embedded(options.get("metric", "cosine"))
            compress(source, saved(**options), made[key], what=what, num_threads=1)
        return made[key]

    return folder


@pytest.fixture(scope="session")
def built(
    saved: Callable[..., Path],
    embedded: Callable[..., Path],
    compressed: Callable[..., Path],
    tmp_path_factory: pytest.TempPathFactory,
) -> Callable[..., Path]:
    """Index folders by how they are built, each built once: not to be written to."""
    made: dict[str, Path] = {}

    def folder(
        what: str = "codes", factory: str = "Flat", rerank: str = "none", **options: Any
    ) -> Path:
        key = repr((what, factory, rerank, sorted(options.items())))
        if key not in made:
            made[key] = tmp_path_factory.mktemp("index")
            build_index(
                compressed(what, **options),
                saved(**options),
                made[key],
                factory=factory,
                rerank=rerank,
                vectors=embedded(options.get("metric", "cosine")),
                num_threads=1,
            )
        return made[key]

    return folder
