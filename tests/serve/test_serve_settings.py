from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from embedpress.errors import UsageError
from embedpress.serve.settings import Settings, read_api_key


def make(**options: Any) -> Settings:
    return Settings(index="index", model="model", **options)


def test_they_travel_as_json() -> None:
    settings = make(port=0, workers=3, allowed_hosts=("a", "b"), max_wait=0.5)
    assert Settings.from_json(settings.to_json()) == settings


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"workers": 0}, "workers=0"),
        ({"port": 70_000}, "port 70000"),
        ({"max_queue": 10}, "could never be accepted"),
        ({"max_wait": -1}, "max_wait"),
        ({"max_wait": float("nan")}, "max_wait"),
        ({"max_batch": 0}, "max_batch"),
        ({"num_threads": 0}, "num_threads"),
        ({"map": "/nowhere"}, "no folder at /nowhere"),
        ({"image_root": "/nowhere"}, "no folder at /nowhere"),
    ],
)
def test_options_that_cannot_be(options: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        make(**options)


@pytest.mark.parametrize(
    ("host", "loopback"),
    [("127.0.0.1", True), ("::1", True), ("localhost", True), ("0.0.0.0", False), ("x", False)],
)
def test_what_only_this_machine_can_reach(host: str, loopback: bool) -> None:
    assert make(host=host).is_loopback is loopback


def test_workers_share_the_threads() -> None:
    assert make(num_threads=3).threads == 3
    assert make(workers=1000).threads == 1


def test_a_key_of_a_file_or_of_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("EMBEDPRESS_API_KEY", raising=False)
    assert read_api_key() is None
    monkeypatch.setenv("EMBEDPRESS_API_KEY", "of-the-environment")
    assert read_api_key() == "of-the-environment"
    file = tmp_path / "key"
    file.write_text("of-a-file\n")
    assert read_api_key(file) == "of-a-file"


@pytest.mark.parametrize("content", [b"", b" \n", b"two words", b"\xff", b"x" * 5000])
def test_a_key_that_is_none(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "key"
    file.write_bytes(content)
    with pytest.raises(UsageError, match="key"):
        read_api_key(file)
    with pytest.raises(UsageError, match="cannot be read"):
        read_api_key(tmp_path / "nothing")
