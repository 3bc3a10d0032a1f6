from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from commands import sentences
from samples import SMALL

from embedpress.serve.settings import Settings

if TYPE_CHECKING:
    import httpx
    from live import Live

NEEDED = ("fastapi", "uvicorn", "prometheus_client", "httpx")
if missing := [name for name in NEEDED if find_spec(name) is None]:
    warnings.warn(f"tests/serve is skipped: it needs {', '.join(missing)}", stacklevel=1)
    collect_ignore_glob = ["test_*.py"]

N = 300


@pytest.fixture(scope="session")
def texts() -> list[str]:
    return sentences(N)


@pytest.fixture(scope="session")
def embedded(bert: Path, texts: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    from embedpress.extract.job import extract_text

    work = tmp_path_factory.mktemp("embedded")
    lines = [
        {"id": f"id {i}", "text": text, "subject": text.split()[0], "words": len(text.split())}
        for i, text in enumerate(texts)
    ]
    source = work / "texts.jsonl"
    source.write_text("".join(json.dumps(line) + "\n" for line in lines))
    extract_text(source, work / "embeddings", model=bert, id_column="id")
    return work / "embeddings"


@pytest.fixture(scope="session")
def vectors(embedded: Path) -> np.ndarray:
    from embedpress.vectors import open_vectors

    return open_vectors(embedded).read(columns=()).vectors


@pytest.fixture(scope="session")
def model(bert: Path, vectors: np.ndarray, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A compressor exported with its text extractor."""
    from embedpress.autoencoder.estimator import Compressor
    from embedpress.autoencoder.pretrained import save
    from embedpress.onnx.export import export

    work = tmp_path_factory.mktemp("model")
    options = {**SMALL, "epochs": 3, "nested_sizes": (2,)}
    save(Compressor(**options).fit(vectors), work / "trained")
    export(work / "trained", work / "glosses", with_extractor=bert, num_threads=1)
    return work / "glosses"


@pytest.fixture(scope="session")
def build(embedded: Path, model: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable:
    """Build an index of the texts' codes in a folder."""
    from embedpress.index.build import build_index
    from embedpress.onnx.compress import compress

    codes = tmp_path_factory.mktemp("codes")
    compress(embedded, model, codes, num_threads=1)

    def make(folder: Path, **options: Any) -> Path:
        build_index(codes, model, folder, num_threads=1, **options)
        return folder

    return make


@pytest.fixture(scope="session")
def index(build: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("index"))


@pytest.fixture(scope="session")
def map_folder(embedded: Path, model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    from embedpress.analyze.map_folder import map_folder as lay_out
    from embedpress.onnx.compress import compress

    work = tmp_path_factory.mktemp("map")
    compress(embedded, model, work / "latents", what="latents", num_threads=1)
    lay_out(work / "latents", work / "map", method="pca", labels="subject", num_threads=1)
    return work / "map"


@pytest.fixture(scope="session")
def settings(index: Path, model: Path, map_folder: Path) -> Callable[..., Settings]:
    """Settings over the session's folders."""

    def make(**options: Any) -> Settings:
        standard = {"index": str(index), "model": str(model), "num_threads": 1}
        return Settings(**{**standard, **options})

    return make


@pytest.fixture(scope="session")
def server(settings: Callable[..., Settings], map_folder: Path) -> Iterator[Live]:
    """A server with everything on, shared: not to be changed."""
    from live import live

    with live(settings(map=str(map_folder))) as running:
        yield running


@pytest.fixture
def http(server: Live) -> Iterator[httpx.Client]:
    with server.client() as client:
        yield client
