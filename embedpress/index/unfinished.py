"""What a change of an index has done so far, so that it can be killed and go on.

A change is a row of stages. Each writes one file or a few from front to back, and notes on the
way up to where it is done: how long the files are by then, with the SHA-256 of all that. A change
that was killed finds these notes, compares the files with them, and goes on behind the last one
that holds. So nothing has to be renamed or to be on the disk before it is noted: what a kill or a
power cut tore does not hold, and is made again.
"""

from __future__ import annotations

import hashlib
import math
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from embedpress.engine.hashed_file import HashedFile
from embedpress.engine.journal import Journal
from embedpress.errors import FormatError
from embedpress.vectors.files import storage_errors

UNFINISHED = ".unfinished"
"""The folder, in that of the index, of the journal and of files that are no part of an index."""
JOURNAL = "journal.jsonl"
STEP = 64 << 20
"""Bytes of a file after which it is worth a note: a kill costs the time of writing so many."""
_BUFFER, _BLOCK = 1 << 20, 1 << 20


@dataclass(frozen=True)
class Mark:
    """A note: how far a stage is.

    Attributes
    ----------
    stage : str
    done : int
        Rows or lists; what the stage counts in.
    last : bool
        Whether that is all.
    files : dict
        For each file by its name: bytes at its front that are not hashed, bytes in all, and the
        SHA-256 of those between.
    facts : dict
        Results that are no files.
    """

    stage: str
    done: int
    last: bool
    files: Mapping[str, Sequence[Any]]
    facts: Mapping[str, Any]


@dataclass
class Unfinished:
    """The stages of one change, by the only process that may make it now.

    Parameters
    ----------
    folder : Path
        That of the index.
    header : dict
        Which change it is; the first line of the journal.
    marks : list of Mark
        Notes of earlier runs.
    """

    folder: Path
    header: Mapping[str, Any]
    marks: list[Mark] = field(default_factory=list)
    sums: dict[str, str] = field(default_factory=dict)
    """SHA-256 of the files that are whole, by name."""
    _open: bool = False

    @property
    def place(self) -> Path:
        """The folder for what is no part of the index."""
        return self.folder / UNFINISHED

    @property
    def names(self) -> set[str]:
        """Names of the files that are noted."""
        return {name for mark in self.marks for name in mark.files}

    def facts(self, stage: str) -> Mapping[str, Any] | None:
        """The results of a stage without files, or None where it is not done."""
        return next((mark.facts for mark in self.marks if mark.stage == stage), None)

    def note(self, stage: str, **facts: Any) -> None:
        """Note the results of a stage without files."""
        self.add(Mark(stage, 0, True, {}, facts))

    @contextmanager
    def growing(self, stage: str, *paths: Path) -> Iterator[GrowingFiles]:
        """The files of a stage, as far as they hold, to be written on behind that."""
        noted = [mark for mark in self.marks if mark.stage == stage]
        held, digests = _held(paths, noted)
        if len(held) < len(noted):
            # What was noted after a note that does not hold is not believed either.
            self._rewrite(self.marks[: self.marks.index(noted[len(held)])])
        with ExitStack() as stack, storage_errors(self.folder):
            self._begin()
            files = []
            for path, digest in zip(paths, digests, strict=True):
                start, size, _ = held[-1].files[path.name] if held else (0, 0, "")
                if not held:
                    path.unlink(missing_ok=True)
                raw = stack.enter_context(path.open("r+b" if held else "xb", buffering=_BUFFER))
                raw.truncate(size)
                raw.seek(size)
                files.append(HashedFile(raw, size, start, digest))
            growth = GrowingFiles(self, stage, tuple(files), paths, held)
            growth.keep_sums()
            yield growth

    def array(self, name: str, dtype: str, shape: tuple[int, ...]) -> NDArray[Any]:
        """A file in the place as an array.

        Raises
        ------
        FormatError
            It has another size.
        """
        values: NDArray[Any] = np.fromfile(self.place / name, dtype)
        if values.size != math.prod(shape):
            raise FormatError(f"{self.place} is not what was written: delete it and start again")
        return values.reshape(shape)

    def drop(self, name: str) -> None:
        """Remove a file that is no longer needed from the place."""
        (self.place / name).unlink(missing_ok=True)

    def sweep(self) -> None:
        """Remove what lies in the place and is not noted."""
        kept = {JOURNAL, *self.names}
        with storage_errors(self.place):
            for path in self.place.iterdir():
                if path.name not in kept:
                    path.unlink()

    def add(self, mark: Mark) -> None:
        """Note how far a stage is."""
        self._begin()
        self.marks.append(mark)
        self._journal.append(mark)

    def _begin(self) -> None:
        # Also where nothing is left to do: so that notes to come follow a whole line.
        if not self._open:
            self._rewrite(self.marks)

    def _rewrite(self, marks: list[Mark]) -> None:
        with storage_errors(self.place):
            self.place.mkdir(exist_ok=True)
        self.marks = marks
        self._journal.rewrite(self.header, marks)
        self._open = True

    @property
    def _journal(self) -> Journal[Mark]:
        return Journal(self.place / JOURNAL, _mark)


@dataclass
class GrowingFiles:
    """The files of a stage while they grow.

    Attributes
    ----------
    files : tuple of HashedFile
    paths : tuple of Path
    held : list of Mark
        Notes that hold, of this run too.
    """

    unfinished: Unfinished
    stage: str
    files: tuple[HashedFile, ...]
    paths: tuple[Path, ...]
    held: list[Mark]

    @property
    def done(self) -> int:
        """Rows or lists that were finished when they were last noted."""
        return self.held[-1].done if self.held else 0

    @property
    def finished(self) -> bool:
        """Whether nothing is left to do."""
        return bool(self.held) and self.held[-1].last

    def reached(self, done: int) -> None:
        """Say that so many rows or lists are written; that is noted now and then."""
        noted = sum(size for _, size, _ in self.held[-1].files.values()) if self.held else 0
        if sum(file.size for file in self.files) - noted >= STEP:
            self.mark(done)

    def mark(self, done: int, *, last: bool = False) -> None:
        """Note that so many rows or lists are written."""
        states = {}
        for path, file in zip(self.paths, self.files, strict=True):
            file.flush()
            states[path.name] = (file.start, file.size, file.digest.hexdigest())
        mark = Mark(self.stage, done, last, states, {})
        self.unfinished.add(mark)
        self.held.append(mark)

    def finish(self, done: int) -> None:
        """Note that all is written."""
        self.mark(done, last=True)
        self.keep_sums()

    def keep_sums(self) -> None:
        """Let the checksums of whole files be known, where all their bytes count."""
        if self.finished:
            states = self.held[-1].files
            self.unfinished.sums |= {n: sum for n, (start, _, sum) in states.items() if not start}


def read_unfinished(folder: Path) -> tuple[dict[str, Any], list[Mark]] | None:
    """The journal of a change that did not come to its end, or None where there is none.

    Raises
    ------
    FormatError
        It is damaged.
    """
    path = folder / UNFINISHED / JOURNAL
    return Journal(path, _mark).read() if path.is_file() else None


def clear(folder: Path) -> None:
    """Remove the place of a change with all that is in it."""
    shutil.rmtree(folder / UNFINISHED, ignore_errors=True)


def _held(
    paths: Sequence[Path], noted: Sequence[Mark]
) -> tuple[list[Mark], list[hashlib._Hash | None]]:
    """The first notes, up to one that does not hold, and the hashes of the files by then."""
    found = [list(_matching(path, noted)) for path in paths]
    n = min(map(len, found), default=0)
    return list(noted[:n]), [digests[n - 1] if n else None for digests in found]


def _matching(path: Path, noted: Sequence[Mark]) -> Iterator[hashlib._Hash]:
    if not noted or not path.is_file() or path.is_symlink():
        return
    digest, at = hashlib.sha256(), -1
    with storage_errors(path, "read"), path.open("rb") as file:
        for mark in noted:
            start, size, expected = mark.files.get(path.name, (0, -1, ""))
            at = max(at, start)
            file.seek(at)
            while at < size and (block := file.read(min(_BLOCK, size - at))):
                digest.update(block)
                at += len(block)
            if at != size or digest.hexdigest() != expected:
                return
            yield digest.copy()


def _mark(values: dict[str, Any]) -> Mark | None:
    if set(values) != {"stage", "done", "last", "files", "facts"}:
        return None
    files, facts, done = values["files"], values["facts"], values["done"]
    whole = (
        isinstance(values["stage"], str)
        and type(done) is int
        and done >= 0
        and type(values["last"]) is bool
        and isinstance(files, dict)
        and isinstance(facts, dict)
        and all(map(_is_state, files.values()))
    )
    return Mark(**values) if whole else None


def _is_state(state: object) -> bool:
    return (
        isinstance(state, list)
        and len(state) == 3
        and all(type(n) is int and n >= 0 for n in state[:2])
        and state[0] <= state[1]
        and isinstance(state[2], str)
    )
