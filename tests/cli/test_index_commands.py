"""The commands that build, change and ask an index."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from commands import Cli
from samples import curved, write_embeddings

from embedpress.onnx.compress import compress


@pytest.fixture
def home(saved: Callable[..., Path], tmp_path: Path) -> Path:
    """Codes of 60 vectors and of 20 more, and an index of the former."""
    x = curved(80)
    years = list(range(1960, 2040))
    for name, cut in (("first", slice(0, 60)), ("more", slice(50, 80))):
        write_embeddings(
            tmp_path / f"{name}-x", x[cut], ids=list(range(80))[cut], metadata={"year": years[cut]}
        )
        compress(tmp_path / f"{name}-x", saved(), tmp_path / name)
    np.save(tmp_path / "asked.npy", x[:2])
    return tmp_path


def test_an_index_through_its_life(cli: Cli, saved: Callable[..., Path], home: Path) -> None:
    index, model = home / "index", saved()

    def run(*arguments: object) -> dict[str, object]:
        ended = cli(*arguments, "--json")
        assert ended.code == 0, ended.err
        return ended.json

    made = run("index", home / "first", "-m", model, "-o", index, "--factory", "IVF4")
    assert (made["count"], made["factory"], made["generation"]) == (60, "IVF4", 1)
    told = cli("index", home / "first", "-m", model, "-o", index)
    assert "60 codes, Flat, " in told.out
    assert "few enough to scan them all" in told.out

    ended = cli("index", home / "more", "-m", model, "-o", index, "--add")
    assert ended.code == 1
    assert "10 ids are already in the index, such as 50" in ended.err
    added = run("index", home / "more", "-m", model, "-o", index, "--add", "--existing", "skip")
    assert (added["added"], added["skipped"], added["count"]) == (20, 10, 80)

    (home / "ids.txt").write_text("5\n6\n99\n")
    gone = run("delete", index, "--ids", "3", "--ids", "4", "--ids-file", home / "ids.txt")
    assert (gone["deleted"], gone["not_found"], gone["count"]) == (4, 1, 76)
    gone = run("delete", index, "--filter", "year >= 2030")
    assert (gone["deleted"], gone["deleted_rows"], gone["count"]) == (10, 14, 66)
    told = cli("delete", index, "--filter", "year >= 2030")
    assert "nothing to do" in told.out
    assert "14 deleted rows still lie in it" in told.out

    info = run("info", index)
    assert (info["kind"], info["count"], info["bad_files"]) == ("index", 66, [])
    done = run("compact", index)
    assert (done["deleted"], done["deleted_rows"], done["count"]) == (14, 0, 66)

    asked = home / "asked.npy"
    hits = run("search", index, "-m", model, "--vectors", asked, "-k", "66")["hits"]
    assert isinstance(hits, list)
    assert sorted(hit["id"] for hit in hits[0]) == [i for i in range(70) if i not in (3, 4, 5, 6)]
    radius = hits[0][4]["score"]
    near = run("search", index, "-m", model, "--vectors", asked, "--radius", radius)
    assert near["radius"] == radius
    assert isinstance(near["hits"], list)
    assert [hit["score"] for hit in near["hits"][0]] == [
        hit["score"] for hit in hits[0] if hit["score"] > radius
    ]
    ended = cli(
        "search", index, "-m", model, "--vectors", asked, "--radius", radius, "--oversample", "3"
    )
    assert (ended.code, "leave it out where --radius" in ended.err) == (2, True)


def test_what_cannot_be_done_is_said(cli: Cli, saved: Callable[..., Path], home: Path) -> None:
    index = home / "index"
    assert cli("index", home / "first", "-m", saved(), "-o", index).code == 0
    for arguments, code, message in (
        (("delete", index), 2, "say what to delete"),
        (("delete", index, "--ids", "three"), 2, "whole numbers as ids"),
        (("delete", index, "--ids-file", home / "none"), 2, "cannot be read"),
        (("delete", index, "--filter", "colour"), 2, "names 'colour'"),
        (("delete", home / "nothing", "--ids", "1"), 2, "no index folder"),
        (("compact", home / "first"), 1, "does not describe an index"),
        (("index", home / "more", "-m", saved(), "-o", home / "no", "--add"), 2, "no index"),
    ):
        ended = cli(*arguments)
        assert (ended.code, message in ended.err) == (code, True), ended.err
        assert ended.err.count("\n") == 1


def test_a_pushed_index_is_searched_where_it_is(
    cli: Cli, saved: Callable[..., Path], home: Path
) -> None:
    index, model, asked = home / "index", saved(), home / "asked.npy"
    assert cli("index", home / "first", "-m", model, "-o", index).code == 0
    told = cli("push", index, "-m", model, "--to", f"csv:{home / 'items.csv'}")
    assert told.code == 0
    assert "60 vectors of 32 floats" in told.out
    assert 'CREATE TABLE embedpress ("id" bigint PRIMARY KEY, "vector" vector(32)' in told.out
    ended = cli("search", home / "items.db", "-m", model, "--vectors", asked)
    assert (ended.code, "push an index to it first" in ended.err) == (2, True)
    pytest.importorskip("milvus_lite")
    pushed = cli("push", index, "-m", model, "--to", home / "items.db", "--json")
    assert (pushed.json["rows"], pushed.json["written"]) == (60, 60)
    here = cli("search", index, "-m", model, "--vectors", asked, "--json").json["hits"]
    options = ("--vectors", asked, "-m", model, "--json")
    there = cli("search", home / "items.db", *options).json["hits"]
    for ours, theirs in zip(here, there, strict=True):
        scores = [hit["score"] for hit in theirs]
        assert scores == pytest.approx([hit["score"] for hit in ours], abs=1e-4)
    some = cli("search", home / "items.db", *options, "--filter", "year < 1970").json["hits"]
    assert {hit["id"] for hit in some[0]} == set(range(10))
    for refused in (("--radius", "0.5"), ("--nprobe", "2"), ("--oversample", "3"), ("--rerank",)):
        ended = cli("search", home / "items.db", *options, *refused)
        assert (ended.code, "leave --radius" in ended.err) == (2, True)
