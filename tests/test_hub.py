from __future__ import annotations

import json
import os
import pickle
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from stand_in_hub import TOKEN, Hub, Repository, stand_in_hub

import embedpress
from embedpress.autoencoder.estimator import Compressor
from embedpress.errors import FormatError, StorageError, UsageError
from embedpress.extract import torchvision_trap
from embedpress.hub import FETCHED, PUSHED, compressor_folder, model_name, push
from embedpress.info import describe

torchvision_trap.prepare()
client = pytest.importorskip("huggingface_hub")
constants = pytest.importorskip("huggingface_hub.constants")


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Hub]:
    """The real client speaks to it; its cache is new."""
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    with stand_in_hub() as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        yield hub


def content(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in folder.iterdir()}


def test_pushed_and_loaded_at_a_revision_bit_for_bit(
    hub: Hub, fitted: Callable[..., Compressor], others: np.ndarray
) -> None:
    compressor, other = fitted(), fitted(code_size=None, hidden_sizes=())
    url = compressor.push_to_hub("org/name", token=TOKEN, license="apache-2.0")
    first = hub.repositories["org/name"].refs["main"]
    assert url == f"{hub.url}/org/name/commit/{first}"
    other.push_to_hub("org/name", token=TOKEN)
    second = hub.repositories["org/name"].commits[hub.repositories["org/name"].refs["main"]]
    assert set(second) == {".gitattributes", *FETCHED} & set(second)
    assert "code_encoder.onnx" not in second  # of the first one, which is gone

    loaded = Compressor.from_pretrained("org/name", revision=first, num_threads=1)
    assert loaded.num_threads == 1
    assert np.array_equal(loaded.encode(others), compressor.encode(others))
    assert np.array_equal(loaded.transform(others), compressor.transform(others))
    for runtime in (
        embedpress.load(f"org/name@{first}", num_threads=1),
        embedpress.load("org/name", revision=first, num_threads=1),
    ):
        assert np.array_equal(runtime.encode(others), compressor.encode(others))
        assert runtime.check_canaries() > 0
        assert describe(runtime.path)["bad_files"] == []
    newest = embedpress.load("org/name", num_threads=1)
    assert newest.code_size is None
    np.testing.assert_allclose(newest.transform(others), other.transform(others), atol=1e-5)


def test_a_round_trip_keeps_every_byte_but_the_card(
    hub: Hub, fitted: Callable[..., Compressor], tmp_path: Path
) -> None:
    compressor = fitted()
    compressor.save_pretrained(tmp_path / "saved")
    compressor.push_to_hub("org/name", token=TOKEN)
    Compressor.from_pretrained("org/name").save_pretrained(tmp_path / "again")
    assert content(tmp_path / "again") == content(tmp_path / "saved")
    files = content(compressor_folder("org/name"))
    card = files.pop("README.md").decode()
    assert 'embedpress.load("org/name")' in card
    assert files == {k: v for k, v in content(tmp_path / "saved").items() if k != "README.md"}


def test_the_card_says_what_was_measured(fitted: Callable[..., Compressor], tmp_path: Path) -> None:
    from embedpress.autoencoder.judge import held_out_recall

    compressor = fitted()
    compressor.save_pretrained(tmp_path, license="mit")
    card = client.ModelCard.load(tmp_path / "README.md")
    assert (card.data.library_name, card.data.license) == ("embedpress", "mit")
    measured = held_out_recall(compressor)
    found = {result.metric_name: result.metric_value for result in card.data.eval_results}
    assert found == {
        "recall@10, latents of 6 floats": round(measured["latents"]["trained"], 4),
        "recall@10, codes of 4 bytes": round(measured["codes"]["trained"], 4),
    }
    assert card.data.base_model is None
    fingerprint = json.loads((tmp_path / "config.json").read_text())["fingerprint"]
    assert fingerprint in card.text
    assert f"OPQ {measured['codes']['start']:.3f}" in card.text
    assert describe(tmp_path)["bad_files"] == []


def test_an_extractor_of_the_hub_is_the_base_model(
    fitted: Callable[..., Compressor], tmp_path: Path
) -> None:
    compressor = Compressor.from_pretrained(_saved(fitted(), tmp_path / "plain"))
    compressor.source_ = {"extractor": 'a/"b"\n', "extractor revision": None}
    assert (
        client.ModelCard.load(_saved(compressor, tmp_path / "1") / "README.md").data.get(
            "base_model"
        )
        is None
    )
    compressor.source_ = {"extractor": "org/bert", "extractor revision": "0" * 40}
    card = client.ModelCard.load(_saved(compressor, tmp_path / "2") / "README.md")
    assert card.data.base_model == "org/bert"


def _saved(compressor: Compressor, folder: Path) -> Path:
    compressor.save_pretrained(folder)
    return folder


def test_a_folder_is_pushed_as_it_is_but_for_embeddings(
    hub: Hub, saved: Callable[..., Path], tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(saved(), tmp_path / "model"))
    (folder / "README.md").write_text("---\nlicense: mit\n---\nOurs.\n")
    (folder / "reference.safetensors").write_bytes(b"embeddings of somebody's texts")
    (folder / "notes.pkl").write_bytes(pickle.dumps([1]))
    url = push(folder, "org/name", token=TOKEN, revision="v1", commit_message="First")
    repository = hub.repositories["org/name"]
    assert url.endswith(repository.refs["v1"])
    tree = repository.commits[repository.refs["v1"]]
    assert tree.pop(".gitattributes")
    assert set(tree) < set(PUSHED)
    assert tree == {name: data for name, data in content(folder).items() if name in PUSHED}
    assert set(repository.commits[repository.refs["main"]]) == {".gitattributes"}
    (folder / "encoder.onnx").write_bytes(b"cut")
    before = dict(repository.refs)
    with pytest.raises(FormatError, match=r"not a whole compressor \(encoder.onnx\)"):
        push(folder, "org/name", token=TOKEN)
    assert repository.refs == before


def test_foreign_files_are_not_downloaded(hub: Hub, saved: Callable[..., Path]) -> None:
    files = content(saved())
    strange = {
        "weights.pkl": pickle.dumps([1]),
        "pytorch_model.bin": b"",
        "run.py": b"",
        "onnx/encoder.onnx": b"",
        "config.json.pkl": b"",
        "data/config.json": b"",
    }
    hub.repositories["org/name"] = Repository()
    hub.repositories["org/name"].commit({**files, **strange})
    folder = embedpress.load("org/name").path
    assert content(folder) == files
    assert hub.downloads() == set(files)
    assert model_name(folder) == "name"


def test_a_second_time_comes_from_the_cache(
    hub: Hub, saved: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.repositories["org/name"] = Repository()
    commit = hub.repositories["org/name"].commit(content(saved()))
    first = embedpress.load("org/name").path
    hub.asked.clear()
    assert embedpress.load(f"org/name@{commit}").path == first
    assert hub.asked == []
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert embedpress.load("org/name").path == first
    assert hub.asked == []
    with pytest.raises(UsageError, match="HF_HUB_OFFLINE is set"):
        embedpress.load("org/other")


def one_line(error: pytest.ExceptionInfo[BaseException]) -> bool:
    return "\n" not in str(error.value)


def test_what_the_hub_refuses_is_one_line(
    hub: Hub, fitted: Callable[..., Compressor], saved: Callable[..., Path]
) -> None:
    compressor = fitted()
    for act, message in (
        (
            lambda: compressor.push_to_hub("org/new", token="hf_wrong"),
            "does not let this token write",
        ),
        (lambda: compressor.push_to_hub("org/new", token=False), "does not let this token write"),
        (
            lambda: compressor.push_to_hub("others/new", token=TOKEN),
            "does not let this token write",
        ),
        (lambda: compressor.push_to_hub("a/b/c", token=TOKEN), "no repository that the hub has"),
        (lambda: Compressor.from_pretrained("org/none"), "neither a folder nor a model"),
        (lambda: embedpress.load("org/none"), "neither a folder nor a model"),
    ):
        with pytest.raises(UsageError, match=message) as caught:
            act()
        assert one_line(caught)
    assert hub.repositories == {}
    hub.repositories["org/name"] = Repository()
    hub.repositories["org/name"].commit(content(saved()))
    with pytest.raises(UsageError, match="'org/name' has no revision 'v9'"):
        embedpress.load("org/name@v9")
    with pytest.raises(UsageError, match="names another revision"):
        embedpress.load("org/name@v1", revision="v2")
    hub.readers_need_a_token = True
    with pytest.raises(UsageError, match="does not let this token read") as caught:
        Compressor.from_pretrained("org/name", token="hf_wrong")
    assert one_line(caught)
    assert Compressor.from_pretrained("org/name", token=TOKEN).code_size == 4
    hub.repositories["org/empty"] = Repository()
    hub.repositories["org/empty"].commit({"weights.pkl": b""})
    with pytest.raises(FormatError, match="org/empty is no compressor"):
        Compressor.from_pretrained("org/empty", token=TOKEN)


def test_a_hub_out_of_reach_is_one_line(
    hub: Hub, fitted: Callable[..., Compressor], monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound, but nobody listens
        monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{taken.getsockname()[1]}")
        with pytest.raises(UsageError, match="cannot be downloaded") as caught:
            embedpress.load("org/name")
        assert one_line(caught)
        with pytest.raises(StorageError, match="cannot be uploaded") as caught:
            fitted().push_to_hub("org/name", token=TOKEN)
        assert one_line(caught)


def test_files_larger_than_any_are_not_downloaded(hub: Hub, saved: Callable[..., Path]) -> None:
    hub.repositories["org/name"] = Repository()
    hub.repositories["org/name"].commit(content(saved()))
    hub.told = {"model.safetensors": 10 << 40}
    with pytest.raises(UsageError, match=r"files of 10,995,[0-9,]+ bytes on the hub, more than"):
        embedpress.load("org/name")
    assert hub.downloads() == set()


def test_what_is_larger_than_told_is_stopped(
    hub: Hub, saved: Callable[..., Path], tmp_path: Path
) -> None:
    hub.repositories["org/name"] = Repository()
    hub.repositories["org/name"].commit({**content(saved()), "tokenizer.json": bytes(100 << 20)})
    hub.told = {"tokenizer.json": 10}
    with pytest.raises(UsageError, match=r"'org/name' sends over [0-9,]+ bytes, more than"):
        embedpress.load("org/name")
    held = sum(file.stat().st_size for file in (tmp_path / "cache").rglob("*") if file.is_file())
    assert held < 40 << 20


def test_what_is_a_folder_asks_nobody(hub: Hub, tmp_path: Path, saved: Callable[..., Path]) -> None:
    for name in (Path("org/name"), "./org/name", "name", "a/b/c", str(tmp_path / "none"), ""):
        with pytest.raises((UsageError, FormatError)):
            embedpress.load(name)
        with pytest.raises(UsageError, match="belongs to a hub id"):
            embedpress.load(name, revision="v1")
    embedpress.load(str(saved()))
    assert hub.asked == []


def test_the_command_takes_a_hub_id_without_torch(
    hub: Hub, saved: Callable[..., Path], others: np.ndarray, tmp_path: Path
) -> None:
    hub.repositories["org/name"] = Repository()
    commit = hub.repositories["org/name"].commit(content(saved()))
    np.save(tmp_path / "x.npy", others)
    command = f"""
import sys
import embedpress.cli
sys.argv = ["embedpress", "compress", "x.npy", "-m", "org/name@{commit}", "-o", "codes", "--json"]
try:
    embedpress.cli.main()
finally:
    assert "torch" not in sys.modules
"""
    done = subprocess.run(
        [sys.executable, "-c", command],
        cwd=tmp_path,
        env={**os.environ, "HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path / "home")},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    batch = embedpress.open_vectors(tmp_path / "codes").read()
    assert np.array_equal(batch.vectors, embedpress.load(saved(), num_threads=1).encode(others))
