"""What the benchmarks search and ask: no query, and nothing unseen, is in what is trained on."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from unittest.mock import Mock

import numpy as np
import pyarrow as pa
import pytest

pytest.importorskip("torch")

from embedpress.errors import UsageError
from embedpress.vectors import Batch


def numbered(count: int) -> Any:
    """A data set whose vectors are their own numbers."""
    vectors = np.stack([np.arange(count), np.ones(count)], axis=1).astype(np.float32)
    batch = Batch(pa.array(range(count)), vectors, pa.table({}))
    return lambda folder: Mock(read=lambda **options: batch)


def rows(vectors: np.ndarray) -> set[int]:
    return set(vectors[:, 0].astype(int).tolist())


@pytest.mark.parametrize(
    ("name", "sizes"),
    [("wordnet", {"N_BASE": 50, "N_QUERIES": 10}), ("photos", {"N_BASE": 50})],
)
def test_base_unseen_and_queries_are_apart(
    name: str, sizes: dict[str, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    module = pytest.importorskip(name)
    for constant, value in sizes.items():
        monkeypatch.setattr(module, constant, value)
    monkeypatch.setattr(module, "embeddings_folder", lambda: Path())
    monkeypatch.setattr(module, "open_vectors", numbered(120))
    given = (50,) if name == "wordnet" else ()
    split = module.load_split(*given)
    parts = [rows(split.base), rows(split.unseen), rows(split.queries)]
    assert sum(map(len, parts)) == len(set().union(*parts))
    assert [len(part) for part in parts] == [50, 50, len(split.queries)]
    assert len(split.queries) in (10, 20)
    again = module.load_split(*given)
    np.testing.assert_array_equal(again.base, split.base)
    assert split.base[:, 0].tolist() != sorted(split.base[:, 0])


def test_a_smaller_base_asks_the_same_queries(monkeypatch: pytest.MonkeyPatch) -> None:
    import wordnet

    monkeypatch.setattr(wordnet, "N_BASE", 50)
    monkeypatch.setattr(wordnet, "N_QUERIES", 10)
    monkeypatch.setattr(wordnet, "embeddings_folder", lambda: Path())
    monkeypatch.setattr(wordnet, "open_vectors", numbered(120))
    whole, few = wordnet.load_split(50), wordnet.load_split(20)
    np.testing.assert_array_equal(few.queries, whole.queries)
    assert rows(few.base) < rows(whole.base)
    assert not rows(few.base) & rows(few.queries)
    # A larger one would hold the queries.
    with pytest.raises(UsageError, match="give at most 50"):
        wordnet.load_split(51)


def test_truths_are_those_of_brute_force() -> None:
    from split import Split

    rng = np.random.default_rng(0)
    base, unseen, queries = (rng.normal(size=(n, 8)).astype(np.float32) for n in (40, 30, 5))
    split = Split(base, unseen, queries)
    for name, vectors in (("seen", base), ("unseen", unseen)):
        cosines = (queries @ vectors.T) / np.linalg.norm(vectors, axis=1)
        np.testing.assert_array_equal(split.truths[name], np.argsort(-cosines, axis=1)[:, :10])


def test_classes_are_kept_from_training(monkeypatch: pytest.MonkeyPatch) -> None:
    import clusters
    import labelled

    fitted = []
    real = clusters.embedpress.Compressor

    class Watched(real):  # type: ignore[misc, valid-type]
        def fit(self, X: np.ndarray, y: Any = None, **options: Any) -> Any:
            fitted.append((X.shape, y, options))
            return super().fit(X, y, **options)

    monkeypatch.setattr(clusters.embedpress, "Compressor", Watched, raising=False)
    monkeypatch.setattr(clusters, "TRAINING_SECONDS", 1)
    monkeypatch.setattr(clusters, "N_COMPONENTS", 4)
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(3, 16))
    classes = rng.integers(0, 3, 300)
    x = (centres[classes] + 0.1 * rng.normal(size=(300, 16))).astype(np.float32)
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    row = clusters.measure(labelled.Labelled(x, [str(c) for c in classes]), 2, 0, 1)
    assert fitted == [((300, 16), None, {})]
    assert row["clusters"] == 3
    for form in ("embeddings", "latents", "pca"):
        assert row[form]["nmi"] == pytest.approx([1, 1])
        assert row[form]["purity"] == pytest.approx([1, 1])
        assert len(row[form]["seconds"]) == 2


def test_labelled_data_needs_its_folder(tmp_path: Path) -> None:
    import labelled

    with pytest.raises(UsageError, match="give --banking77 FOLDER"):
        labelled.load("banking77", None)
    with pytest.raises(UsageError, match="give --clothing FOLDER"):
        labelled.load("clothing", tmp_path / "none")


def test_perturbed_vectors_are_the_same_whatever_their_number(tmp_path: Path) -> None:
    import scale

    from embedpress.vectors import open_vectors

    rng = np.random.default_rng(0)
    x = rng.normal(size=(500, 8)).astype(np.float32)
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    near = np.argsort(-x @ x.T, axis=1)[:, 1 : scale.NEIGHBORS + 1]
    scale.write_vectors(tmp_path / "few", x, near, 700)
    scale.write_vectors(tmp_path / "more", x, near, 900)
    few, more = (open_vectors(tmp_path / name).read().vectors for name in ("few", "more"))
    assert (len(few), len(more)) == (700, 900)
    np.testing.assert_array_equal(few, more[:700])
    np.testing.assert_allclose(np.linalg.norm(more, axis=1), 1, rtol=1e-5)
    cosines = (few[:500] * x).sum(axis=1)
    assert 0.7 < cosines.min() <= cosines.max() < 1  # moved, and not far
    assert not np.array_equal(few[500:], few[:200])  # a second copy is another one
    assert scale.sizes_up_to(2_000_000) == [100_000, 300_000, 1_000_000, 2_000_000]
