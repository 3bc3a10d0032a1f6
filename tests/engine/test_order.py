"""What must be on the disk before what, so that a power cut loses nothing either."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest
from small_job import make_job

from embedpress.engine import run_job


def test_synced_then_renamed_then_noted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    events: list[str] = []
    replace = os.replace

    def fsync(descriptor: int) -> None:
        path = Path(f"/proc/self/fd/{descriptor}").readlink()
        folder = stat.S_ISDIR(os.fstat(descriptor).st_mode)
        name = "folder" if folder else path.name.removeprefix(".").removesuffix(".tmp")
        events.append(f"sync {name.split('.')[0]}")

    def rename(source: str | Path, target: str | Path) -> None:
        events.append(f"rename {Path(target).stem}")
        replace(source, target)

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(os, "replace", rename)
    run_job(make_job(tmp_path, shards=2))

    def put(name: str) -> list[str]:
        return [f"sync {name}", f"rename {name}", "sync folder"]

    assert events == [
        *put("journal"),
        *put("part-00000"),
        "sync journal",
        *put("part-00001"),
        "sync journal",
        *put("skipped"),
        *put("manifest"),
        "sync folder",
    ]
