"""The journal of a running job: which shards are done, one synced line each."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from embedpress.engine.share import Share
from embedpress.errors import FormatError
from embedpress.vectors.document import parse_json
from embedpress.vectors.files import storage_errors, write_atomic
from embedpress.vectors.manifest import Shard, is_journal, parse_shard
from embedpress.vectors.shard import shard_name


@dataclass(frozen=True)
class Entry:
    """A finished shard."""

    index: int
    shard: Shard
    skipped: tuple[Mapping[str, Any], ...]
    counters: Mapping[str, int]


class Journal:
    """The journal of one folder, or of a share of its job.

    The first line says which job it is, each further one which shard is done. A line that does
    not parse, as a kill in the middle of writing leaves it, counts as never written.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    @staticmethod
    def of(folder: Path, share: Share) -> Journal:
        """Return the journal that a share writes."""
        return Journal(folder / f"journal{share.suffix}.jsonl")

    @staticmethod
    def all(folder: Path) -> list[Journal]:
        """Return the journals of a folder, whoever wrote them."""
        with storage_errors(folder, "read"):
            return [Journal(path) for path in sorted(folder.iterdir()) if is_journal(path.name)]

    def read(self) -> tuple[dict[str, Any], dict[int, Entry]]:
        """Return the header, and the entries by the number of their shard.

        Raises
        ------
        FormatError
            If the header is not one.
        """
        with storage_errors(self.path, "read"):
            lines = self.path.read_bytes().split(b"\n")
        header = _parse(lines[0])
        if header is None or not isinstance(header.get("identity"), dict):
            raise FormatError(f"{self.path} is corrupt: delete its folder and start again")
        entries = (_entry(_parse(line)) for line in lines[1:])
        return header, {entry.index: entry for entry in entries if entry is not None}

    def rewrite(self, header: Mapping[str, Any], entries: Mapping[int, Entry]) -> None:
        """Write header and entries anew, so that lines to come follow a whole one."""
        lines = [_line(header), *(_line(asdict(entries[i])) for i in sorted(entries))]
        write_atomic(self.path, "".join(lines))

    def append(self, entry: Entry) -> None:
        """Add one entry, and return when it is on the disk."""
        with storage_errors(self.path), self.path.open("ab") as file:
            file.write(_line(asdict(entry)).encode())
            file.flush()
            os.fsync(file.fileno())


def _line(values: Mapping[str, Any]) -> str:
    return json.dumps(values, sort_keys=True, allow_nan=False) + "\n"


def _parse(line: bytes) -> dict[str, Any] | None:
    try:
        values = parse_json(line)
    except ValueError:
        return None
    return values if isinstance(values, dict) else None


def _entry(values: dict[str, Any] | None) -> Entry | None:
    if values is None or set(values) != {"index", "shard", "skipped", "counters"}:
        return None
    shard = parse_shard(values["shard"])
    index, skipped, counters = values["index"], values["skipped"], values["counters"]
    whole = (
        shard is not None
        and isinstance(index, int)
        and index >= 0
        and shard.name == shard_name(index)
        and isinstance(skipped, list)
        and all(isinstance(one, dict) for one in skipped)
        and isinstance(counters, dict)
        and all(type(count) is int and count >= 0 for count in counters.values())
    )
    return Entry(index, shard, tuple(skipped), counters) if whole and shard is not None else None
