"""What a GPU gives is what the processor gives; skipped where there is none."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from samples import SMALL, curved
from torch_files import save_resnet18

import embedpress
from embedpress.autoencoder.estimator import Compressor
from embedpress.autoencoder.pretrained import load_compressor, save
from embedpress.extract.image import ImageExtractor
from embedpress.extract.text import TextExtractor
from embedpress.onnx.compressor import OnnxCompressor

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


@pytest.fixture(scope="module")
def trained(embeddings: np.ndarray) -> Compressor:
    """With latents, codes and a reranker."""
    options = {**SMALL, "monitor": "recall", "epochs": 40}
    return Compressor(**options, device="cuda").fit(embeddings)


@pytest.mark.parametrize("metric", ["cosine", "ip", "l2"])
def test_a_training_finds_what_one_on_the_processor_does(
    embeddings: np.ndarray, others: np.ndarray, metric: str
) -> None:
    scores = [
        Compressor(**SMALL, metric=metric, device=device).fit(embeddings).score(others)
        for device in ("cpu", "cuda")
    ]
    assert scores[1] == pytest.approx(scores[0], abs=0.03)


def test_what_was_trained_there_is_saved_and_used_without_it(
    trained: Compressor, others: np.ndarray, tmp_path: Path
) -> None:
    """`save` compares every graph with the network on the GPU, or refuses."""
    save(trained, tmp_path / "model")
    on_processor = load_compressor(tmp_path / "model")
    assert on_processor.device == "cpu"
    codes = trained.encode(others)
    assert (on_processor.encode(others) == codes).mean() > 0.999
    assert (OnnxCompressor(tmp_path / "model").encode(others) == codes).mean() > 0.999
    assert np.allclose(on_processor.transform(others), trained.transform(others), atol=1e-4)


def everything(compressor: Compressor, x: np.ndarray, codes: np.ndarray) -> list[np.ndarray]:
    """What a compressor makes of embeddings and of codes."""
    latents = compressor.transform(x)
    found = [
        latents,
        compressor.inverse_transform(latents),
        compressor.transform_queries(x),
        compressor.decode(codes),
        compressor.encode_queries(x),
    ]
    if compressor.reranker_ is not None:
        found += [compressor.rerank_documents(codes), compressor.rerank_queries(x)]
    return found


def test_a_loaded_compressor_moves_there_and_back(
    trained: Compressor, others: np.ndarray, tmp_path: Path
) -> None:
    save(trained, tmp_path / "model")
    loaded = embedpress.Compressor.from_pretrained(tmp_path / "model", device="cuda")
    codes = loaded.encode(others)
    there = everything(loaded, others, codes)
    loaded.set_params(device="cpu")
    here = everything(loaded, others, codes)
    for one, other in zip(there, here, strict=True):
        assert np.abs(one - other).max() <= 1e-4 * np.abs(other).max()
    loaded.set_params(device="cuda", epochs=2).partial_fit(curved(200))
    assert loaded.encode(others).shape == codes.shape


def test_a_seed_draws_the_same_batches_there_twice(embeddings: np.ndarray) -> None:
    first, second = (Compressor(**SMALL, device="cuda").fit(embeddings) for _ in range(2))
    recalls = [[record["recall"] for record in c.history_["codes"]] for c in (first, second)]
    assert recalls[0] == pytest.approx(recalls[1], abs=0.03)
    # torch's own generators are left as they were found.
    before = torch.cuda.get_rng_state()
    Compressor(**SMALL, dropout=0.2, device="cuda").fit(embeddings)
    assert torch.equal(torch.cuda.get_rng_state(), before)


def test_texts_give_the_same_embeddings(bert: Path) -> None:
    texts = ["a word", "a longer line of words, all of them short", "é", "日"] * 5
    here, there = (TextExtractor(bert, device=device).encode(texts) for device in ("cpu", "cuda"))
    assert np.abs(here - there).max() < 1e-4


def test_photos_give_the_same_embeddings(tmp_path: Path) -> None:
    from PIL import Image

    weights = save_resnet18(tmp_path / "weights.pth")
    pixels = np.random.default_rng(0).integers(0, 256, (3, 40, 60, 3), dtype=np.uint8)
    photos = [Image.fromarray(photo) for photo in pixels]
    here, there = (
        ImageExtractor("resnet18", weights=weights, device=device).encode(photos)
        for device in ("cpu", "cuda")
    )
    assert np.abs(here - there).max() <= 1e-4 * np.abs(here).max()
