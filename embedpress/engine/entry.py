"""Finished shards, as the journals of a folder note them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from embedpress.engine.journal import Journal
from embedpress.engine.share import Share
from embedpress.vectors.files import storage_errors
from embedpress.vectors.manifest import Shard, is_journal, parse_shard
from embedpress.vectors.shard import shard_name


@dataclass(frozen=True)
class Entry:
    """A finished shard."""

    index: int
    shard: Shard
    skipped: tuple[Mapping[str, Any], ...]
    counters: Mapping[str, int]


def journal_of(folder: Path, share: Share) -> Journal[Entry]:
    """Return the journal that a share writes."""
    return Journal(folder / f"journal{share.suffix}.jsonl", _entry)


def journals_in(folder: Path) -> list[Journal[Entry]]:
    """Return the journals of a folder, whoever wrote them."""
    with storage_errors(folder, "read"):
        paths = sorted(path for path in folder.iterdir() if is_journal(path.name))
    return [Journal(path, _entry) for path in paths]


def _entry(values: dict[str, Any]) -> Entry | None:
    if set(values) != {"index", "shard", "skipped", "counters"}:
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
