from __future__ import annotations

import json

import numpy as np
import pyarrow.parquet as pq
import pytest
from samples import write_embeddings

from embedpress.analyze.cluster import agreement, cluster
from embedpress.analyze.cluster_folder import cluster_folder
from embedpress.errors import InputError, UsageError

WORDS = ("apple pear plum", "train track rail", "violin cello bow", "river lake sea")


def blobs(k=4, n=800, dim=12, seed=0, spread=4.0):
    rng = np.random.default_rng(seed)
    labels = np.sort(rng.integers(k, size=n))
    x = (rng.normal(size=(k, dim)) * spread)[labels] + rng.normal(size=(n, dim))
    return np.asarray(x, np.float32), labels


@pytest.fixture
def folder(tmp_path):
    x, labels = blobs()
    text = [f"the {WORDS[label].split()[i % 3]} that is {i}" for i, label in enumerate(labels)]
    return write_embeddings(
        tmp_path / "emb",
        x,
        ids=[f"r{i}" for i in range(len(x))],
        metadata={"text": text, "label": [f"c{label}" for label in labels]},
    )


def labels_of(out):
    table = pq.read_table(out / "labels.parquet")
    assert table["id"].to_pylist() == [f"r{i}" for i in range(table.num_rows)]
    return table["cluster"].to_numpy()


def test_a_folder_is_divided_as_the_array_is(folder, tmp_path):
    result = cluster_folder(folder, tmp_path / "out", n_clusters=4)
    x, classes = blobs()
    found = cluster(x, 4)
    np.testing.assert_array_equal(labels_of(tmp_path / "out"), found.labels)
    np.testing.assert_allclose(np.load(tmp_path / "out" / "centroids.npy"), found.centroids)
    assert [entry["size"] for entry in result["clusters"]] == found.sizes.tolist()
    assert [[int(one["id"][1:]) for one in entry["typical"]] for entry in result["clusters"]] == [
        rows.tolist() for rows in found.typical
    ]
    assert result["objective"] == pytest.approx(found.objective, rel=1e-4)
    assert result["agreement"] == pytest.approx(agreement(classes, found.labels))
    assert json.loads((tmp_path / "out" / "clusters.json").read_text()) == result
    for entry in result["clusters"]:
        own = WORDS[int(entry["most_frequent"][1:])].split()
        assert set(entry["words"]) <= set(own)
        assert len(entry["words"]) == 3
        assert entry["share"] == 1


@pytest.mark.parametrize("spread", [4.0, 0.7])
def test_more_than_memory_holds(tmp_path, spread):
    x, classes = blobs(n=6000, spread=spread)
    # Sorted by class, as files are, which is hard on what sees one batch after the other.
    source = write_embeddings(
        tmp_path / "emb",
        x,
        ids=[f"r{i}" for i in range(len(x))],
        metadata={"label": classes.tolist()},
        metric="l2",
    )
    whole = cluster_folder(source, tmp_path / "whole", n_clusters=4)
    small = cluster_folder(source, tmp_path / "small", n_clusters=4, memory_budget=3 * 48 * 300)
    assert small["objective"] < 1.02 * whole["objective"]
    assert small["agreement"]["nmi"] > whole["agreement"]["nmi"] - 0.02
    np.testing.assert_array_equal(
        np.bincount(labels_of(tmp_path / "small")), [entry["size"] for entry in small["clusters"]]
    )


def test_chosen_number_and_its_criterion_are_told(folder, tmp_path):
    result = cluster_folder(folder, tmp_path / "out")
    assert result["n_clusters"] == 4
    assert "silhouette" in result["criterion"]
    assert max(result["silhouettes"], key=result["silhouettes"].get) == 4


def test_by_density_noise_belongs_to_none(tmp_path):
    pytest.importorskip("sklearn")
    x, classes = blobs(n=400, spread=6)
    rng = np.random.default_rng(1)
    x = np.concatenate([x, rng.uniform(-14, 14, (40, x.shape[1])).astype(np.float32)])
    found = cluster(x, method="hdbscan", spherical=False)
    assert len(found.sizes) == 4
    assert agreement(classes, found.labels[:400])["ari"] > 0.95
    assert (found.labels[400:] == -1).mean() > 0.8
    assert found.sizes.sum() == (found.labels >= 0).sum()
    for number, rows in enumerate(found.typical):
        assert (found.labels[rows] == number).all()
    source = write_embeddings(
        tmp_path / "emb", x, ids=[f"r{i}" for i in range(len(x))], metric="l2"
    )
    result = cluster_folder(source, tmp_path / "out", method="hdbscan")
    np.testing.assert_array_equal(labels_of(tmp_path / "out"), found.labels)
    assert result["noise"] == (found.labels == -1).sum()


def test_by_density_others_go_with_the_sample(tmp_path, monkeypatch):
    pytest.importorskip("sklearn")
    from embedpress.analyze import cluster as module

    monkeypatch.setattr(module, "MOST_ROWS", 200)
    x, classes = blobs(n=900, spread=6)
    found = cluster(x, method="hdbscan", spherical=False)
    assert agreement(classes, found.labels)["ari"] > 0.9


def test_all_noise_is_no_cluster(tmp_path):
    pytest.importorskip("sklearn")
    x = np.random.default_rng(0).normal(size=(8, 3)).astype(np.float32)
    found = cluster(x, method="hdbscan")
    assert found.labels.tolist() == [-1] * 8
    assert found.centroids.shape == (0, 3)
    np.save(tmp_path / "x.npy", x)
    result = cluster_folder(tmp_path / "x.npy", tmp_path / "out", method="hdbscan")
    assert (result["n_clusters"], result["noise"], result["clusters"]) == (0, 8, [])


def test_contact_sheets_show_the_typical_photos(tmp_path):
    from PIL import Image

    x, classes = blobs(k=2, n=60, spread=8)
    colours = ("#ff0000", "#0000ff")
    (tmp_path / "photos").mkdir()
    names = [f"p{i}.png" for i in range(len(x))]
    for name, label in zip(names, classes, strict=True):
        Image.new("RGB", (300, 150), colours[label]).save(tmp_path / "photos" / name)
    (tmp_path / "photos" / names[3]).write_bytes(b"no photo")
    source = write_embeddings(
        tmp_path / "emb", x, metadata={"path": names, "label": [str(c) for c in classes]}
    )
    result = cluster_folder(source, tmp_path / "out", n_clusters=2, images=tmp_path / "photos")
    assert len(result["sheets"]) == 1
    sheet = np.asarray(Image.open(result["sheets"][0]).convert("RGB")).astype(int)
    assert sheet.shape[0] == 6 + 2 * (24 + 128 + 6)
    # A row a cluster, each of one colour: ten photos of 128 x 64 pixels.
    upper, lower = sheet[:160], sheet[160:]
    for half, entry in zip((upper, lower), result["clusters"], strict=True):
        wanted = np.array([255, 0, 0] if entry["most_frequent"] == "0" else [0, 0, 255])
        same = (np.abs(half - wanted).max(axis=2) < 4).sum()
        assert same >= 9 * 128 * 64
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="none of the photos"):
        cluster_folder(source, tmp_path / "out", n_clusters=2, images=tmp_path / "empty")
    outside = write_embeddings(tmp_path / "bad", x[:2], metadata={"path": ["../x.png", "a"]})
    with pytest.raises(InputError, match="leads out"):
        cluster_folder(outside, tmp_path / "out2", n_clusters=1, images=tmp_path / "photos")


def test_bad_requests(folder, tmp_path):
    for options, said in (
        ({"method": "ward"}, "ward"),
        ({"method": "hdbscan", "n_clusters": 3}, "leave n_clusters out"),
        ({"min_cluster_size": 1}, "min_cluster_size"),
        ({"n_clusters": 801}, "1 to 800"),
        ({"labels": "colour"}, "colour"),
        ({"images": tmp_path}, "path"),
        ({"memory_budget": "10"}, "budget"),
        ({"n_clusters": 9, "memory_budget": 3 * 48 * 5}, "budget holds 5"),
    ):
        with pytest.raises(UsageError, match=said):
            cluster_folder(folder, tmp_path / "out", **options)
    np.save(tmp_path / "file.npy", np.ones((3, 2), np.float32))
    with pytest.raises(UsageError, match="is a file"):
        cluster_folder(folder, tmp_path / "file.npy")
