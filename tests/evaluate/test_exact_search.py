from __future__ import annotations

import faiss
import numpy as np
import pytest

from embedpress.errors import InputError, UsageError
from embedpress.evaluate import exact
from embedpress.evaluate.exact import nearest_in_blocks, true_neighbors, unit_rows


def brute_force(queries, base, k, metric):
    q, b = queries.astype(np.float64), base.astype(np.float64)
    if metric == "cosine":
        q = q / np.linalg.norm(q, axis=1, keepdims=True)
        b = b / np.linalg.norm(b, axis=1, keepdims=True)
    scores = -((q[:, None] - b[None]) ** 2).sum(axis=2) if metric == "l2" else q @ b.T
    return np.argsort(-scores, axis=1, kind="stable")[:, :k]


@pytest.mark.parametrize("metric", ["cosine", "ip", "l2"])
def test_neighbors_are_those_of_brute_force(base, queries, metric):
    found = true_neighbors(queries, base, 7, metric=metric)
    assert found.dtype == np.int64
    np.testing.assert_array_equal(found, brute_force(queries, base, 7, metric))


@pytest.mark.parametrize("metric", ["cosine", "ip", "l2"])
@pytest.mark.parametrize("rows", [1, 5, 64, 1499])
def test_block_size_changes_nothing(base, queries, metric, rows, monkeypatch):
    whole = true_neighbors(queries[:9], base[:300], 6, metric=metric)
    monkeypatch.setattr(exact, "BLOCK_ROWS", rows)
    np.testing.assert_array_equal(true_neighbors(queries[:9], base[:300], 6, metric=metric), whole)


def test_cosine_ignores_lengths(base, queries):
    lengths = np.random.default_rng(0).uniform(0.1, 9, (len(base), 1)).astype(np.float32)
    np.testing.assert_array_equal(
        true_neighbors(queries, base * lengths, 5, metric="cosine"),
        true_neighbors(queries * 3, base, 5, metric="cosine"),
    )


def test_equal_scores_are_listed_by_row():
    base = np.tile(np.eye(3, dtype=np.float32), (4, 1))
    found = true_neighbors(np.eye(3, dtype=np.float32), base, 4, metric="ip")
    np.testing.assert_array_equal(found, [[0, 3, 6, 9], [1, 4, 7, 10], [2, 5, 8, 11]])
    # A tie for the last place too.
    np.testing.assert_array_equal(
        true_neighbors(np.eye(3, dtype=np.float32), base, 2, metric="l2"), [[0, 3], [1, 4], [2, 5]]
    )


def test_fewer_rows_than_k_are_filled_with_minus_one():
    blocks = [np.eye(2, dtype=np.float32)[:1], np.eye(2, dtype=np.float32)[1:]]
    ids, scores = nearest_in_blocks(np.array([[2, 1]], np.float32), blocks, 4)
    np.testing.assert_array_equal(ids, [[0, 1, -1, -1]])
    np.testing.assert_array_equal(scores, [[2, 1, -np.inf, -np.inf]])
    ids, scores = nearest_in_blocks(np.array([[2, 1]], np.float32), blocks, 3, l2=True)
    np.testing.assert_array_equal(ids, [[0, 1, -1]])
    np.testing.assert_array_equal(scores, [[2, 4, np.inf]])


def test_threads_are_put_back(base, queries):
    before = faiss.omp_get_max_threads()
    one = true_neighbors(queries, base, 3, metric="l2", num_threads=1)
    assert faiss.omp_get_max_threads() == before
    np.testing.assert_array_equal(one, true_neighbors(queries, base, 3, metric="l2"))
    with pytest.raises(UsageError, match="num_threads"):
        true_neighbors(queries, base, 3, metric="l2", num_threads=0)


def test_a_memory_mapped_base_is_searched(base, queries, tmp_path):
    np.save(tmp_path / "base.npy", base)
    mapped = np.load(tmp_path / "base.npy", mmap_mode="r")
    np.testing.assert_array_equal(
        true_neighbors(queries, mapped, 3, metric="ip"),
        true_neighbors(queries, base, 3, metric="ip"),
    )


def test_bad_input_is_refused_by_name(base, queries):
    with pytest.raises(UsageError, match="k is 1501"):
        true_neighbors(queries, base, 1501, metric="ip")
    with pytest.raises(UsageError, match="k is 0"):
        true_neighbors(queries, base, 0, metric="ip")
    with pytest.raises(UsageError, match="hamming"):
        true_neighbors(queries, base, 3, metric="hamming")
    with pytest.raises(InputError, match="32 were expected"):
        true_neighbors(queries, base[:, :5], 3, metric="ip")
    broken = base.copy()
    broken[1234, 3] = np.nan
    with pytest.raises(InputError, match="1234"):
        true_neighbors(queries, broken, 3, metric="l2")
    broken[1234] = 0
    with pytest.raises(InputError, match="1234"):
        true_neighbors(queries, broken, 3, metric="cosine")


def test_the_row_of_a_later_block_is_named(base, queries, monkeypatch):
    monkeypatch.setattr(exact, "BLOCK_ROWS", 100)
    broken = base.copy()
    broken[777] = np.inf
    with pytest.raises(InputError, match="row 777"):
        true_neighbors(queries, broken, 3, metric="ip")


def test_unit_rows():
    x = np.array([[3, 4], [0, 0], [-2e-20, 0], [1e30, 0]], np.float32)
    np.testing.assert_allclose(unit_rows(x), [[0.6, 0.8], [0, 0], [-1, 0], [1, 0]], rtol=1e-6)
