"""JSON files and messages: whatever a file holds, one line comes out."""

from __future__ import annotations

import json
import os
import pickle
from pathlib import Path
from typing import Any

import pytest
from child import answer
from hypothesis import example, given
from hypothesis import strategies as st

from embedpress import console
from embedpress.errors import EmbedpressError, FormatError, InputError, StorageError
from embedpress.info import describe
from embedpress.vectors.document import parse_json, read_json
from embedpress.vectors.files import write_atomic

DEEP = "[" * 101 + "]" * 101
TEXTS = [
    "",
    "nul",
    "{",
    "[NaN]",
    "[Infinity]",
    "[-Infinity]",
    "[1e999]",
    '["\\ud800"]',
    '{"\\udfff": 1}',
    DEEP,
    "[" * 100_000,
    "9" * 5000,
    "\ufeff[]",
    '["\x00"]',
]


@pytest.mark.parametrize("text", TEXTS)
def test_what_is_no_json_that_can_be_written_again(tmp_path: Path, text: str) -> None:
    (tmp_path / "x.json").write_text(text)
    with pytest.raises(FormatError) as caught:
        read_json(tmp_path / "x.json")
    assert str(caught.value).isprintable()


@given(st.text() | st.binary())
@example("\\ud800")
@example(b"\xff\xfe[\x00]\x00")
def test_any_text_is_json_or_an_error(content: str | bytes) -> None:
    try:
        value = parse_json(content)
    except ValueError:
        return
    assert parse_json(json.dumps(value, allow_nan=False)) == value


@given(st.recursive(st.none() | st.booleans() | st.integers() | st.text(), st.lists))
def test_json_comes_back(value: Any) -> None:
    assert parse_json(json.dumps(value)) == value


def test_pipes_devices_folders_and_large_files(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "zero").symlink_to("/dev/zero")
    (tmp_path / "large").write_bytes(b" " * 1001)
    (tmp_path / "config.json").symlink_to("/dev/zero")
    for name, said in (("pipe", "not a file"), ("zero", "not a file"), (".", "not a file")):
        with pytest.raises(FormatError, match=said):
            read_json(tmp_path / name)
    with pytest.raises(FormatError, match="larger than 1000 bytes"):
        read_json(tmp_path / "large", 1000)
    found = answer("from embedpress import load\nload(folder)", tmp_path)
    assert found.said.startswith("FormatError")
    assert found.peak < 400


def test_figures_that_are_nested_too_deeply(saved: Any, tmp_path: Path) -> None:
    for file in saved().iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    write_atomic(tmp_path / "metrics.json", "[" * 100_000)
    assert describe(tmp_path)["held_out_recall@10"] is None


@given(st.text(min_size=1))
@example("a\nb\x1b[31mc\udcff\u202e\x9b")
def test_every_message_is_one_line_that_a_terminal_does_not_obey(text: str) -> None:
    for kind in (EmbedpressError, InputError, FormatError, StorageError):
        error = kind(f"{text}: no")
        assert str(error).isprintable()
        assert str(pickle.loads(pickle.dumps(error))) == str(error)  # of our own making
    assert len(str(FormatError(text * 3000))) < 2100


def test_what_is_shown_is_plain(capsys: pytest.CaptureFixture[str]) -> None:
    import datetime

    hostile = {"n": float("nan"), "day": datetime.date(2020, 1, 2), "b": b"\xff", "s": "\udcff"}
    console.show(hostile, as_json=True, text="")
    out = capsys.readouterr().out
    assert json.loads(out) == {"n": None, "day": "2020-01-02", "b": "/w==", "s": "\udcff"}
    console.show({}, as_json=False, text="two\nlines \x1b]0;title\x07 \x9b31m")
    assert capsys.readouterr().out == "two\nlines \\x1b]0;title\\x07 \\x9b31m\n"


def test_running_out_of_memory_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    def command() -> None:
        raise MemoryError

    assert console.run(command) == 1
    assert capsys.readouterr().err == "embedpress: the memory ran out\n"
