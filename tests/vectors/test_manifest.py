from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from embedpress.errors import EmbedpressError, FormatError, UsageError
from embedpress.vectors import Manifest, Shard, read_manifest, write_manifest

SHARD = Shard("part-00000.parquet", 3, 100, "ab" * 32)
MANIFEST = Manifest(
    "codes",
    32,
    count=3,
    dtype="uint8",
    metric="ip",
    model="é/x",
    config={"a": {"b": [1, 2.5, None]}},
    shards=(SHARD,),
    counters={"truncated": 3},
    fingerprint="0f" * 32,
)

JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=3,
)


def test_round_trip(tmp_path: Path) -> None:
    assert Manifest.from_json(MANIFEST.to_json()) == MANIFEST
    write_manifest(tmp_path, MANIFEST)
    assert read_manifest(tmp_path) == MANIFEST
    assert [p.name for p in tmp_path.iterdir()] == ["manifest.json"]


@given(st.dictionaries(st.text(max_size=5), JSON, max_size=3))
@settings(max_examples=40)
def test_any_json_configuration_comes_back(config: dict[str, Any]) -> None:
    manifest = Manifest("latents", 8, config=config)
    again = Manifest.from_json(manifest.to_json())
    assert again == manifest
    assert again.to_json() == manifest.to_json()


def test_the_text_does_not_depend_on_the_order_of_the_configuration() -> None:
    one = Manifest("latents", 8, config={"a": 1, "b": 2})
    two = Manifest("latents", 8, config={"b": 2, "a": 1})
    assert one.to_json() == two.to_json()


def broken(**changes: Any) -> str:
    return json.dumps({**json.loads(MANIFEST.to_json()), **changes})


def shards(**changes: Any) -> list[dict[str, Any]]:
    return [{"name": SHARD.name, "rows": 3, "bytes": 100, "sha256": SHARD.sha256, **changes}]


@pytest.mark.parametrize(
    "changes",
    [
        {"format_version": 2},
        {"format_version": True},
        {"format_version": "1"},
        {"kind": "index"},
        {"kind": ["codes"]},
        {"dim": 0},
        {"dim": -1},
        {"dim": 2**40},
        {"dim": 32.0},
        {"dim": True},
        {"dim": "32"},
        {"dim": None},
        {"count": 4},
        {"count": -3},
        {"dtype": "float32"},
        {"metric": "euclid"},
        {"metric": {}},
        {"normalized": 1},
        {"model": 5},
        {"config": []},
        {"counters": {"a": -1}},
        {"counters": {"a": 1.5}},
        {"counters": []},
        {"fingerprint": "xyz"},
        {"fingerprint": None},
        {"more": 1},
        {"shards": {}},
        {"shards": [5]},
        {"shards": [*shards(), *shards()], "count": 6},
        {"shards": shards(rows=-1), "count": -1},
        {"shards": shards(rows=True), "count": 1},
        {"shards": shards(bytes="100")},
        {"shards": shards(sha256="AB" * 32)},
        {"shards": shards(more=1)},
    ],
)
def test_a_manifest_is_checked_field_by_field(changes: dict[str, Any]) -> None:
    with pytest.raises(FormatError, match="manifest"):
        Manifest.from_json(broken(**changes))


@pytest.mark.parametrize(
    "name",
    [
        "../part-00000.parquet",
        "/etc/passwd",
        "a/b.parquet",
        "a\\b.parquet",
        "..parquet",
        ".parquet",
        ".hidden.parquet",
        "c:x.parquet",
        "part.npy",
        "part\n.parquet",
        "part.parquet\n",
        "part\0.parquet",
        "é.parquet",
        "",
        7,
        None,
        "a" * 200 + ".parquet",
    ],
)
def test_shard_names_are_plain(name: Any) -> None:
    with pytest.raises(FormatError):
        Manifest.from_json(broken(shards=shards(name=name)))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "null",
        "NaN",
        "[" * 100_000,
        '{"format_version": 1}',
        b"\xff\xfe{",
        '{"a": ' + "9" * 5000 + "}",
        broken(config={"a": 1}).replace('"a": 1', '"a": NaN'),
    ],
)
def test_what_is_no_manifest_is_refused(text: str | bytes) -> None:
    with pytest.raises(FormatError, match="manifest") as caught:
        Manifest.from_json(text)
    assert "\n" not in str(caught.value)


@given(JSON)
@settings(max_examples=50)
def test_any_json_is_answered(value: Any) -> None:
    with pytest.raises(EmbedpressError):
        Manifest.from_json(json.dumps(value))


@given(st.sampled_from(sorted(json.loads(MANIFEST.to_json()))), JSON)
@settings(max_examples=100)
def test_any_value_of_a_field_is_kept_or_refused(name: str, value: Any) -> None:
    text = broken(**{name: value})
    try:
        manifest = Manifest.from_json(text)
    except FormatError:
        return
    assert json.loads(manifest.to_json()) == json.loads(text)


@pytest.mark.parametrize(
    "manifest",
    [
        Manifest("latents", 8, config={"a": Path("x")}),
        Manifest("latents", 8, config={"a": float("nan")}),
        Manifest("latents", 0),
        Manifest("codes", 8),
        Manifest("latents", 8, metric="angle"),
        Manifest("latents", 8, count=1),
    ],
)
def test_a_wrong_manifest_is_not_written(manifest: Manifest, tmp_path: Path) -> None:
    with pytest.raises(UsageError):
        write_manifest(tmp_path, manifest)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_without_manifest_is_a_usage_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"no manifest\.json"):
        read_manifest(tmp_path)
