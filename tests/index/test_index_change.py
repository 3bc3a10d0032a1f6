"""Adding, deleting and compacting, beside brute force over what is live."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import pytest
from index_truth import IDS, METADATA
from samples import curved, write_embeddings
from test_index_manifest import as_version_1

from embedpress.errors import FormatError, InputError, MismatchError, StorageError, UsageError
from embedpress.index.build import build_index
from embedpress.index.change import add_to_index, compact_index, delete_from_index
from embedpress.index.search import open_index
from embedpress.info import describe
from embedpress.onnx.compress import compress

LAYOUTS = [
    ("codes", "Flat", "none"),
    ("codes", "IVF12", "int8"),
    ("latents", "Flat", "float16"),
    ("latents", "IVF5", "none"),
    ("codes", "IVF6_HNSW4", "none"),
]


@pytest.fixture(scope="session")
def halves(
    base: np.ndarray, saved: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """Rows 0 to 300 and 300 to 500: embeddings, codes and latents of each."""
    home = tmp_path_factory.mktemp("halves")
    for name, cut in (("first", slice(0, 300)), ("second", slice(300, 500))):
        metadata = {key: values[cut] for key, values in METADATA.items()}
        write_embeddings(home / name, base[cut], ids=IDS[cut], metadata=metadata)
        for what in ("codes", "latents"):
            compress(home / name, saved(), home / f"{name}-{what}", what=what, num_threads=1)
    return home


def started(home: Path, saved: Path, out: Path, what: str, factory: str, rerank: str) -> Path:
    build_index(
        home / f"first-{what}",
        saved,
        out,
        factory=factory,
        rerank=rerank,
        vectors=home / "first",
        num_threads=1,
    )
    return out


@pytest.mark.parametrize(("what", "factory", "rerank"), LAYOUTS)
def test_an_index_that_grew_finds_what_a_whole_one_finds(
    halves: Path,
    built: Callable[..., Path],
    saved: Callable[..., Path],
    queries: np.ndarray,
    tmp_path: Path,
    what: str,
    factory: str,
    rerank: str,
) -> None:
    out = started(halves, saved(), tmp_path / "index", what, factory, rerank)
    before = open_index(out, saved())
    old = before.search(queries, 9, nprobe=12)
    done: list[int] = []
    changed = add_to_index(
        halves / f"second-{what}",
        saved(),
        out,
        vectors=halves / "second",
        num_threads=1,
        memory_budget=40_000,
        progress=done.append,
    )
    assert (changed.added, changed.replaced, changed.skipped) == (200, 0, 0)
    assert sum(done) == 200
    assert changed.manifest.count == 500
    assert changed.manifest.generation == 2
    # What was opened before is what it was.
    assert np.array_equal(before.search(queries, 9, nprobe=12).rows, old.rows)
    whole = open_index(built(what, factory, rerank), saved())
    grown, mapped = (open_index(out, saved(), memory_map=m) for m in (False, True))
    for expression in (None, "year > 2000"):
        options: dict[str, Any] = {"nprobe": 12, "filter": expression, "oversample": 50}
        expected = whole.search(queries, 9, **options)
        scores = np.empty((len(queries), 500), np.float32)
        every = whole.search(queries, 500, nprobe=12)
        np.put_along_axis(scores, every.rows, every.scores, axis=1)
        for index in (grown, mapped):
            # Equal codes may come in any order.
            found = index.search(queries, 9, **options)
            np.testing.assert_allclose(found.scores, expected.scores, rtol=1e-5)
            own = np.take_along_axis(scores, found.rows, axis=1)
            np.testing.assert_allclose(found.scores, own, rtol=1e-5)
            assert index.ids(found.rows) == [[IDS[row] for row in line] for line in found.rows]
        assert index.table.equals(whole.table)
    assert describe(out)["bad_files"] == []
    plain = faiss.read_index(str(out / changed.manifest.files["index"]))
    assert plain.ntotal == 500


@pytest.mark.parametrize(("what", "factory", "rerank"), LAYOUTS)
def test_what_is_deleted_is_not_found(
    built: Callable[..., Path],
    saved: Callable[..., Path],
    queries: np.ndarray,
    tmp_path: Path,
    what: str,
    factory: str,
    rerank: str,
) -> None:
    out = Path(shutil.copytree(built(what, factory, rerank), tmp_path / "index"))
    whole = open_index(out, saved())
    ranked = whole.search(queries, 500, nprobe=12)
    gone = set(ranked.rows[:, 0].tolist()) | set(range(0, 500, 3))
    named = [IDS[row] for row in gone if row % 2]
    changed = delete_from_index(out, ids=[*named, "nobody", named[0]])
    assert (changed.deleted, changed.not_found) == (len(named), 1)
    for row in gone:
        if row % 2 == 0:
            delete_from_index(out, filter=f'id == "{IDS[row]}"')
    assert delete_from_index(out, ids=named).deleted == 0
    expected = [[row for row in line if row not in gone] for line in ranked.rows.tolist()]
    index = open_index(out, saved())
    assert len(index) == 500 - len(gone) == index.manifest.count
    assert index.manifest.deleted == len(gone)
    for opened in (index, open_index(out, saved(), memory_map=True)):
        found = opened.search(queries, 500, nprobe=12)
        assert [line[line >= 0].tolist() for line in found.rows] == expected
        near = opened.range_search(queries, float(np.median(ranked.scores)), nprobe=12)
        assert len(near.rows)
        assert not gone & set(near.rows.tolist())
    # The files but for the marks are those of before.
    assert (out / "index.faiss").read_bytes() == (
        built(what, factory, rerank) / "index.faiss"
    ).read_bytes()

    compacted = compact_index(out, memory_budget=40_000)
    assert compacted.deleted == len(gone)
    assert (compacted.manifest.count, compacted.manifest.deleted) == (500 - len(gone), 0)
    again = open_index(out, saved())
    hits = again.search(queries, 500, nprobe=12)
    assert again.ids(hits.rows)[0][: len(expected[0])] == [IDS[row] for row in expected[0]]
    for line, rows in zip(again.ids(hits.rows), expected, strict=True):
        assert line[: len(rows)] == [IDS[row] for row in rows]
        assert line[len(rows) :] == [None] * (500 - len(rows))
    assert describe(out)["bad_files"] == []
    assert {file.name for file in out.iterdir()} == {
        "manifest.json",
        *compacted.manifest.files.values(),
    }
    # Nothing is left to do, and nothing is done.
    assert compact_index(out).manifest == compacted.manifest


def test_ids_that_are_already_there(
    halves: Path, saved: Callable[..., Path], queries: np.ndarray, tmp_path: Path
) -> None:
    out = started(halves, saved(), tmp_path / "index", "codes", "IVF12", "int8")
    # Ids 290 to 309: ten are there already, and their vectors now are others.
    x = curved(20, seed=9)
    ids = IDS[290:310]
    write_embeddings(tmp_path / "x", x, ids=ids, metadata={"year": list(range(20))})
    compress(tmp_path / "x", saved(), tmp_path / "codes", num_threads=1)
    arguments = (tmp_path / "codes", saved(), out)
    options: dict[str, Any] = {"vectors": tmp_path / "x", "num_threads": 1}
    before = {file.name: file.read_bytes() for file in out.iterdir()}
    with pytest.raises(InputError, match="10 ids are already in the index, such as 'id 290'"):
        add_to_index(*arguments, **options)
    with pytest.raises(UsageError, match="must be one of refuse, replace, skip"):
        add_to_index(*arguments, existing="ignore", **options)
    assert {file.name: file.read_bytes() for file in out.iterdir()} == before

    kept = Path(shutil.copytree(out, tmp_path / "kept"))
    skipped = add_to_index(tmp_path / "codes", saved(), kept, existing="skip", **options)
    assert (skipped.added, skipped.skipped, skipped.replaced) == (10, 10, 0)
    assert skipped.manifest.count == 310
    # The same again adds nothing, and changes nothing.
    again = add_to_index(tmp_path / "codes", saved(), kept, existing="skip", **options)
    assert (again.added, again.manifest) == (0, skipped.manifest)

    replaced = add_to_index(*arguments, existing="replace", **options)
    assert (replaced.added, replaced.replaced) == (20, 10)
    assert (replaced.manifest.count, replaced.manifest.deleted) == (310, 10)
    for folder, new in ((kept, ids[10:]), (out, ids)):
        index = open_index(folder, saved())
        held = index.ids(index.search(x, 310, nprobe=12).rows)
        assert all(sorted(line) == sorted(IDS[:310]) for line in held)
        found = index.ids(index.search(x, 1, nprobe=12, oversample=310).rows)
        assert [line[0] for line in found][-len(new) :] == new
        # A column that the new rows lack is empty in them.
        record = index.records(index.search(x[-1:], 1, nprobe=12, oversample=310))[0][0]
        assert (record["year"], record["label"]) == (19, None)
    # A deleted id may come again.
    delete_from_index(out, ids=ids)
    assert add_to_index(*arguments, **options).replaced == 0
    assert len(open_index(out, saved())) == 310


def test_everything_deleted_and_filled_again(
    halves: Path, saved: Callable[..., Path], queries: np.ndarray, tmp_path: Path
) -> None:
    for what, factory in (("codes", "Flat"), ("latents", "IVF5")):
        out = started(halves, saved(), tmp_path / what, what, factory, "float16")
        delete_from_index(out, filter="limit > 0")
        for _ in range(2):
            index = open_index(out, saved())
            assert len(index) == 0
            assert (index.search(queries, 3).rows == -1).all()
            assert index.range_search(queries, -1e9).lims[-1] == 0
            assert index.search(queries, 3, filter="year > 2000").rows.shape == (25, 3)
            compact_index(out)
        assert open_index(out, saved()).manifest.rows == 0
        source, vectors = halves / f"second-{what}", halves / "second"
        add_to_index(source, saved(), out, vectors=vectors, num_threads=1)
        index = open_index(out, saved())
        hits = index.search(queries, 200, nprobe=5)
        assert sorted(index.ids(hits.rows)[0]) == sorted(IDS[300:])


def test_an_index_of_the_first_format_can_be_changed(
    halves: Path, saved: Callable[..., Path], queries: np.ndarray, tmp_path: Path
) -> None:
    for number, (what, factory, rerank) in enumerate(LAYOUTS):
        out = started(halves, saved(), tmp_path / str(number), what, factory, rerank)
        as_version_1(out)
        delete_from_index(out, ids=IDS[:10])
        add_to_index(
            halves / f"second-{what}", saved(), out, vectors=halves / "second", num_threads=1
        )
        compact_index(out)
        index = open_index(out, saved(), memory_map=True)
        hits = index.search(queries, 490, nprobe=12)
        assert sorted(index.ids(hits.rows)[0]) == sorted(IDS[10:])
        assert index.manifest.frame is not None


def test_damage_is_not_written_on(halves: Path, saved: Callable[..., Path], tmp_path: Path) -> None:
    source, vectors = halves / "second-codes", halves / "second"
    out = started(halves, saved(), tmp_path / "index", "codes", "IVF12", "int8")
    delete_from_index(out, ids=["id 3"])
    sound = {file: file.read_bytes() for file in out.iterdir() if file.suffix != ".json"}
    for file, data in sound.items():
        spoilt = bytearray(data)
        spoilt[len(data) // 2] ^= 1
        file.write_bytes(spoilt)
        for change in (
            lambda: compact_index(out),
            lambda: add_to_index(source, saved(), out, vectors=vectors, num_threads=1),
        ):
            with pytest.raises(FormatError):
                change()
        file.write_bytes(data)
    assert {file: file.read_bytes() for file in out.iterdir() if file in sound} == sound
    assert len(list(out.iterdir())) == len(sound) + 1


def test_rows_of_another_kind(
    halves: Path, saved: Callable[..., Path], base: np.ndarray, tmp_path: Path
) -> None:
    out = started(halves, saved(), tmp_path / "index", "codes", "Flat", "int8")
    before = {file.name: file.read_bytes() for file in out.iterdir()}
    vectors = halves / "second"

    def refused(error: type[Exception], message: str, source: Path, **options: Any) -> None:
        with pytest.raises(error, match=message):
            add_to_index(source, saved(), out, **{"vectors": vectors, **options})
        assert {file.name: file.read_bytes() for file in out.iterdir()} == before

    refused(MismatchError, "the index holds codes, .* latents", halves / "second-latents")
    refused(UsageError, "has a rerank tier", halves / "second-codes", vectors=None)
    refused(
        MismatchError, "has 300 rows, .* has 200", halves / "second-codes", vectors=halves / "first"
    )
    refused(InputError, "compress them first", halves / "second")
    for number, (ids, metadata, message) in enumerate(
        (
            (list(range(20)), {}, "has ids of type string, not int64"),
            (IDS[300:320], {"year": ["old"] * 20}, "do not fit the index's columns"),
        )
    ):
        write_embeddings(tmp_path / f"x{number}", curved(20), ids=ids, metadata=metadata)
        compress(tmp_path / f"x{number}", saved(), tmp_path / f"codes{number}")
        x = tmp_path / f"x{number}"
        refused(MismatchError, message, tmp_path / f"codes{number}", vectors=x)
    with pytest.raises(MismatchError, match="another compressor"):
        add_to_index(halves / "second-codes", saved(groups=1), out, vectors=vectors)
    with pytest.raises(UsageError, match="no index folder"):
        add_to_index(halves / "second-codes", saved(), tmp_path / "nothing", vectors=vectors)
    assert not (tmp_path / "nothing").exists()


def test_what_to_delete_must_be_said(
    built: Callable[..., Path], tmp_path: Path, saved: Any
) -> None:
    with pytest.raises(UsageError, match="say what to delete"):
        delete_from_index(built())
    with pytest.raises(UsageError, match="names 'colour'"):
        delete_from_index(built(), filter="colour == 1")
    assert delete_from_index(built(), ids=[]).deleted == 0
    write_embeddings(tmp_path / "x", curved(20))
    compress(tmp_path / "x", saved(), tmp_path / "codes")
    build_index(tmp_path / "codes", saved(), tmp_path / "index")
    assert delete_from_index(tmp_path / "index", ids=["3", 4, "99"]).deleted == 2
    with pytest.raises(UsageError, match="whole numbers as ids"):
        delete_from_index(tmp_path / "index", ids=["three"])


def test_one_change_at_a_time(built: Callable[..., Path], tmp_path: Path) -> None:
    from embedpress.index.folder import changing

    out = Path(shutil.copytree(built(), tmp_path / "index"))
    with changing(out), pytest.raises(StorageError, match="another process is writing"):
        delete_from_index(out, ids=["id 3"])
    assert delete_from_index(out, ids=["id 3"]).deleted == 1
