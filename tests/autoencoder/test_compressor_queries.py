"""Sample queries: searches asked with another kind of vectors than are searched."""

from __future__ import annotations

import numpy as np
import pytest
from samples import DIM, SMALL, curved

from embedpress.autoencoder.estimator import Compressor
from embedpress.autoencoder.neighbors import Neighborhoods
from embedpress.errors import InputError


def asked(n: int, *, seed: int) -> np.ndarray:
    """Vectors of the sheet, turned and bent to where no document lies."""
    rng = np.random.default_rng(11)
    turn = np.linalg.qr(rng.normal(size=(DIM, DIM)))[0]
    x = curved(n, seed=seed)
    return (x + 0.8 * np.abs(x) @ turn.T).astype(np.float32)


def recall(compressor: Compressor, base: np.ndarray, queries: np.ndarray) -> float:
    unit, q = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in (base, queries))
    truth = np.argsort(-(q @ unit.T), axis=1)[:, :10]
    scores = compressor.transform_queries(queries) @ compressor.transform(base).T
    found = np.argsort(-scores, axis=1)[:, :10]
    return float(
        np.mean([len(np.intersect1d(f, t)) / 10 for f, t in zip(found, truth, strict=True)])
    )


def test_every_other_batch_is_asked_with_sample_queries() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(80, 4)).astype(np.float32)
    queries = rng.normal(size=(30, 4)).astype(np.float32)
    neighborhoods = Neighborhoods(x, "ip", seeds=2, size=4, anchors=6, queries=queries)
    nearest = [set(row) for row in np.argsort(-(queries @ x.T), axis=1)[:, :4].tolist()]
    askers = [set(row) for row in np.argsort(-(queries @ queries.T), axis=1)[:, :3].tolist()]
    drawn = neighborhoods.batches(np.random.default_rng(1))
    for place, batch in zip(range(140), drawn, strict=False):
        assert batch.asked is (place % 2 == 1)
        documents, anchors = set(batch.documents.tolist()), set(batch.anchors.tolist())
        if batch.asked:
            seeds = [q for q in range(30) if nearest[q] <= documents and askers[q] <= anchors]
            assert set().union(*(nearest[q] for q in seeds)) == documents
            assert set().union(*(askers[q] for q in seeds)) == anchors
        else:
            assert anchors <= documents


def test_sample_queries_help_those_that_ask_alike() -> None:
    base, options = curved(1500), {**SMALL, "code_size": None, "monitor": "recall", "epochs": 60}
    alone = Compressor(**options).fit(base)
    taught = Compressor(**options).fit(base, queries=asked(1500, seed=1))
    unseen = asked(300, seed=2)
    assert recall(taught, base, unseen) > recall(alone, base, unseen) + 0.02


def test_validation_asks_with_held_out_sample_queries() -> None:
    options = {**SMALL, "epochs": 0, "monitor": "recall"}
    base = curved(600)
    # Each query is a document: its held-out recall is that of documents asking, oneself found.
    compressor = Compressor(**options).fit(base, queries=base)
    held = compressor.history_["latents"][0]["recall"]
    assert held > Compressor(**options).fit(base).history_["latents"][0]["recall"]


def test_the_same_queries_give_the_same_weights() -> None:
    one, two = (
        Compressor(**SMALL).fit(curved(400), queries=asked(100, seed=1)).encode(curved(50))
        for _ in range(2)
    )
    np.testing.assert_array_equal(one, two)


@pytest.mark.parametrize(
    ("queries", "said"),
    [
        (np.ones((5, DIM + 1), np.float32), "sample queries"),
        (np.full((5, DIM), np.nan, np.float32), "sample queries"),
        (np.zeros((5, DIM), np.float32), "sample queries"),
    ],
)
def test_sample_queries_are_checked(queries: np.ndarray, said: str) -> None:
    with pytest.raises(InputError, match=said):
        Compressor(**SMALL).fit(curved(100), queries=queries)
