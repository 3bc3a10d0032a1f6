from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from index_truth import assert_best
from samples import curved, write_embeddings

from embedpress.errors import FormatError, InputError, MismatchError, UsageError
from embedpress.index import rerank
from embedpress.index.build import build_index
from embedpress.index.rerank import RerankTier, stored_form
from embedpress.index.search import Hits, open_index
from embedpress.index.unfinished import Unfinished
from embedpress.onnx.compress import compress

FILES = ("rerank.npy", "rerank_scales.npy")
OPTIONS = {"cosine": {}, "ip": {"groups": 2, "metric": "ip"}, "l2": {"metric": "l2"}}


def exact_scores(base: np.ndarray, queries: np.ndarray, metric: str) -> np.ndarray:
    base, queries = base.astype(np.float64), queries.astype(np.float64)
    if metric == "l2":
        return -np.square(queries[:, None] - base[None]).sum(axis=2)
    if metric == "cosine":
        base = base / np.linalg.norm(base, axis=1, keepdims=True)
        queries = queries / np.linalg.norm(queries, axis=1, keepdims=True)
    return queries @ base.T


def write_tier(folder: Path, form: str, *blocks: np.ndarray) -> None:
    rows, dim = sum(map(len, blocks)), blocks[0].shape[1]
    paths = [folder / name for name in FILES]
    with Unfinished(folder, {}).growing("rerank", *paths) as growth:
        rerank.write_tier(
            growth, form, rows, dim, lambda done: (stored_form(block, form) for block in blocks)
        )


def open_tier(folder: Path, form: str, rows: int, dim: int) -> RerankTier:
    return RerankTier(*(folder / name for name in FILES), form, rows, dim)


def recall(hits: Hits, scores: np.ndarray) -> float:
    k = hits.rows.shape[1]
    truth = np.argsort(-scores, axis=1)[:, :k]
    pairs = zip(hits.rows, truth, strict=True)
    return float(np.mean([len(set(a) & set(b)) / k for a, b in pairs]))


@pytest.mark.parametrize("metric", OPTIONS)
@pytest.mark.parametrize("factory", ["Flat", "IVF12"])
def test_reordering_everything_by_float32_is_an_exact_search(
    built: Callable[..., Path],
    saved: Callable[..., Path],
    base: np.ndarray,
    queries: np.ndarray,
    metric: str,
    factory: str,
) -> None:
    options = OPTIONS[metric]
    folder = built("codes", factory, "float32", **options)
    index = open_index(folder, saved(**options), num_threads=1)
    hits = index.search(queries, 10, oversample=50, nprobe=12)
    assert_best(hits, exact_scores(base, queries, metric), 10, metric)


@pytest.mark.parametrize(("form", "error"), [("float16", 2e-3), ("int8", 2e-2)])
@pytest.mark.parametrize("metric", OPTIONS)
def test_coarser_forms_are_nearly_exact(
    built: Callable[..., Path],
    saved: Callable[..., Path],
    base: np.ndarray,
    queries: np.ndarray,
    metric: str,
    form: str,
    error: float,
) -> None:
    options = OPTIONS[metric]
    index = open_index(built("codes", "Flat", form, **options), saved(**options), num_threads=1)
    hits = index.search(queries, 10, oversample=50)
    truth = exact_scores(base, queries, metric)
    scores = -hits.scores if metric == "l2" else hits.scores
    expected = np.take_along_axis(truth, hits.rows, axis=1)
    np.testing.assert_allclose(scores, expected, atol=error * np.abs(truth).max())
    assert recall(hits, truth) > (0.99 if form == "float16" else 0.95)


def test_more_candidates_find_more(
    built: Callable[..., Path], saved: Callable[..., Path], base: np.ndarray, queries: np.ndarray
) -> None:
    index = open_index(built("latents", "Flat", "float16"), saved(), num_threads=1)
    truth = exact_scores(base, queries, "cosine")
    found = [recall(index.search(queries, 10, oversample=n), truth) for n in (1, 3, 10, 50)]
    assert found == sorted(found)
    assert found[0] < found[2]
    assert found[3] > 0.99
    # The first `oversample * k` of the scan, and no others, are reordered.
    scanned = index.search(queries, 30, rerank=False)
    reordered = index.search(queries, 10, oversample=3)
    for candidates, rows, scores in zip(scanned.rows, reordered.rows, truth, strict=True):
        best = candidates[np.argsort(-scores[candidates], kind="stable")][:10]
        assert set(rows.tolist()) == set(best.tolist())


def test_with_rerank_off_scores_are_those_of_the_scan(
    built: Callable[..., Path], saved: Callable[..., Path], queries: np.ndarray
) -> None:
    with_tier, without = (
        open_index(built("codes", "Flat", "int8"), saved()),
        open_index(built(), saved()),
    )
    off, plain = with_tier.search(queries, 9, rerank=False), without.search(queries, 9)
    assert np.array_equal(off.rows, plain.rows)
    assert np.array_equal(off.scores, plain.scores)


@pytest.mark.parametrize("metric", OPTIONS)
def test_fewer_candidates_than_hits(
    built: Callable[..., Path],
    saved: Callable[..., Path],
    base: np.ndarray,
    queries: np.ndarray,
    metric: str,
) -> None:
    options = OPTIONS[metric]
    for factory in ("Flat", "IVF12"):
        folder = built("codes", factory, "float32", **options)
        index = open_index(folder, saved(**options), num_threads=1)
        truth = exact_scores(base, queries, metric)
        truth[:, 6:] = -np.inf
        hits = index.search(queries, 10, filter="score > -6", nprobe=12)
        assert_best(hits, truth, 10, metric)
        assert (hits.rows[:, 6:] == -1).all()
        none = index.search(queries, 3, filter="score > 6")
        assert (none.rows == -1).all()
        assert_best(
            index.search(queries, 700, nprobe=12), exact_scores(base, queries, metric), 700, metric
        )


@pytest.mark.parametrize("form", ["int8", "float16", "float32"])
def test_cosine_knows_no_lengths(saved: Callable[..., Path], tmp_path: Path, form: str) -> None:
    x = curved(60) * np.float32(10) ** np.linspace(-9, 15, 60, dtype=np.float32)[:, None]
    write_embeddings(tmp_path / "x", x)
    compress(tmp_path / "x", saved(), tmp_path / "codes")
    build_index(
        tmp_path / "codes", saved(), tmp_path / "index", rerank=form, vectors=tmp_path / "x"
    )
    hits = open_index(tmp_path / "index", saved()).search(x, 1, oversample=60)
    assert np.array_equal(hits.rows[:, 0], np.arange(60))
    np.testing.assert_allclose(hits.scores, 1, atol=5e-3)


def test_numbers_too_large_for_float16(saved: Callable[..., Path], tmp_path: Path) -> None:
    options = OPTIONS["l2"]
    x = curved(60) * np.float32(1e5)
    write_embeddings(tmp_path / "x", x, metric="l2")
    compress(tmp_path / "x", saved(**options), tmp_path / "codes")

    def build(form: str) -> None:
        out, vectors = tmp_path / form, tmp_path / "x"
        build_index(tmp_path / "codes", saved(**options), out, rerank=form, vectors=vectors)

    with pytest.raises(InputError, match="too large for float16"):
        build("float16")
    assert not list((tmp_path / "float16").glob("rerank*"))
    for form in ("int8", "float32"):
        build(form)
        hits = open_index(tmp_path / form, saved(**options)).search(x, 1, oversample=60)
        assert np.array_equal(hits.rows[:, 0], np.arange(60))


def test_int8_is_within_half_a_step_of_each_row(tmp_path: Path) -> None:
    x = np.concatenate([curved(50), 1e6 * curved(3), np.zeros((1, 32), np.float32)])
    write_tier(tmp_path, "int8", x[:30], x[30:])
    tier = open_tier(tmp_path, "int8", 54, 32)
    order = np.array([53, 0, 7, 7, 52])
    rows = tier.rows(order)
    assert rows.dtype == np.float32
    step = np.abs(x[order]).max(axis=1, keepdims=True) / 127
    assert (np.abs(rows - x[order]) <= 0.501 * step).all()
    assert not rows[0].any()


def test_rows_stay_on_disk_until_they_are_hit(tmp_path: Path) -> None:
    write_tier(tmp_path, "float16", curved(40))
    tier = open_tier(tmp_path, "float16", 40, 32)
    assert isinstance(tier._stored, np.memmap)
    assert (tmp_path / "rerank.npy").stat().st_size == pytest.approx(40 * 32 * 2, abs=200)
    assert np.array_equal(np.load(tmp_path / "rerank.npy"), curved(40).astype(np.float16))


@pytest.mark.parametrize(
    ("form", "count", "dim"), [("float16", 41, 32), ("float16", 40, 16), ("float32", 40, 32)]
)
def test_a_tier_of_another_index(tmp_path: Path, form: str, count: int, dim: int) -> None:
    write_tier(tmp_path, "float16", curved(40))
    with pytest.raises(FormatError, match="does not fit the index"):
        open_tier(tmp_path, form, count, dim)


def test_arrays_that_are_no_tier(tmp_path: Path) -> None:
    write_tier(tmp_path, "float32", curved(4, dim=3))
    objects = np.empty((4, 3), object)
    for array in (objects, np.asfortranarray(curved(4, dim=3)), curved(4, dim=3).astype(">f4")):
        np.save(tmp_path / "rerank.npy", array, allow_pickle=True)
        with pytest.raises((FormatError, InputError)):
            open_tier(tmp_path, "float32", 4, 3)


def test_embeddings_that_are_not_those_of_the_codes(
    saved: Callable[..., Path],
    compressed: Callable[..., Path],
    embedded: Callable[..., Path],
    base: np.ndarray,
    tmp_path: Path,
) -> None:
    def build(vectors: Path | None, form: str = "float16") -> None:
        build_index(compressed(), saved(), tmp_path / "index", rerank=form, vectors=vectors)

    with pytest.raises(UsageError, match="rerank='float64' must be one of"):
        build(embedded(), "float64")
    with pytest.raises(UsageError, match="needs the embeddings"):
        build(None)
    np.save(tmp_path / "few.npy", base[:-1])
    with pytest.raises(MismatchError, match=r"has 499 rows, .* has 500"):
        build(tmp_path / "few.npy")
    np.save(tmp_path / "narrow.npy", base[:, :31])
    with pytest.raises(MismatchError, match="31 dimensions"):
        build(tmp_path / "narrow.npy")
    with pytest.raises(InputError, match="holds codes"):
        build(compressed())
    assert not (tmp_path / "index").exists()
    np.save(tmp_path / "numbered.npy", base)
    with pytest.raises(MismatchError, match="has other ids than"):
        build(tmp_path / "numbered.npy")
    ids = [f"id {i}" for i in range(500)]
    ids[400], ids[401] = ids[401], ids[400]
    write_embeddings(tmp_path / "swapped", base, ids=ids)
    with pytest.raises(MismatchError, match="or another order"):
        build(tmp_path / "swapped")
    with pytest.raises(FormatError, match="is not an index"):
        open_index(tmp_path / "index", saved())
