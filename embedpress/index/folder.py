"""The folder of an index, and how it changes: the old index or the new one, never a part.

New files get names of their own; the manifest, replaced in one step, says which ones count; then
the old files are removed. A change that was killed leaves the old manifest with the files that it
names, and the same command goes on with what else it left (see :mod:`embedpress.index.unfinished`).
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from embedpress.engine.job import differences
from embedpress.engine.lock import folder_lock
from embedpress.errors import (
    EmbedpressError,
    InputError,
    MismatchError,
    UsageError,
)
from embedpress.index.manifest import (
    FILE_NAME,
    FORMAT_VERSION,
    MANIFEST,
    Frame,
    IndexManifest,
    bad_files,
    file_name,
    read_index_manifest,
)
from embedpress.index.unfinished import UNFINISHED, Unfinished, clear, read_unfinished
from embedpress.vectors import sha256_of, write_atomic
from embedpress.vectors.files import check_no_file, remove, storage_errors

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


@dataclass(frozen=True)
class Command:
    """A change that can be killed and go on: all that decides over its result.

    Attributes
    ----------
    name : str
        As a person types it.
    options : dict
    inputs : dict
        Checksums of what is read, by what it is.
    """

    name: str
    options: Mapping[str, Any]
    inputs: Mapping[str, str | None]

    @property
    def fingerprint(self) -> str:
        """SHA-256 that is another for all others."""
        return _fingerprint(asdict(self))


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
    work : Unfinished
        The stages of the change.
    """

    folder: Path
    old: IndexManifest | None
    files: dict[str, str] = field(default_factory=dict)
    begun: bool = False
    done: bool = False

    def __post_init__(self) -> None:
        self.work = Unfinished(self.folder, {})

    @property
    def generation(self) -> int:
        """The number of the index that this change makes."""
        return 1 if self.old is None else self.old.generation + 1

    def begin(self, command: Command | None = None) -> bool:
        """Take up what an earlier run of the same command did, and remove all else that is left.

        Parameters
        ----------
        command : Command, optional
            None for a change that is made at once or not at all.

        Returns
        -------
        bool
            False where the earlier run made the change, and was killed before it said so.

        Raises
        ------
        MismatchError
            Another command was begun here and not finished.
        """
        found = read_unfinished(self.folder)
        identity = None if command is None else json.loads(json.dumps(asdict(command)))
        header = {"identity": identity, "generation": self.generation, "base": self._base()}
        made = None
        if found is not None and _generation(found[0]) < self.generation:
            made, found = found, None
        if found is not None:
            self._check_same(found[0], header, command)
        self.work = Unfinished(self.folder, header, found[1] if found else [])
        self._sweep(keep=found is not None)
        self.begun = True
        if made is None or made[0]["identity"] != identity:
            return True
        self.work.marks += made[1]
        return False

    def stands(self, command: Command) -> bool:
        """Whether the index that is there is the very one that the command builds, and whole."""
        old = self.old
        return (
            old is not None and old.job == command.fingerprint and not bad_files(self.folder, old)
        )

    def path(self, role: str) -> Path:
        """Where to write a file of the new index."""
        self.files[role] = file_name(role, self.generation)
        return self.folder / self.files[role]

    def keep(self, *roles: str) -> None:
        """Let the new index go on with files of the old one."""
        if self.old is not None:
            self.files |= {role: self.old.files[role] for role in roles if role in self.old.files}

    def commit(
        self, *, rows: int, deleted: int, frame: Frame | None, job: str = "", **about: Any
    ) -> IndexManifest:
        """Make the new files the index: the manifest is replaced, then the old ones removed.

        Parameters
        ----------
        rows : int
            In the files.
        deleted : int
            Of these, marked as deleted.
        frame : Frame or None
        job : str
            What the index is all of, where it was built at once.
        **about
            The other fields of :class:`IndexManifest`; those of the old index by default.
        """
        if not about and self.old is not None:
            about = {name: getattr(self.old, name) for name in _LASTING}
        known = {} if self.old is None else self.old.sha256
        kept = set() if self.old is None else set(self.old.files.values())
        sums = {
            name: known[name] if name in kept else self._lasting(name)
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
            job=job,
            **about,
        )
        document = json.dumps(asdict(manifest), indent=1, sort_keys=True) + "\n"
        write_atomic(self.folder / MANIFEST, document)
        self.done = True
        _remove_others(self.folder, set(self.files.values()))
        clear(self.folder)
        return manifest

    def give_up(self) -> None:
        """Remove all that this change wrote."""
        self.work.marks.clear()
        self._sweep(keep=False)

    def _lasting(self, name: str) -> str:
        """The checksum of a new file, which is on the disk then."""
        with (self.folder / name).open("r+b") as file:
            os.fsync(file.fileno())
        return self.work.sums.get(name) or sha256_of(self.folder / name)

    def _base(self) -> str | None:
        return None if self.old is None else _fingerprint(self.old.sha256)

    def _sweep(self, *, keep: bool) -> None:
        old = set() if self.old is None else set(self.old.files.values())
        _remove_others(self.folder, old | self.work.names)
        if keep:
            self.work.sweep()
        else:
            clear(self.folder)

    def _check_same(
        self, old: dict[str, Any], header: dict[str, Any], command: Command | None
    ) -> None:
        before, place = old["identity"], self.folder / UNFINISHED
        name = str(before.get("name"))[:40]
        if command is None or name != command.name:
            raise MismatchError(
                f"{self.folder} holds an unfinished `embedpress {name}`: run it again to finish"
                f" it, or delete {place} to give it up"
            )
        found, now = _part(before, "inputs"), command.inputs
        changed = differences(_part(before, "options"), command.options)
        changed += [f"the {what}" for what in sorted(now) if found.get(what) != now[what]]
        changed += [] if old.get("base") == header["base"] else ["the index itself"]
        if changed:
            raise MismatchError(
                f"{self.folder} was begun by an `embedpress {name}` that differs:"
                f" {'; '.join(changed)}. Give the same again, or delete {place} to start anew"
            )


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
        change = Change(folder, old)
        try:
            yield change
        except BaseException as error:
            # The same command would be refused again; all else may be over by then.
            refused = isinstance(error, UsageError | InputError | MismatchError)
            if change.begun and not change.done and (refused or not change.work.marks):
                change.give_up()
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
        if name not in kept and (FILE_NAME.fullmatch(name) or _is_temporary(name)):
            remove(file)


def _is_temporary(name: str) -> bool:
    """Whether a killed writer left it: .NAME.XXXXXXXX.tmp"""
    middle = name[1:].rsplit(".", 2)[0]
    ours = FILE_NAME.fullmatch(middle) or middle == MANIFEST
    return name.startswith(".") and name.endswith(".tmp") and bool(ours)


def _fingerprint(values: object) -> str:
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()


def _part(identity: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    found = identity.get(name)
    return found if isinstance(found, dict) else {}


def _generation(header: Mapping[str, Any]) -> int:
    found = header.get("generation")
    return found if type(found) is int else 0
