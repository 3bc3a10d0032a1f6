from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import pytest
from damage import DAMAGE, Damage, damaged
from hypothesis import HealthCheck, given, settings
from samples import curved

from embedpress.errors import EmbedpressError, FormatError, UsageError
from embedpress.index.manifest import read_index_manifest
from embedpress.index.search import open_index
from embedpress.info import describe

FILES = ["index.faiss", "ids.parquet", "rerank.npy", "rerank_scales.npy", "manifest.json"]
WHOLE = ("index.faiss", "ids.parquet")
"""Read whole when an index is opened, and so compared with their checksums."""


@pytest.fixture(scope="module")
def folder(built: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An index to spoil."""
    sound = built("codes", "IVF12", "int8")
    return Path(shutil.copytree(sound, tmp_path_factory.mktemp("spoilt") / "index"))


@pytest.fixture
def copy(folder: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(folder, tmp_path / "copy"))


def use(path: Path, model: Path) -> None:
    index = open_index(path, model, num_threads=1)
    for hits in (index.search(curved(3), 5), index.search(curved(3), 5, filter="year > 2000")):
        index.records(hits)
        index.ids(hits.rows)


@pytest.mark.parametrize("name", FILES)
@given(damage=DAMAGE)
@settings(
    max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@pytest.mark.filterwarnings("ignore:invalid value|overflow:RuntimeWarning")
def test_damage_is_answered(
    folder: Path, saved: Callable[..., Path], name: str, damage: Damage
) -> None:
    sound = (folder / name).read_bytes()
    spoilt = damaged(sound, damage)
    (folder / name).write_bytes(spoilt)
    message, told = "", None
    try:
        try:
            use(folder, saved())
        except EmbedpressError as error:
            message = str(error)
        try:
            told = describe(folder)
        except EmbedpressError as error:
            message = message or str(error)
    finally:
        (folder / name).write_bytes(sound)
    assert "\n" not in message
    if name in WHOLE:
        assert bool(message) == (spoilt != sound)
    if name != "manifest.json":
        assert told is not None
        assert told["bad_files"] == ([name] if spoilt != sound else [])


@pytest.mark.parametrize("name", FILES)
def test_truncation_is_refused(folder: Path, saved: Callable[..., Path], name: str) -> None:
    sound = (folder / name).read_bytes()
    lengths = {0, 1, 8, 60, len(sound) // 2, len(sound) - 2}
    if name == "rerank.npy":
        lengths |= set(range(0, len(sound), 997))
    try:
        for length in lengths:
            (folder / name).write_bytes(sound[:length])
            with pytest.raises(FormatError):
                use(folder, saved())
        (folder / name).write_bytes(sound + b"\0")
        with pytest.raises(FormatError):
            use(folder, saved())
        (folder / name).unlink()
        with pytest.raises(FormatError):
            use(folder, saved())
        if name != "manifest.json":
            assert describe(folder)["bad_files"] == [name]
    finally:
        (folder / name).write_bytes(sound)
    use(folder, saved())


@pytest.mark.parametrize("name", WHOLE)
def test_a_damaged_file_never_reaches_its_parser(
    copy: Path, saved: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    from embedpress.index import search

    def reached(*arguments: Any, **options: Any) -> None:
        raise AssertionError("a damaged file was parsed")

    monkeypatch.setattr(faiss, "read_index", reached)
    monkeypatch.setattr(search, "read_table", reached)
    data = bytearray((copy / name).read_bytes())
    data[len(data) // 2] ^= 1
    (copy / name).write_bytes(data)
    with pytest.raises(FormatError, match=f"{name} was changed since it was built"):
        open_index(copy, saved())


@pytest.mark.parametrize(
    "kind", [("codes", "Flat"), ("codes", "IVF12"), ("latents", "Flat"), ("latents", "IVF12")]
)
@given(damage=DAMAGE)
@settings(
    max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@pytest.mark.filterwarnings("ignore:invalid value|overflow:RuntimeWarning")
def test_a_damaged_file_that_is_mapped_does_no_harm(
    built: Callable[..., Path],
    saved: Callable[..., Path],
    tmp_path: Path,
    kind: tuple[str, str],
    damage: Damage,
) -> None:
    copy = tmp_path / "copy"
    if not copy.exists():
        shutil.copytree(built(*kind), copy)
    sound = (built(*kind) / "index.faiss").read_bytes()
    spoilt = damaged(sound, damage)
    # A file of its own: what FAISS has mapped before may still be read ahead.
    (copy / "index.faiss").unlink()
    (copy / "index.faiss").write_bytes(spoilt)
    frame = read_index_manifest(copy).frame
    assert frame is not None
    end = frame.start + frame.size
    untouched = (spoilt[: frame.start], spoilt[end:]) == (sound[: frame.start], sound[end:])
    parsed = len(spoilt) == len(sound) and untouched
    try:
        index = open_index(copy, saved(), memory_map=True, num_threads=1)
    except FormatError:
        assert not parsed
        return
    assert parsed
    # Rows that are not there are told from those that are; nothing else can go wrong.
    for expression in (None, "year > 2000"):
        with suppress(FormatError):
            hits = index.search(curved(3), 5, filter=expression)
            index.records(hits)
        with suppress(FormatError):
            index.records(index.range_search(curved(3), 0.5, filter=expression))
    if spoilt != sound:
        for options in ({"memory_map": True, "verify": True}, {"memory_map": False}):
            with pytest.raises(FormatError, match="was changed since it was built"):
                open_index(copy, saved(), **options)


def test_rows_that_are_not_there(copy: Path, saved: Callable[..., Path]) -> None:
    frame = read_index_manifest(copy).frame
    assert frame is not None
    with (copy / "index.faiss").open("r+b") as file:
        file.seek(frame.start)
        file.write((2**40).to_bytes(8, "little") * (frame.size // 8))
    index = open_index(copy, saved(), memory_map=True)
    with pytest.raises(FormatError, match="names rows that are not there"):
        index.search(curved(3), 5)
    with pytest.raises(FormatError, match="names rows that are not there"):
        index.range_search(curved(3), -10)


def test_a_changed_rerank_row_is_found_by_its_checksum_alone(
    copy: Path, saved: Callable[..., Path]
) -> None:
    tier = np.load(copy / "rerank.npy", mmap_mode="r+")
    tier[17, 3] ^= 1
    tier.flush()
    use(copy, saved())
    assert describe(copy)["bad_files"] == ["rerank.npy"]
    assert describe(copy, verify=False)["bad_files"] is None


def restamped(copy: Path, **changes: Any) -> None:
    from embedpress.vectors import sha256_of

    manifest = json.loads((copy / "manifest.json").read_text())
    manifest["sha256"] = {name: sha256_of(copy / name) for name in manifest["sha256"]}
    manifest |= changes
    (copy / "manifest.json").write_text(json.dumps(manifest))


def test_an_index_that_embedpress_does_not_build(copy: Path, saved: Callable[..., Path]) -> None:
    graph = faiss.IndexHNSWFlat(32, 8, faiss.METRIC_INNER_PRODUCT)
    graph.add(curved(500))
    faiss.write_index(graph, str(copy / "index.faiss"))
    restamped(copy)
    with pytest.raises(FormatError, match="which embedpress does not build"):
        open_index(copy, saved())


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: faiss.IndexFlat(32, faiss.METRIC_INNER_PRODUCT), "holds 0 vectors"),
        (lambda: faiss.IndexFlat(8, faiss.METRIC_INNER_PRODUCT), "of 8 dimensions"),
        (lambda: faiss.IndexFlatL2(32), "another metric"),
    ],
)
def test_an_index_other_than_its_manifest_says(
    copy: Path, saved: Callable[..., Path], make: Callable[[], Any], message: str
) -> None:
    index = make()
    if message == "another metric":
        index.add(curved(500))
    faiss.write_index(index, str(copy / "index.faiss"))
    restamped(copy)
    with pytest.raises(FormatError, match=message):
        open_index(copy, saved())


def test_nonsense_with_a_checksum(copy: Path, saved: Callable[..., Path]) -> None:
    for name in WHOLE:
        sound = (copy / name).read_bytes()
        (copy / name).write_bytes(b"nonsense" * 9)
        restamped(copy)
        with pytest.raises(FormatError) as caught:
            open_index(copy, saved())
        assert "\n" not in str(caught.value)
        (copy / name).write_bytes(sound)


def test_ids_of_another_index(copy: Path, saved: Callable[..., Path], tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    for table in (pa.table({"id": [1, 2]}), pa.table({"name": list(range(500))}), pa.table({})):
        pq.write_table(table, copy / "ids.parquet")
        restamped(copy)
        with pytest.raises(EmbedpressError, match=r"ids for 500 vectors|cannot be read"):
            open_index(copy, saved())


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("kind", "codes"),
        ("kind", None),
        ("format_version", 4),
        ("format_version", True),
        ("format_version", 1),
        ("generation", -1),
        ("deleted", "0"),
        ("deleted", 3),
        ("choice", []),
        ("files", []),
        ("files", {}),
        ("files", {"index": "index.faiss", "ids": "ids.parquet"}),
        ("frame", {}),
        ("frame", {"start": -1, "size": 0, "sha256": ""}),
        ("format_version", "1"),
        ("what", "floats"),
        ("what", ["codes"]),
        ("metric", "euclid"),
        ("dim", -1),
        ("dim", 32.0),
        ("dim", True),
        ("count", "500"),
        ("count", 501),
        ("count", 10**30),
        ("nprobe", None),
        ("rerank", "float64"),
        ("rerank", "float32"),
        ("rerank_dim", 31),
        ("rerank_dim", 10**18),
        ("bytes_per_vector", "few"),
        ("bytes_per_vector", None),
        ("factory", 3),
        ("compressor", 3),
        ("extractor", []),
        ("extractor", None),
        ("sha256", []),
        ("sha256", {}),
        ("sha256", {"index.faiss": 3}),
        ("surprise", 1),
    ],
)
def test_fields_of_a_manifest_that_cannot_be(
    copy: Path, saved: Callable[..., Path], name: str, value: Any
) -> None:
    manifest = json.loads((copy / "manifest.json").read_text())
    (copy / "manifest.json").write_text(json.dumps({**manifest, name: value}))
    with pytest.raises(EmbedpressError) as caught:
        open_index(copy, saved())
    assert "\n" not in str(caught.value)
    if not (name == "compressor" and isinstance(value, str)):
        assert isinstance(caught.value, FormatError)


@pytest.mark.parametrize(
    "text", ["", "[]", "3", "[" * 100_000, " " * (2 << 20), '{"kind": "index"}']
)
def test_manifests_that_are_none(copy: Path, saved: Callable[..., Path], text: str) -> None:
    (copy / "manifest.json").write_text(text)
    for read in (lambda: open_index(copy, saved()), lambda: describe(copy)):
        with pytest.raises(FormatError) as caught:
            read()
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["../secret", "/etc/passwd", "a/b"])
def test_a_manifest_names_only_files_of_its_folder(copy: Path, name: str) -> None:
    manifest = json.loads((copy / "manifest.json").read_text())
    manifest["sha256"][name] = "0" * 64
    (copy / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(FormatError, match="names a file outside of it"):
        describe(copy)


def test_folders_that_are_no_index(tmp_path: Path, saved: Callable[..., Path]) -> None:
    with pytest.raises(UsageError, match="no index folder"):
        open_index(tmp_path / "nothing", saved())
    with pytest.raises(FormatError, match=r"is not an index: it has no manifest\.json"):
        open_index(tmp_path, saved())
    with pytest.raises(UsageError, match="is not a folder of vectors, a compressor or an index"):
        describe(tmp_path)
    with pytest.raises(UsageError, match="no folder"):
        describe(tmp_path / "nothing")


def test_a_folder_of_vectors_is_no_index(
    compressed: Callable[..., Path], saved: Callable[..., Path], tmp_path: Path
) -> None:
    with pytest.raises(FormatError, match="does not describe an index"):
        open_index(compressed(), saved())
    told = describe(compressed())
    assert (told["kind"], told["count"], told["bad_files"]) == ("codes", 500, [])
    copy = Path(shutil.copytree(compressed(), tmp_path / "copy"))
    shard = next(copy.glob("*.parquet"))
    data = bytearray(shard.read_bytes())
    data[len(data) // 2] ^= 1
    shard.write_bytes(data)
    assert describe(copy)["bad_files"] == [shard.name]
