from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import tiny_bert
from faults import small_disk_at
from samples import SMALL, curved

if TYPE_CHECKING:
    from embedpress.autoencoder.estimator import Compressor


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Callable[[int], Path]]:
    """A disk of so many KiB."""
    with small_disk_at(tmp_path / "disk") as sized:
        yield sized


@pytest.fixture(scope="session")
def embeddings() -> np.ndarray:
    return curved(800)


@pytest.fixture(scope="session")
def others() -> np.ndarray:
    """Embeddings of the same kind that no compressor was fitted on."""
    return curved(300, seed=1)


@pytest.fixture(scope="session")
def fitted(embeddings: np.ndarray) -> Callable[..., Compressor]:
    """Small compressors by their options, each fitted once: not to be changed."""
    from embedpress.autoencoder.estimator import Compressor

    made: dict[str, Compressor] = {}

    def fit(**options: Any) -> Compressor:
        key = repr(sorted(options.items()))
        if key not in made:
            made[key] = Compressor(**{**SMALL, **options}).fit(embeddings)
        return made[key]

    return fit


@pytest.fixture(scope="session")
def saved(
    fitted: Callable[..., Compressor], tmp_path_factory: pytest.TempPathFactory
) -> Callable[..., Path]:
    """Folders of small compressors by their options, each saved once: not to be written to."""
    from embedpress.autoencoder.pretrained import save

    made: dict[str, Path] = {}

    def folder(**options: Any) -> Path:
        key = repr(sorted(options.items()))
        if key not in made:
            made[key] = tmp_path_factory.mktemp("compressor")
            save(fitted(**options), made[key])
        return made[key]

    return folder


@pytest.fixture(scope="session")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A BERT of two layers with random weights; every character is a token."""
    return tiny_bert.build(tmp_path_factory.mktemp("models") / "bert")
