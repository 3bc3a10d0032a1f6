from __future__ import annotations

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from samples import write_embeddings

from embedpress.analyze import duplicates as module
from embedpress.analyze.duplicates import Forest, find_duplicates
from embedpress.analyze.duplicates_folder import duplicates_folder
from embedpress.errors import InputError, MismatchError, UsageError


def rows_with_copies(n=300, dim=8, seed=0, noise=0.05):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, dim))
    copied = rng.integers(n, size=n // 3)
    x = np.concatenate([x, x[copied] + noise * rng.normal(size=(len(copied), dim))])
    return np.asarray(x[rng.permutation(len(x))], np.float32)


def by_brute_force(x, threshold, metric):
    """Sets of rows, by a search of the graph of all pairs in double precision."""
    a = x.astype(np.float64)
    if metric == "l2":
        near = np.linalg.norm(a[:, None] - a[None], axis=2) <= threshold
    else:
        a = a / np.linalg.norm(a, axis=1, keepdims=True)
        near = a @ a.T >= threshold - 1e-12
    pairs = int((near.sum() - len(x)) // 2)
    groups, seen = set(), set()
    for row in range(len(x)):
        if row in seen:
            continue
        group, edge = {row}, [row]
        while edge:
            for other in np.flatnonzero(near[edge.pop()]):
                if int(other) not in group:
                    group.add(int(other))
                    edge.append(int(other))
        seen |= group
        if len(group) > 1:
            groups.add(frozenset(group))
    return groups, pairs


def sets_of(groups):
    return {frozenset(np.flatnonzero(groups == g).tolist()) for g in range(groups.max() + 1)}


@pytest.mark.parametrize(
    ("metric", "threshold"),
    [("cosine", 0.99), ("cosine", 0.9), ("ip", 0.7), ("l2", 0.3), ("l2", 1.2), ("cosine", -1.0)],
)
@pytest.mark.parametrize("rows", [7, 64, 8192])
def test_groups_are_those_of_brute_force(metric, threshold, rows, monkeypatch):
    monkeypatch.setattr(module, "QUERY_ROWS", rows)
    monkeypatch.setattr(module, "BASE_ROWS", rows + 3)
    x = rows_with_copies()
    found = find_duplicates(x, threshold, metric=metric)
    groups, pairs = by_brute_force(x, threshold, metric)
    assert sets_of(found.groups) == groups
    assert found.n_pairs == pairs
    assert (np.diff(found.sizes) <= 0).all()
    assert np.bincount(found.groups[found.groups >= 0]).tolist() == found.sizes.tolist()


def test_the_threshold_itself_is_near_enough():
    same = np.repeat(np.random.default_rng(0).normal(size=(5, 300)), 2, axis=0).astype(np.float32)
    same[1::2] *= 3
    assert find_duplicates(same, 1.0).sizes.tolist() == [2] * 5
    assert find_duplicates(same / 3, 0.0, metric="l2").sizes.tolist() == []
    assert find_duplicates(np.repeat(same, 2, axis=0), 0.0, metric="l2").sizes.tolist() == [2] * 10
    # Far from the origin, where squared distances cancel, one is still told from none.
    far = np.array([[1e4, 0], [1e4, 1], [1e4, 2.5]], np.float32)
    assert find_duplicates(far, 1.0, metric="l2").groups.tolist() == [0, 0, -1]


def test_chains_hold_together():
    turns = np.radians([0, 10, 20, 90])
    x = np.column_stack([np.cos(turns), np.sin(turns)]).astype(np.float32)
    assert find_duplicates(x, np.cos(np.radians(11))).groups.tolist() == [0, 0, 0, -1]


@given(
    st.lists(st.lists(st.tuples(st.integers(0, 19), st.integers(0, 19)), max_size=12), max_size=4)
)
@settings(max_examples=80, deadline=None)
def test_a_forest_joins_what_pairs_connect(batches):
    forest = Forest(20)
    sets = [{i} for i in range(20)]
    for pairs in batches:
        left, right = (np.array([p[i] for p in pairs], np.int64) for i in (0, 1))
        forest.join(left, right)
        for a, b in pairs:
            joined = next(s for s in sets if a in s) | next(s for s in sets if b in s)
            sets = [s for s in sets if not s & joined] + [joined]
    groups, sizes = forest.groups()
    wanted = {frozenset(s) for s in sets if len(s) > 1}
    assert (sets_of(groups) if len(sizes) else set()) == wanted


@pytest.mark.parametrize("budget", ["2G", 2 * 4 * 8 * 37])
def test_a_folder_within_any_budget(tmp_path, budget):
    x = rows_with_copies()
    names = [f"r{i}" for i in range(len(x))]
    source = write_embeddings(
        tmp_path / "emb", x, ids=names, metadata={"text": [f"text {i}" for i in range(len(x))]}
    )
    result = duplicates_folder(source, tmp_path / "out", threshold=0.99, memory_budget=budget)
    groups, pairs = by_brute_force(x, 0.99, "cosine")
    table = pq.read_table(tmp_path / "out" / "duplicates.parquet").to_pydict()
    found = {
        frozenset(int(i[1:]) for i, g in zip(table["id"], table["group"], strict=True) if g == n)
        for n in range(result["n_groups"])
    }
    assert found == groups
    assert result["n_pairs"] == pairs
    assert result["n_redundant"] == sum(map(len, groups)) - len(groups)
    kept = [int(i[1:]) for i, keep in zip(table["id"], table["keep"], strict=True) if keep]
    assert sorted(kept) == sorted(min(group) for group in groups)
    first = result["groups"][0]["members"][0]
    assert first["text"] == f"text {first['id'][1:]}"


def test_codes_are_decoded_by_their_compressor(tmp_path, saved, embeddings):
    from embedpress.onnx.compress import compress
    from embedpress.onnx.compressor import load

    np.save(tmp_path / "x.npy", embeddings[:200])
    model = saved()
    compress(tmp_path / "x.npy", model, tmp_path / "codes")
    result = duplicates_folder(tmp_path / "codes", tmp_path / "out", threshold=0.999, model=model)
    compressor = load(model)
    restored = compressor.decode(compressor.encode(embeddings[:200]))
    assert result["n_groups"] == len(by_brute_force(restored, 0.999, "cosine")[0])
    with pytest.raises(UsageError, match="--model"):
        duplicates_folder(tmp_path / "codes", tmp_path / "out")
    with pytest.raises(UsageError, match="leave --model out"):
        duplicates_folder(tmp_path / "x.npy", tmp_path / "out", model=model)
    with pytest.raises(MismatchError, match="not compressed by"):
        duplicates_folder(tmp_path / "codes", tmp_path / "out", model=saved(seed=3))


def test_bad_requests(tmp_path):
    x = rows_with_copies(30)
    for threshold in (1.01, -2, float("nan")):
        with pytest.raises(UsageError, match="cosine of -1 to 1"):
            find_duplicates(x, threshold)
    with pytest.raises(UsageError, match="give one for the metric l2"):
        find_duplicates(x, metric="l2")
    with pytest.raises(UsageError, match="distance of 0 or more"):
        find_duplicates(x, -1, metric="l2")
    x[4] = 0
    with pytest.raises(InputError, match="row 4"):
        find_duplicates(x)
    assert find_duplicates(rows_with_copies(30)[:1]).groups.tolist() == [-1]
    np.save(tmp_path / "x.npy", rows_with_copies(30))
    with pytest.raises(UsageError, match="budget"):
        duplicates_folder(tmp_path / "x.npy", tmp_path / "out", memory_budget=10)
