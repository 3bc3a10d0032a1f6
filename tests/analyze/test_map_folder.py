from __future__ import annotations

import numpy as np
import pyarrow.parquet as pq
import pytest
from samples import write_embeddings

from embedpress.analyze import map_folder as module
from embedpress.analyze.map_folder import map_folder
from embedpress.analyze.project import nearest_others, project
from embedpress.errors import InputError, UsageError

pytest.importorskip("matplotlib")
WORDS = ("apple pear", "train track", "violin cello")


@pytest.fixture
def folder(tmp_path):
    rng = np.random.default_rng(0)
    labels = rng.integers(3, size=240)
    x = rng.normal(size=(3, 10))[labels] * 5 + rng.normal(size=(240, 10))
    text = [f"the {WORDS[label].split()[i % 2]} {i}" for i, label in enumerate(labels)]
    return write_embeddings(
        tmp_path / "emb", x.astype(np.float32), metadata={"text": text, "x": [1.0] * 240}
    )


def test_the_table_is_what_a_viewer_reads(folder, tmp_path):
    result = map_folder(folder, tmp_path / "out", method="graph", n_clusters=3)
    table = pq.read_table(tmp_path / "out" / "map.parquet")
    assert result["count"] == table.num_rows == 240
    rows = table["neighbors"].to_pylist()
    assert {len(row["ids"]) for row in rows} == {10}
    assert all(row["distances"] == sorted(row["distances"]) for row in rows)
    assert all(number not in row["ids"] for number, row in enumerate(rows))
    # The map's own x stands over metadata of that name.
    assert set(np.unique(table["x"].to_numpy())) != {1.0}
    groups = set(table["group"].to_pylist())
    assert len(groups) == 3
    for name in groups:
        assert sorted(name.split(", ")) in [sorted(words.split()) for words in WORDS]


def test_principal_components_are_always_there(folder, tmp_path):
    map_folder(folder, tmp_path / "graph", method="graph")
    map_folder(folder, tmp_path / "pca", method="pca")
    graph, pca = (pq.read_table(tmp_path / name / "map.parquet") for name in ("graph", "pca"))
    for axis in ("x", "y"):
        np.testing.assert_array_equal(pca[axis], pca[f"pca_{axis}"])
        np.testing.assert_array_equal(pca[axis], graph[f"pca_{axis}"])
    assert not np.array_equal(graph["x"], graph["pca_x"])


def test_a_sample_of_too_many(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "MOST_ROWS", 100)
    assert map_folder(folder, tmp_path / "out", method="pca")["count"] == 100


def test_umap_keeps_clouds_together():
    pytest.importorskip("umap", reason="umap-learn is not installed")
    rng = np.random.default_rng(0)
    labels = rng.integers(4, size=300)
    x = (rng.normal(size=(4, 10)) * 6)[labels] + rng.normal(size=(300, 10))
    got = project(x.astype(np.float32), method="umap", metric="l2")
    assert got.method == "UMAP"
    rows, _ = nearest_others(got.points, 5, metric="l2")
    assert (labels[rows] == labels[:, None]).mean() > 0.95


def test_bad_requests(folder, tmp_path):
    with pytest.raises(UsageError, match="colour"):
        map_folder(folder, tmp_path / "out", labels="colour")
    codes = write_embeddings(tmp_path / "one", np.ones((1, 4), np.float32))
    assert map_folder(codes, tmp_path / "out", method="pca")["count"] == 1
    np.save(tmp_path / "codes.npy", np.ones((3, 2), np.uint8))
    with pytest.raises(InputError):
        map_folder(tmp_path / "codes.npy", tmp_path / "out")
