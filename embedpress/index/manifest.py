"""The manifest of an index folder: what it holds, and in which files."""

from __future__ import annotations

import re
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from embedpress.errors import FormatError, MismatchError
from embedpress.index.unfinished import UNFINISHED
from embedpress.vectors.document import read_document
from embedpress.vectors.files import sha256_of

MANIFEST = "manifest.json"
FORMAT_VERSION = 3
READABLE = (1, 2, 3)
"""Versions that are opened; a change writes the newest one."""

STEMS = {
    "index": ("index", ".faiss"),
    "ids": ("ids", ".parquet"),
    "rerank": ("rerank", ".npy"),
    "rerank_scales": ("rerank_scales", ".npy"),
    "deleted": ("deleted", ".npy"),
}
"""The files of an index by their part in it."""

FILE_NAME = re.compile(r"(index|ids|rerank|rerank_scales|deleted)(\.[0-9]{1,12})?\.[a-z]{3,7}")


def file_name(role: str, generation: int) -> str:
    """The name of a file: plain in a new folder, numbered once the index has changed."""
    stem, suffix = STEMS[role]
    return f"{stem}{suffix}" if generation == 1 else f"{stem}.{generation}{suffix}"


@dataclass(frozen=True)
class Frame:
    """What of FAISS's file is not vectors: all that FAISS parses, a small part of it.

    `start` and `size` say where the vectors lie, in bytes; `sha256` is that of the rest.
    """

    start: int
    size: int
    sha256: str


@dataclass(frozen=True)
class IndexManifest:
    """What an index folder says of itself (manifest.json).

    Attributes
    ----------
    count : int
        Vectors that a search can find.
    deleted : int
        Rows that are marked as deleted and still lie in the files.
    generation : int
        Changes since the folder was new, counted from 1.
    choice : dict
        Why this factory and this nprobe, with estimates; empty where nothing was chosen.
    files : dict
        Names of the files by their part: "index", "ids", "rerank", "rerank_scales", "deleted".
    sha256 : dict
        Checksums by file name.
    frame : Frame or None
        None in folders of format version 1.
    job : str
        Fingerprint of the options and inputs that it was built of; empty once it was changed.
    """

    kind: str
    format_version: int
    generation: int
    what: str
    compressor: str
    metric: str
    dim: int
    count: int
    deleted: int
    factory: str
    nprobe: int
    choice: dict[str, Any]
    rerank: str
    rerank_dim: int
    bytes_per_vector: float
    extractor: dict[str, Any]
    files: dict[str, str]
    sha256: dict[str, str]
    frame: Frame | None
    job: str

    @property
    def rows(self) -> int:
        """Rows in the files, deleted ones too."""
        return self.count + self.deleted

    def check_compressor(self, folder: str | Path, model: str | Path, fingerprint: str) -> None:
        """Refuse the compressor at `model`, of a `fingerprint`, unless it made the index.

        Raises
        ------
        MismatchError
        """
        if self.compressor != fingerprint:
            raise MismatchError(
                f"the index at {folder} holds {self.what} of another compressor (fingerprint "
                f"{self.compressor[:12]}) than {model} ({fingerprint[:12]}): give the one that "
                "made them"
            )


_FIRST = {"generation": 1, "deleted": 0, "choice": {}, "frame": None}


def read_index_manifest(folder: Path) -> IndexManifest:
    """manifest.json of an index folder, checked.

    Raises
    ------
    UsageError
        No such folder.
    FormatError
        Not an index, or with fields that cannot be.
    """
    file = folder / MANIFEST
    if not file.exists() and (folder / UNFINISHED).is_dir():
        raise FormatError(f"{folder} is not finished: run the command that writes it once more")
    data = read_document(folder, MANIFEST, kind="index", version=READABLE)
    if data["format_version"] == 1:
        later = {**_FIRST, "files": _first_files(data.get("rerank"))}
        data |= later if not later.keys() & data.keys() else {"format_version": None, "": None}
    if data["format_version"] in (1, 2) and "job" not in data:
        data["job"] = ""
    if set(data) != {field.name for field in fields(IndexManifest)}:
        raise FormatError(f"{file} lacks or adds fields: build the index again")
    for name in ("extractor", "sha256", "choice", "files"):
        if not isinstance(data[name], dict):
            raise FormatError(f"{file}: {name} must be an object")
    sizes = ("dim", "count", "nprobe", "rerank_dim", "deleted", "generation")
    if any(type(data[name]) is not int or data[name] < 0 for name in sizes):
        raise FormatError(f"{file}: a size in it is not a whole number")
    known = {
        "what": ("codes", "latents"),
        "metric": ("cosine", "ip", "l2"),
        "rerank": ("none", "int8", "float16", "float32"),
    }
    for name, values in known.items():
        if data[name] not in values:
            raise FormatError(f"{file}: {name} is {data[name]!r}, not one of {', '.join(values)}")
    if type(data["bytes_per_vector"]) not in (int, float):
        raise FormatError(f"{file}: bytes_per_vector is not a number")
    texts = [data["compressor"], data["factory"], data["job"], *data["sha256"].values()]
    if not all(isinstance(text, str) for text in texts):
        raise FormatError(f"{file}: a field in it is not text")
    _check_files(file, data)
    return IndexManifest(**{**data, "frame": _frame(file, data["frame"])})


def bad_files(folder: Path, manifest: IndexManifest) -> list[str]:
    """Names of the files of an index that are missing or whose checksum is another.

    Raises
    ------
    FormatError
        The manifest names a file outside of the folder.
    """
    for name in manifest.sha256:
        if Path(name).name != name:
            raise FormatError(f"{folder}: its manifest names a file outside of it: {name}")
    return [
        name
        for name, digest in sorted(manifest.sha256.items())
        if not (folder / name).is_file() or sha256_of(folder / name) != digest
    ]


def summary(manifest: IndexManifest) -> list[str]:
    """What an index is, and why it was laid out so, in lines for a person."""
    choice = manifest.choice
    lines = [
        f"  {manifest.count:,} {manifest.what}, {manifest.factory}, "
        f"{manifest.bytes_per_vector:.1f} bytes a vector in FAISS's file"
    ]
    if manifest.deleted:
        lines.append(f"  {manifest.deleted:,} deleted rows still lie in it: compact it")
    if "why" in choice:
        lines.append(f"  {choice['why']}")
    if "agreement" in choice:
        lines.append(
            f"  nprobe {manifest.nprobe}: finds {choice['agreement']:.1%} of the first "
            f"{choice['depth']} hits of a scan of all, by {choice['queries']} queries"
        )
    if "estimated_query_ms" in choice:
        lines.append(
            f"  about {choice['estimated_query_ms']:.2g} ms a query on one thread"
            + (", opened memory-mapped" if choice.get("memory_map") else "")
        )
    return lines


def _first_files(rerank: object) -> dict[str, str]:
    roles = ["index", "ids"] + (["rerank", "rerank_scales"] if rerank != "none" else [])
    return {role: file_name(role, 1) for role in roles}


def _check_files(file: Path, data: dict[str, Any]) -> None:
    files = data["files"]
    needed = {"index", "ids"}
    needed |= {"rerank", "rerank_scales"} if data["rerank"] != "none" else set()
    needed |= {"deleted"} if data["deleted"] else set()
    if set(files) != needed:
        raise FormatError(f"{file} names other files than its fields need")
    for role, name in files.items():
        stem, suffix = STEMS[role]
        found = FILE_NAME.fullmatch(name) if isinstance(name, str) else None
        if not found or found[1] != stem or not name.endswith(suffix):
            raise FormatError(f"{file} names a file that is none of an index: {str(name)[:80]!r}")


def _frame(file: Path, data: object) -> Frame | None:
    if data is None:
        return None
    if isinstance(data, dict) and set(data) == {"start", "size", "sha256"}:
        whole = all(type(data[n]) is int and 0 <= data[n] < 2**62 for n in ("start", "size"))
        if whole and isinstance(data["sha256"], str):
            return Frame(**data)
    raise FormatError(f"{file}: frame does not say where the vectors lie")
