"""Indexes, graphs and tables, damaged by hypothesis, in a process that must live and answer.

The short form is for every day; `make test-fuzz` runs the long one. A case that was found goes to
`corpus/`, and stays there.
"""

from __future__ import annotations

import json
import os
import queue
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from damage import ANYTHING, PLACE, Damage, damaged
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import save_file
from samples import curved, write_embeddings

from embedpress.index.build import build_index
from embedpress.onnx.compress import compress
from embedpress.vectors import sha256_of

HERE = Path(__file__).parent
SECONDS = 20
"""For one file; a sound one takes a fiftieth of a second."""
SHORT, LONG = 15, 1500

NUMBERS = (0, 1, 2, 3, 255, 2**16, 2**31 - 1, 2**31, 2**32 - 1, 2**40, 2**63 - 1, 2**64 - 1)
DAMAGES = st.lists(
    st.one_of(
        st.tuples(st.just("flip"), PLACE, st.integers(1, 255)),
        st.tuples(st.just("cut"), PLACE, st.sampled_from([1, 4, 60, 10**9])),
        st.tuples(st.just("number"), PLACE, st.sampled_from(NUMBERS)),
    ),
    min_size=1,
    max_size=4,
)
GRAPHS = (
    "latent_encoder.onnx",
    "code_encoder.onnx",
    "query_encoder.onnx",
    "decoder.onnx",
    "code_decoder.onnx",
)
INDEXES = tuple(
    f"{what}-{factory}"
    for what in ("codes", "latents")
    for factory in ("Flat", "IVF12", "IVF12_HNSW8")
)


TABLES = ("x.parquet", "packed.parquet", "x.arrow", "packed.arrow", "x.npz", "x.safetensors")


def write_tables(folder: Path) -> None:
    """Vectors, with ids, texts and odd columns where the format has columns."""
    texts = pa.array(["a", "b", None, "c" * 50] * 15)
    columns = {"id": range(60), "vector": curved(60, seed=3).tolist(), "text": ["a b"] * 60}
    columns |= {"named": texts.dictionary_encode(), "l": [["x"] * (n % 3) for n in range(60)]}
    columns |= {"s": [{"a": n, "b": "y"} for n in range(60)]}
    rows = pa.table(columns)
    for name, packed in (("x", None), ("packed", "zstd")):
        pq.write_table(
            rows, folder / f"{name}.parquet", compression=packed or "none", row_group_size=25
        )
        options = pa.ipc.IpcWriteOptions(compression=packed)
        with pa.ipc.new_file(folder / f"{name}.arrow", rows.schema, options=options) as writer:
            writer.write_table(rows, max_chunksize=25)
    np.savez_compressed(folder / "x.npz", x=curved(60))
    save_file({"x": curved(60)}, folder / "x.safetensors")


class Child:
    """A process that opens files; another one takes its place when it is killed."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[str] | None = None
        self._lines: queue.Queue[str] = queue.Queue()

    def ask(self, *words: object) -> str:
        """What became of a file: ``"read"``, ``"refused"``, or else what was found."""
        process = self._process or self._start()
        assert process.stdin is not None
        process.stdin.write("\t".join(map(str, words)) + "\n")
        process.stdin.flush()
        try:
            said = self._lines.get(timeout=SECONDS).strip()
        except queue.Empty:
            said = f"finding: no answer in {SECONDS} seconds"
            self.stop()
        if not said:
            said = f"finding: the process ended with {process.wait()}"
            self._process = None
        return said

    def stop(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def _start(self) -> subprocess.Popen[str]:
        threads = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
        process = subprocess.Popen(
            [sys.executable, str(HERE / "fuzz_child.py")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env={**os.environ, **threads, "PYTHONPATH": os.pathsep.join(sys.path)},
        )
        self._process, self._lines = process, queue.Queue()
        threading.Thread(target=_listen, args=(process, self._lines), daemon=True).start()
        return process


def _listen(process: subprocess.Popen[str], lines: queue.Queue[str]) -> None:
    assert process.stdout is not None
    for line in process.stdout:
        lines.put(line)
    lines.put("")


@pytest.fixture(scope="module")
def child() -> Iterator[Child]:
    child = Child()
    yield child
    child.stop()


@pytest.fixture(scope="module")
def made(saved: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A compressor ``model``, and small indexes of each kind: ``codes-Flat``, ..."""
    home = tmp_path_factory.mktemp("made")
    shutil.copytree(saved(), home / "model")
    write_embeddings(home / "emb", curved(60, seed=3), ids=[f"id{n}" for n in range(60)])
    for name in INDEXES:
        what, factory = name.split("-")
        if not (home / what).exists():
            compress(home / "emb", home / "model", home / what, what=what, num_threads=1)
        build_index(home / what, home / "model", home / name, factory=factory, num_threads=1)
    (home / "tables").mkdir()
    write_tables(home / "tables")
    return home


def spoilt(content: bytes, damages: list[Damage]) -> bytes:
    for damage in damages:
        content = damaged(content, damage) if content else content
    return content


def restamped(folder: Path, described: str, file: str, content: bytes) -> None:
    """Put a file in the place of another one, with the checksum that it has."""
    (folder / file).write_bytes(content)
    document = json.loads((folder / described).read_text())
    document["sha256"][file] = sha256_of(folder / file)
    (folder / described).write_text(json.dumps(document))


def try_graph(child: Child, made: Path, tmp_path: Path, name: str, content: bytes) -> None:
    folder = tmp_path / "graph"
    if not folder.exists():
        shutil.copytree(made / "model", folder)
    restamped(folder, "config.json", name, content)
    assert child.ask("graph", folder, name) in ("read", "refused")


def try_index(child: Child, made: Path, tmp_path: Path, name: str, content: bytes) -> None:
    folder = tmp_path / "index"
    if not folder.exists():
        shutil.copytree(made / name, folder)
    restamped(folder, "manifest.json", "index.faiss", content)
    assert child.ask("index", folder, made / "model") in ("read", "refused")


def try_table(child: Child, tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    assert child.ask("vectors", tmp_path, name) in ("read", "refused")


CORPUS = sorted(
    file for file in (HERE / "corpus").iterdir() if file.suffix in (".arrow", ".parquet")
)


@pytest.mark.parametrize("file", CORPUS, ids=lambda file: file.name)
def test_found_cases_are_refused(child: Child, file: Path) -> None:
    """Each once ended the process, within pyarrow."""
    assert child.ask("vectors", file.parent, file.name) == "refused"


def test_sound_files_are_read(child: Child, made: Path) -> None:
    for name in GRAPHS:
        assert child.ask("graph", made / "model", name) == "read"
    for name in INDEXES:
        assert child.ask("index", made / name, made / "model") == "read"
    for name in TABLES:
        assert child.ask("vectors", made / "tables", name) == "read"


def test_a_finding_is_one(child: Child, made: Path, tmp_path: Path) -> None:
    assert child.ask("wrong number of words").startswith("finding: the process ended with 1")
    assert child.ask("graph", made / "model", GRAPHS[0]) == "read"
    assert child.ask("index", tmp_path, made / "model") == "refused"


@pytest.mark.parametrize("name", GRAPHS)
@given(damages=DAMAGES)
@settings(max_examples=SHORT, **ANYTHING)
def test_graphs(child: Child, made: Path, tmp_path: Path, name: str, damages: list[Damage]) -> None:
    content = spoilt((made / "model" / name).read_bytes(), damages)
    try_graph(child, made, tmp_path, name, content)


@pytest.mark.parametrize("name", INDEXES)
@given(damages=DAMAGES)
@settings(max_examples=SHORT, **ANYTHING)
def test_indexes(
    child: Child, made: Path, tmp_path: Path, name: str, damages: list[Damage]
) -> None:
    content = spoilt((made / name / "index.faiss").read_bytes(), damages)
    try_index(child, made, tmp_path, name, content)


@pytest.mark.parametrize("name", TABLES)
@given(damages=DAMAGES)
@settings(max_examples=SHORT, **ANYTHING)
def test_tables(child: Child, made: Path, tmp_path: Path, name: str, damages: list[Damage]) -> None:
    try_table(child, tmp_path, name, spoilt((made / "tables" / name).read_bytes(), damages))


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("name", GRAPHS)
@given(damages=DAMAGES)
@settings(max_examples=LONG, **ANYTHING)
def test_graphs_for_long(
    child: Child, made: Path, tmp_path: Path, name: str, damages: list[Damage]
) -> None:
    content = spoilt((made / "model" / name).read_bytes(), damages)
    try_graph(child, made, tmp_path, name, content)


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("name", INDEXES)
@given(damages=DAMAGES)
@settings(max_examples=LONG, **ANYTHING)
def test_indexes_for_long(
    child: Child, made: Path, tmp_path: Path, name: str, damages: list[Damage]
) -> None:
    content = spoilt((made / name / "index.faiss").read_bytes(), damages)
    try_index(child, made, tmp_path, name, content)


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("name", TABLES)
@given(damages=DAMAGES)
@settings(max_examples=LONG, **ANYTHING)
def test_tables_for_long(
    child: Child, made: Path, tmp_path: Path, name: str, damages: list[Damage]
) -> None:
    try_table(child, tmp_path, name, spoilt((made / "tables" / name).read_bytes(), damages))
