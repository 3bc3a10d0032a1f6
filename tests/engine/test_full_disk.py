"""A disk that refuses is one clear line, and costs no more than the shard at hand."""

from __future__ import annotations

import errno
import os
import resource
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from small_job import content, in_child, make_job

from embedpress.engine import run_job
from embedpress.errors import StorageError


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    folder = tmp_path_factory.mktemp("whole")
    run_job(make_job(folder, shards=3))
    return content(folder)


def failing(function: Callable[..., Any], at: int, code: int) -> Callable[..., Any]:
    left = at

    def call(*args: Any, **kwargs: Any) -> Any:
        nonlocal left
        left -= 1
        if left < 0:
            raise OSError(code, os.strerror(code))
        return function(*args, **kwargs)

    return call


def refusal_of(out: Path) -> StorageError | None:
    try:
        run_job(make_job(out, shards=3))
    except StorageError as error:
        return error
    return None


@pytest.mark.parametrize(
    ("name", "code", "text"),
    [
        ("fsync", errno.ENOSPC, "the disk is full: free some space"),
        ("replace", errno.EDQUOT, "the disk quota is used up"),
        ("open", errno.EROFS, "the disk is read-only"),
    ],
)
def test_each_call_refused_once(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    whole: dict[str, bytes],
    name: str,
    code: int,
    text: str,
) -> None:
    refused = 0
    for at in range(60):
        out = tmp_path / str(at)
        out.mkdir()
        with monkeypatch.context() as patch:
            patch.setattr(os, name, failing(getattr(os, name), at, code))
            refusal = refusal_of(out)
        assert not list(out.glob(".*.tmp"))
        if refusal is not None:
            assert refusal.errno == code
            assert text in str(refusal)
            assert "\n" not in str(refusal)
            refused += 1
        run_job(make_job(out, shards=3))
        assert content(out) == whole
        if refusal is None:
            break
    assert refused >= 4


def test_finished_shards_are_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # The journal is renamed once, then each shard.
    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", failing(os.replace, 3, errno.ENOSPC))
        with pytest.raises(StorageError, match=r"disk is full.*\(2 finished shards are kept\)"):
            run_job(make_job(tmp_path))
    calls: list[int] = []
    run_job(make_job(tmp_path, calls=calls))
    assert calls == [2, 3]


@pytest.mark.parametrize(("limit", "refused"), [(100, "journal"), (900, "part"), (2100, "journal")])
def test_a_write_that_the_system_cuts_short(tmp_path: Path, limit: int, refused: str) -> None:
    out = tmp_path / "out"

    def limited() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

    def run() -> None:
        text = rf"{refused}.* larger than this disk or account allows"
        with pytest.raises(StorageError, match=text):
            run_job(make_job(out, shards=12))

    assert in_child(run, limited) == 0
    assert not list(out.glob(".*.tmp"))
    run_job(make_job(out, shards=12))
    run_job(make_job(tmp_path / "whole", shards=12))
    assert content(out) == content(tmp_path / "whole")
