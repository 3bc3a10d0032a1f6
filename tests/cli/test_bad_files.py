"""Every command on every bad file: an exit code, one line, and what was there before stays."""

from __future__ import annotations

import json
import os
import pickle
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bad_files import TEXTS, VECTORS, Bomb, written
from commands import Cli, Ended
from samples import curved, write_embeddings

from embedpress.index.build import build_index
from embedpress.onnx.compress import compress
from embedpress.vectors import sha256_of


@pytest.fixture(scope="session")
def made(saved: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A compressor, codes of 60 vectors and an index of them, all sound."""
    home = tmp_path_factory.mktemp("made")
    shutil.copytree(saved(), home / "model")
    write_embeddings(home / "emb", curved(60))
    compress(home / "emb", home / "model", home / "codes", num_threads=1)
    build_index(home / "codes", home / "model", home / "index", num_threads=1)
    return home


@pytest.fixture
def home(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy to spoil, with results of an earlier run in the way of every command."""
    shutil.copytree(made, tmp_path / "home")
    monkeypatch.chdir(tmp_path / "home")
    for out in ("model-2", "codes-2", "index-2", "out"):
        Path(out).mkdir()
        Path(out, "of an earlier run.txt").write_text("kept")
    return tmp_path / "home"


def contents(folder: Path) -> dict[str, Any]:
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() else path.is_symlink()
        for path in folder.rglob("*")
    }


def refused(ended: Ended, home: Path, before: dict[str, Any], *, code: int = 1) -> str:
    """The one line of a command that failed and that left everything as it was."""
    assert ended.code == code, (ended.err, ended.out)
    assert ended.out == ""
    lines = ended.err.splitlines()
    assert len(lines) == 1, ended.err
    assert lines[0].startswith("embedpress: ")
    assert lines[0].isprintable()
    assert not (home / "boom").exists()
    after = contents(home)
    assert {name: after.get(name) for name in before} == before
    return lines[0]


VERBS: dict[str, tuple[str, ...]] = {
    "fit": ("fit", "{bad}", "-o", "model-2", "--n-components", "4"),
    "compress": ("compress", "{bad}", "-m", "model", "-o", "codes-2"),
    "index": ("index", "{bad}", "-m", "model", "-o", "index-2"),
    "index --add": ("index", "{bad}", "-m", "model", "-o", "index", "--add"),
    "search": ("search", "index", "-m", "model", "--vectors", "{bad}"),
    "cluster": ("cluster", "{bad}", "-o", "out"),
    "duplicates": ("duplicates", "{bad}", "-o", "out"),
    "outliers": ("outliers", "{bad}", "-m", "model", "-o", "out"),
    "drift": ("drift", "{bad}", "-m", "model", "--reference", "emb"),
    "drift from": ("drift", "emb", "-m", "model", "--reference", "{bad}"),
    "evaluate": ("evaluate", "{bad}", "-m", "model", "-o", "out"),
    "map": ("map", "{bad}", "-o", "out"),
}


def _each_with_each() -> Iterator[Any]:
    """A quarter of all pairs in the quick tests, each command and each file among them."""
    for row, name in enumerate(VECTORS):
        for place, verb in enumerate(VERBS):
            slow = () if (row + place) % 4 == 0 else (pytest.mark.slow,)
            yield pytest.param(verb, name, marks=slow)


@pytest.mark.parametrize(("verb", "name"), list(_each_with_each()))
def test_vectors(cli: Cli, home: Path, tmp_path: Path, verb: str, name: str) -> None:
    bad = VECTORS[name](tmp_path)
    before = contents(home)
    line = refused(cli(*(part.format(bad=bad) for part in VERBS[verb])), home, before)
    assert bad.name in line


@pytest.mark.parametrize("name", list(TEXTS))
def test_texts(cli: Cli, home: Path, tmp_path: Path, bert: Path, name: str) -> None:
    bad = TEXTS[name](tmp_path)
    before = contents(home)
    line = refused(cli("extract", "text", bad, "--model", bert, "-o", "out"), home, before)
    assert bad.name in line


@pytest.mark.parametrize(
    ("given", "line"),
    [
        ("none.npy", "none.npy"),
        ("x.pkl", "vectors are read from"),
        ("empty", "empty"),
        ("piped", "holds no manifest.json"),
        ("pipe.npy", "pipe.npy"),
    ],
)
@pytest.mark.parametrize("verb", list(VERBS))
def test_what_cannot_be_an_input(
    cli: Cli, home: Path, tmp_path: Path, verb: str, given: str, line: str
) -> None:
    for name in ("empty", "piped"):
        (tmp_path / name).mkdir()
    os.mkfifo(tmp_path / "piped" / "manifest.json")
    os.mkfifo(tmp_path / "pipe.npy")
    written("x.pkl", b"\x80\x04N.")(tmp_path)
    before = contents(home)
    ended = cli(*(part.format(bad=tmp_path / given) for part in VERBS[verb]))
    assert line in refused(ended, home, before, code=2)


def spoilt_model(config: dict[str, Any], file: str, content: bytes | None) -> None:
    """A compressor whose checksums are right and whose file is not."""
    if content is not None:
        Path("model", file).write_bytes(content)
        config["sha256"][file] = sha256_of(Path("model", file))
    Path("model", "config.json").write_text(json.dumps(config))


MODELS: dict[str, tuple[dict[str, Any], str, bytes | None]] = {
    "dim": ({"dim": 2**40}, "", None),
    "version": ({"format_version": 99}, "", None),
    "kind": ({"kind": "index"}, "", None),
    "nested": ({"nested_sizes": "[" * 200}, "", None),
    "weights": ({}, "model.safetensors", b"\xff" * 60),
    "graph": ({}, "code_encoder.onnx", b"not a graph"),
}
MODEL_VERBS: dict[str, tuple[str, ...]] = {
    "compress": ("compress", "emb", "-m", "model", "-o", "codes-2"),
    "index": ("index", "codes", "-m", "model", "-o", "index-2"),
    "evaluate": ("evaluate", "emb", "-m", "model", "-o", "out"),
    "outliers": ("outliers", "emb", "-m", "model", "-o", "out"),
    "drift": ("drift", "emb", "-m", "model"),
    "export": ("export", "model", "-o", "out"),
}


@pytest.mark.parametrize("name", ["dim", "version", "kind", "nested"])
@pytest.mark.parametrize("verb", list(MODEL_VERBS))
def test_compressors(cli: Cli, home: Path, verb: str, name: str) -> None:
    changes, file, content = MODELS[name]
    config = json.loads(Path("model/config.json").read_text())
    spoilt_model({**config, **changes}, file, content)
    before = contents(home)
    assert "config.json" in refused(cli(*MODEL_VERBS[verb]), home, before)


@pytest.mark.parametrize(("verb", "name"), [("compress", "graph"), ("index", "weights")])
def test_files_of_compressors(cli: Cli, home: Path, verb: str, name: str) -> None:
    config = json.loads(Path("model/config.json").read_text())
    spoilt_model({**config, **MODELS[name][0]}, *MODELS[name][1:])
    before = contents(home)
    assert MODELS[name][1] in refused(cli(*MODEL_VERBS[verb]), home, before)


INDEX_VERBS: dict[str, tuple[str, ...]] = {
    "search": ("search", "index", "-m", "model", "--vectors", "asked.npy"),
    "delete": ("delete", "index", "--ids", "1"),
    "compact": ("compact", "index"),
    "push": ("push", "index", "-m", "model", "--to", "csv:rows.csv"),
    "add": ("index", "codes", "-m", "model", "-o", "index", "--add", "--existing", "skip"),
}


def spoilt_index(file: str, content: bytes | None) -> None:
    """An index whose checksums are right and whose file is not."""
    manifest = json.loads(Path("index/manifest.json").read_text())
    path = Path("index", manifest["files"].get(file, file))
    if content is None:
        shutil.move(path, "elsewhere")
        path.symlink_to(Path("elsewhere").absolute())
    else:
        path.write_bytes(content)
    if file != "manifest.json":
        manifest["sha256"] = {name: sha256_of(Path("index", name)) for name in manifest["sha256"]}
        Path("index/manifest.json").write_text(json.dumps(manifest))


INDEXES: dict[str, tuple[str, bytes | None, tuple[str, ...]]] = {
    "NaN": ("manifest.json", b'{"kind": "index", "format_version": NaN}', tuple(INDEX_VERBS)),
    "nested": ("manifest.json", b"[" * 10**5, tuple(INDEX_VERBS)),
    "ids, another file": ("ids", b"PAR1" * 30, ("search", "delete", "push", "add")),
    "ids, a link": ("ids", None, ("search", "delete", "push", "add")),
    "index, forged": ("index", b"IxPq" + b"\xff" * 100, ("search", "push")),
    "index, a link": ("index", None, ("search", "push")),
}
"""What is spoilt, and the commands that read it."""


@pytest.mark.parametrize(
    ("name", "verb"), [(name, verb) for name, (_, _, verbs) in INDEXES.items() for verb in verbs]
)
def test_indexes(cli: Cli, home: Path, name: str, verb: str) -> None:
    np.save("asked.npy", curved(2))
    file, content, _ = INDEXES[name]
    spoilt_index(file, content)
    before = contents(home)
    refused(cli(*INDEX_VERBS[verb]), home, before)


def test_a_bomb_would_have_been_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    pickle.loads(pickle.dumps(Bomb()))
    assert (tmp_path / "boom").exists()
