"""The folder of an index, and how it changes: the old index or the new one, never a part.

New files get names of their own; the manifest, replaced in one step, says which ones count; then
the old files are removed. A change that was killed leaves the old manifest with the files that it
names, and what else it left is removed by the next change.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from embedpress.engine.lock import folder_lock
from embedpress.errors import EmbedpressError, UsageError
from embedpress.index.manifest import (
    FILE_NAME,
    FORMAT_VERSION,
    MANIFEST,
    Frame,
    IndexManifest,
    file_name,
    read_index_manifest,
)
from embedpress.vectors import sha256_of, write_atomic
from embedpress.vectors.files import check_no_file, remove, storage_errors

PARTS = ".parts"
_LASTING = (
    "what",
    "compressor",
    "metric",
    "dim",
    "factory",
    "nprobe",
    "choice",
    "rerank",
    "rerank_dim",
    "extractor",
)


@dataclass
class Change:
    """One change of an index folder, by the only process that may make one now.

    Attributes
    ----------
    folder : Path
    old : IndexManifest or None
        The index that is there.
    files : dict
        Names of the files that the new index is made of, by their part: those of the old one
        that are kept are put here, those that are written come in by :meth:`path`.
    """

    folder: Path
    old: IndexManifest | None
    files: dict[str, str] = field(default_factory=dict)
    done: bool = False

    @property
    def generation(self) -> int:
        """The number of the index that this change makes."""
        return 1 if self.old is None else self.old.generation + 1

    def path(self, role: str) -> Path:
        """Where to write a file of the new index."""
        self.files[role] = file_name(role, self.generation)
        return self.folder / self.files[role]

    def keep(self, *roles: str) -> None:
        """Let the new index go on with files of the old one."""
        if self.old is not None:
            self.files |= {role: self.old.files[role] for role in roles if role in self.old.files}

    @contextmanager
    def parts(self) -> Iterator[Path]:
        """A folder for what is sorted in parts."""
        place = self.folder / PARTS
        with storage_errors(place):
            place.mkdir()
        try:
            yield place
        finally:
            shutil.rmtree(place, ignore_errors=True)

    def commit(
        self, *, rows: int, deleted: int, frame: Frame | None, **about: Any
    ) -> IndexManifest:
        """Make the new files the index: the manifest is replaced, then the old ones removed.

        Parameters
        ----------
        rows : int
            In the files.
        deleted : int
            Of these, marked as deleted.
        frame : Frame or None
        **about
            The other fields of :class:`IndexManifest`; those of the old index by default.
        """
        if not about and self.old is not None:
            about = {name: getattr(self.old, name) for name in _LASTING}
        known = {} if self.old is None else self.old.sha256
        kept = set() if self.old is None else set(self.old.files.values())
        sums = {
            name: known[name] if name in kept else sha256_of(self.folder / name)
            for name in self.files.values()
        }
        size = (self.folder / self.files["index"]).stat().st_size
        manifest = IndexManifest(
            kind="index",
            format_version=FORMAT_VERSION,
            generation=self.generation,
            count=rows - deleted,
            deleted=deleted,
            bytes_per_vector=round(size / max(rows, 1), 3),
            files=self.files,
            sha256=sums,
            frame=frame,
            **about,
        )
        document = json.dumps(asdict(manifest), indent=1, sort_keys=True) + "\n"
        write_atomic(self.folder / MANIFEST, document)
        self.done = True
        _remove_others(self.folder, set(self.files.values()))
        return manifest


@contextmanager
def changing(folder: Path, *, new: bool = False) -> Iterator[Change]:
    """Hold an index folder for one change.

    Parameters
    ----------
    folder : Path
    new : bool
        The folder may be missing, empty or spoilt.

    Raises
    ------
    UsageError
        There is no such index, or, with `new`, the folder holds something else.
    FormatError
        It is damaged, without `new`.
    StorageError
        Another process is changing it.
    """
    if new:
        check_free(folder)
        with storage_errors(folder):
            folder.mkdir(parents=True, exist_ok=True)
    else:
        read_index_manifest(folder)
    with folder_lock(folder):
        try:
            old = read_index_manifest(folder)
        except EmbedpressError:
            if not new:
                raise
            old = None
            # Without its manifest nothing of an index counts.
            remove(folder / MANIFEST)
        _remove_others(folder, set() if old is None else set(old.files.values()))
        change = Change(folder, old)
        try:
            yield change
        except BaseException:
            # What was written so far is not an index.
            if not change.done:
                _remove_others(folder, set() if old is None else set(old.files.values()))
            raise


def check_free(folder: Path) -> None:
    """Refuse to write an index over anything but an index."""
    check_no_file(folder)
    if not folder.is_dir():
        return
    names = {file.name for file in folder.iterdir()}
    ours = any(FILE_NAME.fullmatch(name) for name in names)
    if names.intersection(("config.json", "journal.jsonl")) or (MANIFEST in names and not ours):
        raise UsageError(f"{folder} holds vectors or a compressor: give a folder of its own")


def _remove_others(folder: Path, kept: set[str]) -> None:
    for file in sorted(folder.iterdir()):
        name = file.name
        if name == PARTS:
            shutil.rmtree(file, ignore_errors=True)
        elif name not in kept and (FILE_NAME.fullmatch(name) or _is_temporary(name)):
            remove(file)


def _is_temporary(name: str) -> bool:
    """Whether a killed writer left it: .NAME.XXXXXXXX.tmp"""
    middle = name[1:].rsplit(".", 2)[0]
    ours = FILE_NAME.fullmatch(middle) or middle == MANIFEST
    return name.startswith(".") and name.endswith(".tmp") and bool(ours)
