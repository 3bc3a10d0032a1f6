"""A compressor as plain dense layers, and as a folder of the sentence-transformers library."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from samples import curved

from embedpress.autoencoder import dense_stack as dense_stack_module
from embedpress.autoencoder.dense_stack import dense_stack, run_stack
from embedpress.autoencoder.estimator import Compressor
from embedpress.errors import ExportError, UsageError
from embedpress.extract import torchvision_trap
from embedpress.extract.text import TextExtractor
from embedpress.onnx.export import export

TEXTS = ["a cat", "", "trains are late again", "soup! with é", "the old mill " * 9]
VARIANTS: list[dict[str, Any]] = [
    {},
    {"hidden_sizes": (), "code_size": None},
    {"metric": "l2", "hidden_sizes": (16, 8), "dropout": 0.2},
    {"groups": 2, "batch_norm": True, "metric": "ip"},
]


@pytest.mark.parametrize("options", VARIANTS, ids=str)
def test_dense_layers_give_what_the_network_gives(
    fitted: Callable[..., Compressor], options: dict[str, Any]
) -> None:
    compressor = fitted(**options)
    tower = compressor.latent_tower_
    assert tower is not None
    x = curved(300, seed=5)
    given = x / np.linalg.norm(x, axis=1, keepdims=True) if compressor.metric == "cosine" else x
    for network, expected in (
        (tower.encoder, np.asarray(compressor.transform(x))),
        (tower.query_encoder, compressor.transform_queries(x)),
    ):
        found = run_stack(dense_stack(network, compressor.scale_), given)
        np.testing.assert_allclose(found, expected, atol=1e-5 * np.abs(expected).max())


@pytest.mark.parametrize("options", VARIANTS[:3], ids=str)
def test_the_library_gives_our_latents(
    fitted: Callable[..., Compressor],
    saved: Callable[..., Path],
    bert: Path,
    tmp_path: Path,
    options: dict[str, Any],
) -> None:
    torchvision_trap.prepare()
    library = pytest.importorskip("sentence_transformers")
    written = export(
        saved(**options), tmp_path / "st", with_extractor=bert, format="sentence-transformers"
    )
    assert {"modules.json", "config.json", "model.safetensors"} <= set(written)
    model = library.SentenceTransformer(str(tmp_path / "st"), device="cpu")
    compressor = fitted(**options)
    embeddings = TextExtractor(bert).encode(TEXTS)
    for found, expected in (
        (model.encode(TEXTS), compressor.transform(embeddings)),
        (model.encode_document(TEXTS), compressor.transform(embeddings)),
        (model.encode_query(TEXTS), compressor.transform_queries(embeddings)),
    ):
        largest = float(np.abs(expected).max())
        np.testing.assert_allclose(found, expected, atol=1e-4 * largest)
    name = "euclidean" if compressor.metric == "l2" else "dot"
    assert model.similarity_fn_name == name


def test_what_cannot_be_written(
    saved: Callable[..., Path], bert: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def write(model: Path | None = None, **options: Any) -> None:
        given = {"with_extractor": bert, "format": "sentence-transformers", **options}
        export(model or saved(), tmp_path / "st", **given)

    with pytest.raises(UsageError, match="fit the compressor with latents"):
        write(saved(n_components=None, groups=1))
    for options in ({"with_extractor": None}, {"with_extractor": "resnet50"}, {"int8": True}):
        with pytest.raises(UsageError):
            write(**options)
    with pytest.raises(UsageError, match="format='pickle' must be onnx or"):
        write(format="pickle")
    real = dense_stack_module.dense_stack
    monkeypatch.setattr(
        dense_stack_module,
        "dense_stack",
        lambda network, scale: [(w * 1.01, b) for w, b in real(network, scale)],
    )
    with pytest.raises(ExportError, match="dense layers give other query latents"):
        write()
    monkeypatch.undo()
    assert not (tmp_path / "st").exists()
    (tmp_path / "st").mkdir()
    (tmp_path / "st" / "mine.txt").touch()
    with pytest.raises(UsageError, match="is not empty: give a new folder"):
        write()
