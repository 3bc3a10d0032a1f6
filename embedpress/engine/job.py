"""What a job is: numbered chunks of input, and pure work that makes a shard of each."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa

from embedpress.errors import UsageError
from embedpress.vectors.manifest import Manifest


@dataclass(frozen=True)
class Piece:
    """What the work makes of one block: some rows of a shard.

    Parameters
    ----------
    table
        Columns "id", "vector" or "code", then metadata, as
        :func:`embedpress.vectors.shard_table` makes it; it may have no rows.
    skipped
        One JSON object for each input row that was left out, in order.
    counters
        Counts to add up over the whole job.
    """

    table: pa.Table
    skipped: Sequence[Mapping[str, Any]] = ()
    counters: Mapping[str, int] = field(default_factory=dict)


def _alone(payload: Any) -> Iterator[Any]:
    yield payload


@dataclass(frozen=True)
class Job:
    """A job that fills a folder with shards, and can be stopped and resumed at any time.

    Parameters
    ----------
    out
        The folder to fill.
    header
        The manifest to be, without `count` and `shards`; its `config` holds every option that
        changes the results, and none that does not.
    inputs_fingerprint
        Text that is another when the inputs are.
    chunks
        Called with the numbers of the shards that are done; yields (number, payload) for all
        others, in rising order. The numbers count from 0 without gaps.
    work
        Makes a :class:`Piece` of a block; the same block always gives the same piece.
    read
        Yields the blocks of a payload; the payload itself by default. It runs ahead of the
        work, in another thread.
    shards
        How many there are; needed for a share of the job.
    workers
        Threads that work on blocks at once; with more than one, `work` must allow it. On a
        cluster each shard has one.
    cpus, gpus
        What `work` takes of a node of a cluster.
    watch
        Called with what each piece skipped, in this process; what it raises ends the job.

    Notes
    -----
    A shard is made of the pieces of one payload. On a cluster `read` and `work` are pickled and
    run on other machines: then they must be functions of a module or instances of its classes.
    """

    out: Path
    header: Manifest
    inputs_fingerprint: str
    chunks: Callable[[frozenset[int]], Iterator[tuple[int, Any]]]
    work: Callable[[Any], Piece]
    read: Callable[[Any], Iterator[Any]] = _alone
    shards: int | None = None
    workers: int = 1
    cpus: int = 1
    gpus: int = 0
    watch: Callable[[Sequence[Mapping[str, Any]]], None] | None = None


def identity(header: Manifest) -> dict[str, Any]:
    """Return what decides over the results of a job besides its inputs, as JSON values."""
    names = ("kind", "dim", "dtype", "metric", "normalized", "model", "revision", "pooling")
    found = {name: getattr(header, name) for name in names}
    try:
        text = json.dumps({**found, "config": dict(header.config)}, sort_keys=True, allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        raise UsageError(f"the configuration of a job must be JSON values: {error}") from None
    values: dict[str, Any] = json.loads(text)
    return values


def fingerprint(header: Manifest, inputs_fingerprint: str) -> str:
    """Return the SHA-256 that tells jobs apart: by their options and by their inputs."""
    values = {**identity(header), "inputs": inputs_fingerprint}
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()


def differences(old: Mapping[str, Any], new: Mapping[str, Any], prefix: str = "") -> list[str]:
    """Name what differs between two identities, as ``option was 1, now 2``."""
    found = []
    for name in sorted({*old, *new}):
        before, after = old.get(name), new.get(name)
        if isinstance(before, Mapping) and isinstance(after, Mapping):
            found += differences(before, after, "" if name == "config" else f"{prefix}{name}.")
        elif name not in old or name not in new or before != after:
            found.append(f"{prefix}{name} was {_shown(old, name)}, now {_shown(new, name)}")
    return found


def _shown(values: Mapping[str, Any], name: str) -> str:
    return repr(values[name])[:80] if name in values else "not set"
