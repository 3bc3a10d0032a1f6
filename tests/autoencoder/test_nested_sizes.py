from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import pytest
from samples import SMALL, curved, write_embeddings

from embedpress.autoencoder.estimator import Compressor
from embedpress.autoencoder.judge import figures
from embedpress.autoencoder.pretrained import load_compressor
from embedpress.errors import FormatError, InputError, MismatchError, UsageError
from embedpress.index.build import build_index
from embedpress.index.change import add_to_index
from embedpress.index.search import open_index
from embedpress.onnx.compress import compress
from embedpress.onnx.compressor import load
from embedpress.push.verb import push
from embedpress.vectors import open_vectors

NESTED: dict[str, Any] = {"nested_sizes": (2, 4)}
METRICS = {"cosine": faiss.METRIC_INNER_PRODUCT, "l2": faiss.METRIC_L2}


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_embeddings(tmp_path_factory.mktemp("base"), curved(500, seed=5))


def recall(found: np.ndarray, truth: np.ndarray) -> float:
    return float(np.mean([len(np.intersect1d(f, t)) for f, t in zip(found, truth, strict=True)]))


def test_the_first_floats_find_more_than_those_of_a_compressor_that_was_not_told() -> None:
    x, asked = curved(2_000), curved(200, seed=1)
    unit = x / np.linalg.norm(x, axis=1, keepdims=True)
    truth = faiss.knn(asked, unit, 10, metric=faiss.METRIC_INNER_PRODUCT)[1]

    def found(compressor: Compressor, size: int) -> float:
        z, q = compressor.transform(x)[:, :size], compressor.transform_queries(asked)[:, :size]
        z, q = np.ascontiguousarray(z), np.ascontiguousarray(q)
        return recall(faiss.knn(q, z, 10, metric=faiss.METRIC_INNER_PRODUCT)[1], truth)

    options = {**SMALL, "n_components": 8, "code_size": None, "epochs": 20}
    plain = Compressor(**options).fit(x)
    nested = Compressor(**options, nested_sizes=(3,)).fit(x)
    assert found(nested, 3) > found(plain, 3)
    assert found(nested, 8) > found(plain, 8) - 0.5


def test_the_history_tells_of_each_size(fitted: Callable[..., Compressor]) -> None:
    compressor = fitted(**NESTED)
    told = figures(compressor)["nested"]
    assert [size["n_components"] for size in told] == [2, 4]
    first = compressor.history_["latents"][0]
    assert [size["start"] for size in told] == [first["recall_2"], first["recall_4"]]
    assert first["recall_2"] < first["recall_4"] < first["recall"]
    assert "recall_2" not in compressor.history_["codes"][0]
    assert figures(fitted())["nested"] == []


@pytest.mark.parametrize(
    ("sizes", "why"),
    [
        ((0,), "between 1 and n_components=6"),
        ((6,), "between 1 and n_components=6"),
        ((4, 2), "must rise"),
        ((2, 2), "must rise"),
        ((2.5,), "whole numbers"),
        ("2", "whole numbers"),
        (4, "whole numbers"),
    ],
)
def test_sizes_that_cannot_be(sizes: Any, why: str) -> None:
    with pytest.raises(UsageError, match=why):
        Compressor(**{**SMALL, "nested_sizes": sizes}).fit(curved(50))
    with pytest.raises(UsageError, match="give n_components"):
        Compressor(**{**SMALL, "n_components": None, "nested_sizes": (2,)}).fit(curved(50))


def test_a_folder_knows_its_sizes(
    saved: Callable[..., Path], fitted: Callable[..., Compressor], tmp_path: Path
) -> None:
    folder, x = saved(**NESTED), curved(20, seed=8)
    assert load(folder).latent_sizes == (2, 4, 6)
    assert load(saved()).latent_sizes == (6,)
    assert load(saved(n_components=None)).latent_sizes == ()
    again = load_compressor(folder)
    assert again.latent_tower_ is not None
    assert again.latent_tower_.nested_sizes == (2, 4)
    assert np.array_equal(again.transform(x), fitted(**NESTED).transform(x))
    again.partial_fit(curved(800))
    card = (folder / "README.md").read_text()
    assert "| of them the first | 2 floats | 16.0x |" in card
    config = json.loads((folder / "config.json").read_text())
    for forged in (7, [6], [0], ["2"], [2.0], [True], None):
        (tmp_path / "config.json").write_text(json.dumps({**config, "nested_sizes": forged}))
        with pytest.raises(FormatError, match="nested_sizes"):
            load(tmp_path)


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("factory", ["Flat", "IVF5"])
def test_a_search_of_shorter_latents_is_brute_force(
    saved: Callable[..., Path], base: Path, tmp_path: Path, metric: str, factory: str
) -> None:
    model = saved(**NESTED, metric=metric)
    if metric == "l2":
        x = open_vectors(base).read(columns=()).vectors
        base = write_embeddings(tmp_path / "base", x, metric="l2")
    latents, index = tmp_path / "latents", tmp_path / "index"
    compress(base, model, latents, what="latents", n_components=4)
    stored = open_vectors(latents).read(columns=()).vectors
    runtime, asked = load(model), curved(30, seed=6)
    x = open_vectors(base).read(columns=()).vectors
    np.testing.assert_array_equal(stored, runtime.transform(x)[:, :4])
    build_index(latents, model, index, factory=factory)
    found = open_index(index, model).search(asked, 7, nprobe=5 if factory != "Flat" else None)
    queries = np.ascontiguousarray(runtime.transform_queries(asked)[:, :4])
    scores, rows = faiss.knn(queries, stored, 7, metric=METRICS[metric])
    assert np.mean(found.rows == rows) > 0.99
    np.testing.assert_allclose(np.sort(found.scores), np.sort(scores), rtol=1e-4, atol=1e-4)


def test_what_does_not_go_together(saved: Callable[..., Path], base: Path, tmp_path: Path) -> None:
    model = saved(**NESTED)
    with pytest.raises(UsageError, match="gives latents of 2, 4, 6 floats, not 3"):
        compress(base, model, tmp_path / "none", what="latents", n_components=3)
    with pytest.raises(UsageError, match="what='latents'"):
        compress(base, model, tmp_path / "none", n_components=4)
    for size in (2, 4):
        compress(base, model, tmp_path / f"of-{size}", what="latents", n_components=size)
    with pytest.raises(MismatchError, match="dim was 4, now 2"):
        compress(base, model, tmp_path / "of-4", what="latents", n_components=2)
    build_index(tmp_path / "of-4", model, tmp_path / "index")
    with pytest.raises(MismatchError, match="latents of 4 floats"):
        add_to_index(tmp_path / "of-2", model, tmp_path / "index", existing="replace")
    with pytest.raises(InputError, match="already"):
        add_to_index(tmp_path / "of-4", model, tmp_path / "index")
    pushed = push(tmp_path / "index", model, f"parquet:{tmp_path / 'pushed'}")
    assert pushed.dim == open_vectors(tmp_path / "pushed").dim == 4
