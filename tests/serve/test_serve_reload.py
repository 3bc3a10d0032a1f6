from __future__ import annotations

import json
import shutil
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from live import live, post, wait_until

from embedpress.errors import FormatError, MismatchError
from embedpress.index.build import build_index
from embedpress.onnx.compress import compress
from embedpress.serve.settings import Settings


@pytest.fixture(scope="module")
def half(embedded: Path, model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Codes of only the first half of the texts."""
    from samples import write_embeddings

    from embedpress.vectors import open_vectors

    work = tmp_path_factory.mktemp("half")
    everything = open_vectors(embedded).read()
    kept = everything.metadata.slice(0, 150).to_pydict()
    write_embeddings(
        work / "embeddings",
        everything.vectors[:150],
        ids=everything.ids.to_pylist()[:150],
        metadata=kept,
    )
    compress(work / "embeddings", model, work / "codes", num_threads=1)
    return work / "codes"


def test_a_new_index_is_taken_without_a_dropped_request(
    settings: Callable[..., Settings],
    build: Callable[..., Path],
    half: Path,
    model: Path,
    tmp_path: Path,
) -> None:
    folder = build(tmp_path / "index")
    with live(settings(index=str(folder), reload_interval=0.05)) as running:
        statuses, stop = [], threading.Event()

        def ask() -> None:
            with running.client() as http:
                while not stop.is_set():
                    statuses.append(post(http, "/v1/search", {"text": "cats"}).status_code)

        threads = [threading.Thread(target=ask) for _ in range(4)]
        for thread in threads:
            thread.start()
        with running.client() as http:

            def count() -> int:
                return int(http.get("/info").json()["index"]["count"])

            assert count() == 300
            for codes, expected in ((half, 150), (None, 300), (half, 150)):
                if codes is None:
                    build(folder)
                else:
                    build_index(codes, model, folder, num_threads=1)
                wait_until(lambda expected=expected: count() == expected)
                assert len(post(http, "/v1/search", {"text": "a", "k": 400}).json()["hits"][0]) == (
                    expected
                )
            text = http.get("/metrics").text
            assert "embedpress_index_vectors 150.0" in text
        stop.set()
        for thread in threads:
            thread.join()
    assert len(statuses) > 20
    assert set(statuses) == {200}


def touch_manifest(folder: Path) -> None:
    file = folder / "manifest.json"
    file.write_text(file.read_text() + " ")


def damage_manifest(folder: Path) -> None:
    (folder / "manifest.json").unlink()


def damage_vectors(folder: Path) -> None:
    raw = bytearray((folder / "index.faiss").read_bytes())
    raw[len(raw) // 2] ^= 255
    (folder / "index.faiss").write_bytes(raw)
    touch_manifest(folder)


def damage_ids(folder: Path) -> None:
    (folder / "ids.parquet").write_bytes((folder / "ids.parquet").read_bytes()[:-50])
    touch_manifest(folder)


def another_compressor(folder: Path) -> None:
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["compressor"] = "0" * 64
    (folder / "manifest.json").write_text(json.dumps(manifest))


@pytest.mark.parametrize(
    "damage", [damage_manifest, damage_vectors, damage_ids, another_compressor, shutil.rmtree]
)
def test_half_an_index_is_never_taken(
    settings: Callable[..., Settings],
    index: Path,
    tmp_path: Path,
    damage: Callable[[Path], None],
) -> None:
    folder = tmp_path / "index"
    shutil.copytree(index, folder)
    with live(settings(index=str(folder), reload_interval=0.05)) as running:
        watcher = running.app.state.watcher
        before = watcher.service.opened
        damage(folder)
        wait_until(lambda: watcher.failure is not None)
        with running.client() as http:
            assert len(post(http, "/v1/search", {"text": "cats"}).json()["hits"][0]) == 10
            assert http.get("/ready").status_code == 200
            assert 'index_loads_total{result="failed"}' in http.get("/metrics").text
            assert watcher.service.opened is before
            shutil.rmtree(folder, ignore_errors=True)
            shutil.copytree(index, folder)
            touch_manifest(folder)
            wait_until(lambda: watcher.failure is None and watcher.service.opened is not before)
            assert len(post(http, "/v1/search", {"text": "cats"}).json()["hits"][0]) == 10


def test_without_an_index_it_is_not_ready_until_there_is_one(
    settings: Callable[..., Settings], index: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "index"
    options = settings(index=str(folder), reload_interval=0.05)
    with live(options) as running, running.client() as http:
        answer = http.get("/ready")
        assert (answer.status_code, http.get("/health").status_code) == (503, 200)
        assert "no index folder" in answer.json()["reason"]
        refused = post(http, "/v1/search", {"text": "cats"})
        assert (refused.status_code, refused.headers["Retry-After"]) == (503, "1")
        shutil.copytree(index, folder)
        wait_until(lambda: http.get("/ready").status_code == 200)
        assert post(http, "/v1/search", {"text": "cats"}).status_code == 200


def test_the_first_failure_can_be_the_end(
    settings: Callable[..., Settings], index: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "index"
    shutil.copytree(index, folder)
    damage_vectors(folder)
    failures: list[Exception] = []
    with live(settings(index=str(folder)), on_failure=failures.append) as running:
        wait_until(lambda: failures)
        with running.client() as http:
            assert http.get("/ready").status_code == 503
    assert isinstance(failures[0], FormatError)


def test_canaries_that_differ_keep_it_from_being_ready(
    settings: Callable[..., Settings], monkeypatch: pytest.MonkeyPatch
) -> None:
    from embedpress.onnx.runtime import TextEncoder

    def differ(self: TextEncoder) -> int:
        raise MismatchError("the canary inputs give other codes here")

    monkeypatch.setattr(TextEncoder, "check_canaries", differ)
    with live(settings()) as running, running.client() as http:
        answer = http.get("/ready")
        assert answer.status_code == 503
        assert answer.json()["reason"] == "the canary inputs give other codes here"


def test_a_map_of_other_ids_is_refused(settings: Callable[..., Settings], tmp_path: Path) -> None:
    from embedpress.analyze.map_folder import map_folder

    np.save(tmp_path / "x.npy", np.random.default_rng(0).normal(size=(30, 4)).astype(np.float32))
    map_folder(tmp_path / "x.npy", tmp_path / "map", method="pca", num_threads=1)
    with live(settings(map=str(tmp_path / "map"))) as running, running.client() as http:
        assert "other ids" in http.get("/ready").json()["reason"]
