from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tiny_bert
from samples import curved, write_embeddings

from embedpress.errors import InputError, MismatchError, UsageError
from embedpress.extract.text import TextExtractor
from embedpress.index.ask import embed_question
from embedpress.onnx.export import export

PLAIN = {"made_by": {}, "dim": 32, "metric": "cosine"}


def test_a_file_of_vectors_is_asked_as_it_is(tmp_path: Path) -> None:
    x = curved(5)
    np.save(tmp_path / "x.npy", x.astype(np.float64))
    found = embed_question(vectors=tmp_path / "x.npy", **PLAIN)
    assert found.dtype == np.float32
    assert np.array_equal(found, x)
    write_embeddings(tmp_path / "x", x, metric="ip")
    assert np.array_equal(embed_question(vectors=tmp_path / "x", **PLAIN), x)


def test_the_metric_decides_what_a_plain_file_may_hold(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.zeros((1, 32), np.float32))
    with pytest.raises(InputError, match="all zeros"):
        embed_question(vectors=tmp_path / "x.npy", **PLAIN)
    found = embed_question(vectors=tmp_path / "x.npy", **{**PLAIN, "metric": "l2"})
    assert not found.any()


def test_exactly_one_thing_is_asked(tmp_path: Path) -> None:
    for asked in ({}, {"text": "a", "vectors": tmp_path}, {"text": "a", "image": "b"}):
        with pytest.raises(UsageError, match="exactly one of"):
            embed_question(**asked, **PLAIN)
    with pytest.raises(UsageError, match="name --extractor"):
        embed_question(text="a", **PLAIN)
    np.save(tmp_path / "x.npy", curved(2, dim=31))
    with pytest.raises(MismatchError, match="has 31 dimensions, the compressor takes 32"):
        embed_question(vectors=tmp_path / "x.npy", **PLAIN)


@pytest.mark.filterwarnings("ignore:texts longer than max_length")
def test_a_text_is_embedded_as_the_index_was(tmp_path: Path) -> None:
    bert = tiny_bert.build(tmp_path / "bert")
    settings = {"pooling": "cls", "normalized": False, "max_length": 6}
    extractor = TextExtractor(bert, pooling="cls", normalize=False, max_length=6)
    expected = extractor.encode(["a long question"])
    made_by = {**settings, "model": str(bert), "fingerprint": extractor.fingerprint}
    given = {"dim": expected.shape[1], "metric": "cosine"}
    found = embed_question(text="a long question", made_by=made_by, **given)
    np.testing.assert_allclose(found, expected, atol=1e-6)
    mean = embed_question(text="a long question", made_by={"model": str(bert)}, **given)
    assert not np.allclose(mean, expected, atol=1e-3)
    # The model may have moved, but must be the same.
    moved = bert.rename(tmp_path / "moved")
    found = embed_question(text="a long question", made_by=made_by, extractor=str(moved), **given)
    np.testing.assert_allclose(found, expected, atol=1e-6)
    with pytest.raises(MismatchError, match="is not the extractor that made the index's"):
        embed_question(
            text="a", made_by={**made_by, "fingerprint": "0" * 64}, extractor=str(moved), **given
        )


def test_an_exported_extractor_asks_without_torch(
    saved: Callable[..., Path], bert: Path, tmp_path: Path
) -> None:

    export(saved(), tmp_path / "out", with_extractor=bert, num_threads=1)
    extractor = TextExtractor(bert)
    made_by = {"model": "elsewhere", "fingerprint": extractor.fingerprint}
    asked = {"extractor": str(tmp_path / "out"), "dim": 32, "metric": "cosine"}
    found = embed_question(text="a cat", made_by=made_by, **asked)
    np.testing.assert_allclose(found, extractor.encode(["a cat"]), atol=1e-5)
    with pytest.raises(MismatchError, match="is not the extractor that made the index's"):
        embed_question(text="a cat", made_by={**made_by, "fingerprint": "0" * 64}, **asked)
