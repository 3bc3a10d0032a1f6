"""The manifest: what a folder of shards says about itself."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from embedpress.errors import FormatError, InputError, UsageError
from embedpress.vectors.check import METRICS
from embedpress.vectors.document import parse_json
from embedpress.vectors.files import check_own, storage_errors, write_atomic

FORMAT_VERSION = 1
MANIFEST = "manifest.json"
KINDS = {"embeddings": "float32", "latents": "float32", "codes": "uint8"}
MAX_DIM = 2**20
_MAX_BYTES = 2**28
_MAX_COUNT = 2**53
_JOURNAL = re.compile(r"journal(-[0-9]+-of-[0-9]+)?\.jsonl", re.ASCII)
_SHARD_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,100}\.parquet", re.ASCII)
_DIGEST = re.compile(r"[0-9a-f]{64}", re.ASCII)


@dataclass(frozen=True)
class Shard:
    """One Parquet file of a folder: plain file name, rows, size in bytes, SHA-256."""

    name: str
    rows: int
    bytes: int
    sha256: str


@dataclass(frozen=True)
class Manifest:
    """What is in a folder of embeddings, latents or codes, and how it came to be.

    Parameters
    ----------
    kind
        "embeddings", "latents" or "codes".
    dim
        Floats a row; for codes, bytes a row.
    count
        Rows of all shards together.
    dtype
        "float32", or "uint8" for codes.
    metric
        "cosine", "ip" or "l2".
    normalized
        Whether every vector has length 1.
    model, revision, pooling
        Where the vectors come from, where that is known.
    config
        The resolved options of the job that wrote the folder; JSON values only.
    shards
        The files, in the order of their rows.
    counters
        Things worth counting, such as ``{"skipped": 1}``.
    fingerprint
        Identity of the job: options and inputs (64 hexadecimal digits, or empty).
    format_version
        Version of this layout.
    """

    kind: str
    dim: int
    count: int = 0
    dtype: str = "float32"
    metric: str = "cosine"
    normalized: bool = False
    model: str | None = None
    revision: str | None = None
    pooling: str | None = None
    config: Mapping[str, Any] = field(default_factory=dict)
    shards: tuple[Shard, ...] = ()
    counters: Mapping[str, int] = field(default_factory=dict)
    fingerprint: str = ""
    format_version: int = FORMAT_VERSION

    def to_json(self) -> str:
        """Return the manifest as JSON text: the same manifest always gives the same text.

        Raises
        ------
        UsageError
            If a field holds what its place does not allow, or `config` what JSON cannot hold.
        """
        data = {f.name: getattr(self, f.name) for f in fields(self)}
        data["config"], data["counters"] = dict(self.config), dict(self.counters)
        data["shards"] = [asdict(shard) for shard in self.shards]
        try:
            text = json.dumps(data, indent=1, sort_keys=True, ensure_ascii=True, allow_nan=False)
        except (TypeError, ValueError, RecursionError) as error:
            raise UsageError(f"the configuration of a job must be JSON values: {error}") from None
        try:
            Manifest.from_json(text)
        except InputError as error:
            raise UsageError(str(error)) from None
        return text + "\n"

    @staticmethod
    def from_json(text: str | bytes) -> Manifest:
        """Read a manifest from JSON text that nobody vouches for.

        Raises
        ------
        FormatError
            If it is not JSON, of another version, or a field is missing, unknown, of the wrong
            type or out of range.
        """
        try:
            data = parse_json(text)
        except ValueError as error:
            raise FormatError(f"the manifest is not valid JSON: {error}") from None
        _require(isinstance(data, dict), "is not a JSON object")
        version = data.get("format_version")
        _require(_is_int(version, 1), "has no format_version: is this a folder of vectors?")
        _require(
            version == FORMAT_VERSION,
            f"has format version {version}, this embedpress reads {FORMAT_VERSION}: update it",
        )
        _require(data.get("kind") in list(KINDS), f"has a kind other than {', '.join(KINDS)}")
        names = {f.name for f in fields(Manifest)}
        odd = ", ".join(sorted(set(data) ^ names))[:200]
        _require(set(data) == names, f"lacks or adds fields: {odd}")
        _check_fields(data)
        shards = tuple(_shard(entry) for entry in data.pop("shards"))
        _require(len({s.name for s in shards}) == len(shards), "names a shard twice")
        _require(sum(s.rows for s in shards) == data["count"], "has a count other than its shards'")
        return Manifest(shards=shards, **data)


def read_manifest(folder: str | os.PathLike[str]) -> Manifest:
    """Read and check the manifest of a folder.

    Raises
    ------
    UsageError
        If there is no such folder, or no manifest in it.
    FormatError
        If the manifest is not a valid one.
    """
    path = Path(folder) / MANIFEST
    if not path.is_file():
        raise UsageError(f"{os.fspath(folder)} holds no {MANIFEST}: is this a folder of vectors?")
    with storage_errors(path, "read"):
        if path.stat().st_size > _MAX_BYTES:
            raise FormatError(f"{path}: the manifest is larger than {_MAX_BYTES} bytes")
        content = path.read_bytes()
    try:
        return Manifest.from_json(content)
    except FormatError as error:
        raise FormatError(f"{path}: {error}") from None


def write_manifest(folder: str | os.PathLike[str], manifest: Manifest) -> None:
    """Write the manifest of a folder, whole or not at all."""
    write_atomic(Path(folder) / MANIFEST, manifest.to_json())


def is_journal(name: str) -> bool:
    """Say whether a file of this name tells of a job that was begun and is not finished."""
    return _JOURNAL.fullmatch(name) is not None


def shard_path(folder: str | os.PathLike[str], shard: Shard) -> Path:
    """Return where a shard lies, after looking that it is a file of that folder itself.

    Raises
    ------
    FormatError
        If it is missing, not a file, or a link that leads out of the folder.
    """
    home = Path(folder).resolve()
    path = home / shard.name
    with storage_errors(path, "read"):
        if not path.is_file():
            raise FormatError(f"{path} is missing: run the job again to have it redone")
        check_own(path)
    return path


def _check_fields(data: dict[str, Any]) -> None:
    _require(_is_int(data["dim"], 1, MAX_DIM), f"has a dim that is not in 1..{MAX_DIM}")
    _require(_is_int(data["count"], 0, _MAX_COUNT), "has a count that is not a row count")
    _require(data["dtype"] == KINDS[data["kind"]], f"has a wrong dtype for {data['kind']}")
    _require(data["metric"] in list(METRICS), f"has a metric other than {', '.join(METRICS)}")
    _require(isinstance(data["normalized"], bool), "has a normalized that is not true or false")
    for name in ("model", "revision", "pooling"):
        _require(data[name] is None or isinstance(data[name], str), f"has a {name} that is no text")
    _require(isinstance(data["config"], dict), "has a config that is not an object")
    _require(isinstance(data["shards"], list), "has shards that are not a list")
    counters = data["counters"]
    _require(
        isinstance(counters, dict) and all(_is_int(n, 0, _MAX_COUNT) for n in counters.values()),
        "has counters that are not counts",
    )
    stamp = data["fingerprint"]
    _require(stamp == "" or _is_digest(stamp), "has a fingerprint that is not 64 hex digits")


def _shard(entry: Any) -> Shard:
    names = {f.name for f in fields(Shard)}
    _require(isinstance(entry, dict) and set(entry) == names, "has a malformed shard")
    name = entry["name"]
    plain = isinstance(name, str) and _SHARD_NAME.fullmatch(name) is not None
    _require(plain, f"names a shard {str(name)[:80]!r}, which is not a plain .parquet file name")
    _require(
        _is_int(entry["rows"], 0, _MAX_COUNT)
        and _is_int(entry["bytes"], 0, 2**62)
        and _is_digest(entry["sha256"]),
        f"has a malformed shard {name}",
    )
    return Shard(**entry)


def parse_shard(entry: Any) -> Shard | None:
    """Read a shard from JSON values; None when they are not a valid one."""
    try:
        return _shard(entry)
    except FormatError:
        return None


def _is_int(value: Any, low: int, high: int = _MAX_COUNT) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and low <= value <= high


def _is_digest(value: Any) -> bool:
    return isinstance(value, str) and _DIGEST.fullmatch(value) is not None


def _require(held: bool, text: str) -> None:
    if not held:
        raise FormatError(f"the manifest {text}")
