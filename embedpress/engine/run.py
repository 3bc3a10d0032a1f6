"""Runs a job to its end, so that it can be killed at any instant and resumed."""

from __future__ import annotations

import dataclasses
import json
import re
from collections import Counter
from collections.abc import Callable, Iterable
from collections.abc import Set as AbstractSet
from pathlib import Path

from embedpress.engine.entry import Entry, journal_of, journals_in
from embedpress.engine.job import Job, Piece, differences, fingerprint, identity
from embedpress.engine.local import run_here
from embedpress.engine.lock import folder_lock, merge_lock
from embedpress.engine.options import RunOptions
from embedpress.engine.shard_file import Built
from embedpress.engine.shards import ShardWriter
from embedpress.engine.share import Share
from embedpress.errors import FormatError, InputError, MismatchError, StorageError, UsageError
from embedpress.vectors.files import check_no_file, remove, storage_errors, write_atomic
from embedpress.vectors.manifest import MANIFEST, Manifest, Shard, read_manifest, write_manifest
from embedpress.vectors.shard import shard_name
from embedpress.vectors.verification import shard_holds

SKIPPED = "skipped.jsonl"
_OURS = re.compile(r"part-\d+\.parquet|skipped\.jsonl")
Progress = Callable[[int], None]
_HERE = RunOptions()


def run_job(job: Job, *, options: RunOptions = _HERE, progress: Progress | None = None) -> Manifest:
    """Run a job, or a share of it, to its end, from wherever an earlier run left it.

    Parameters
    ----------
    job
        What to do.
    options
        Where it runs and which share of it; none of them changes what is written.
    progress
        Called with the number of input rows just finished, written or skipped, from a thread
        of the job; the first call may count what an earlier run did.

    Returns
    -------
    Manifest
        As it was written to the folder. The folder's bytes depend on the job alone, not on
        how often it was stopped or how it was shared out. When all was done before, only the
        checksums are looked at. Of a share that is done before the others it is the manifest
        of that share, which is not written: the last share to end writes that of the whole.

    Raises
    ------
    MismatchError
        If the folder belongs to a job of other options or inputs; the message names them.
    InputError
        If an id comes twice, or the job gives no rows.
    UsageError
        If the folder holds shards of unknown origin.
    StorageError
        If the disk refuses, or another process writes to the folder; what is done is kept.

    Notes
    -----
    A shard counts as done when it was synced, renamed into place and its line in the journal
    was synced, in this order; a shard whose bytes do not hold is made again. The manifest is
    written last; then the journals go. Each share has a journal of its own. A run finds what is
    done in all of them, so that another number of shares, or one process without, can go on.
    """
    out = Path(job.out)
    share = options.share
    if not share.whole and job.shards is None:
        raise UsageError("this job cannot be shared out: it does not know its number of shards")
    stamp = fingerprint(job.header, job.inputs_fingerprint)
    header = dataclasses.replace(job.header, fingerprint=stamp, count=0, shards=(), counters={})
    header.to_json()
    with storage_errors(out):
        check_no_file(out)
        out.mkdir(parents=True, exist_ok=True)
    with folder_lock(out, share):
        return _Run(job, out, header, options, progress or _silent).run()


class _Run:
    """One run of a job in a folder that is locked for it."""

    def __init__(
        self, job: Job, out: Path, header: Manifest, options: RunOptions, tell: Progress
    ) -> None:
        self._job, self._out, self._header, self._tell = job, out, header, tell
        self._options = options

    def run(self) -> Manifest:
        share = self._options.share
        if (self._out / MANIFEST).exists():
            return self._finished(share)
        entries = self._fill(share)
        if share.whole:
            return self._conclude(entries)
        with merge_lock(self._out):
            if not (self._out / MANIFEST).exists():
                if set(range(self._job.shards or 0)) - {entry.index for entry in self._noted()}:
                    # Not the last one. What is returned is not written.
                    return self._manifest([entries[i] for i in sorted(entries)])
                # What others wrote may have come from another disk: it is looked at as a resumed
                # job looks at its own.
                self._tell = _silent
                return self._conclude(self._fill(Share()))
        return self._finished(share)

    def _noted(self) -> list[Entry]:
        """Entries of all journals, after looking that they are of this job."""
        found: list[Entry] = []
        for journal in journals_in(self._out):
            old, entries = journal.read()
            if old.get("fingerprint") != self._header.fingerprint:
                raise self._mismatch("begun", old["identity"])
            found += entries
        return found

    def _fill(self, share: Share) -> dict[int, Entry]:
        """Make what is missing of a share, and return its entries."""
        if not journals_in(self._out) and any(
            _OURS.fullmatch(path.name) for path in self._out.iterdir()
        ):
            raise UsageError(
                f"{self._out} holds shards without a manifest: give an empty or a new folder"
            )
        entries = {
            entry.index: entry
            for entry in self._noted()
            if share.holds(entry.index) and shard_holds(self._out, entry.shard)
        }
        journal = journal_of(self._out, share)
        opening = {"identity": identity(self._header), "fingerprint": self._header.fingerprint}
        journal.rewrite(opening, [entries[i] for i in sorted(entries)])
        writer = ShardWriter(self._out, self._header)
        for index in sorted(entries):
            writer.remember(entries[index])
        if entries:
            self._tell(sum(map(_rows, entries.values())))

        def note(entry: Entry) -> None:
            journal.append(entry)
            entries[entry.index] = entry
            self._tell(_rows(entry))

        others = {i for i in range(self._job.shards or 0) if not share.holds(i)}
        try:
            self._make(others | entries.keys(), writer, note)
        except StorageError as error:
            kept = StorageError(f"{error} ({len(entries)} finished shards are kept)")
            kept.errno = error.errno
            raise kept from error
        return entries

    def _make(
        self, done: AbstractSet[int], writer: ShardWriter, note: Callable[[Entry], None]
    ) -> None:
        """Make all shards but the `done`, and tell of each when it is on the disk."""
        job, done, seen = self._job, frozenset(done), set(done)
        if job.shards is not None and done.issuperset(range(job.shards)):
            return

        def see(index: int) -> None:
            if index in seen:
                raise UsageError(f"shard {index} of the job came twice")
            seen.add(index)

        def write(index: int, pieces: Iterable[Piece]) -> None:
            see(index)
            note(writer.write(index, pieces))

        def adopt(index: int, built: Built, data: bytes) -> None:
            see(index)
            note(writer.adopt(index, built, data))

        if self._options.engine == "ray":
            from embedpress.engine.ray import run_on_ray

            run_on_ray(job, done, adopt, self._options.ray_address)
        else:
            run_here(job, done, write)

    def _conclude(self, entries: dict[int, Entry]) -> Manifest:
        done = [entries[index] for index in sorted(entries)]
        missing = next((i for i, entry in enumerate(done) if entry.index != i), None)
        if missing is not None:
            raise UsageError(f"the job gave shard {done[missing].index} but no shard {missing}")
        manifest = self._manifest(done)
        skipped = [one for entry in done for one in entry.skipped]
        if manifest.count == 0:
            why = f"all {len(skipped)} were skipped" if skipped else "the input is empty"
            raise InputError(f"{self._out}: there are no rows to write, {why}")
        if skipped:
            lines = (json.dumps(one, sort_keys=True, allow_nan=False) + "\n" for one in skipped)
            write_atomic(self._out / SKIPPED, "".join(lines))
        write_manifest(self._out, manifest)
        self._remove_journals()
        return manifest

    def _manifest(self, done: list[Entry]) -> Manifest:
        counters: Counter[str] = Counter()
        for entry in done:
            counters.update(entry.counters)
        skipped = sum(len(entry.skipped) for entry in done)
        if skipped:
            counters["skipped"] = skipped
        shards = tuple(entry.shard for entry in done)
        count = sum(shard.rows for shard in shards)
        return dataclasses.replace(
            self._header, count=count, shards=shards, counters=dict(counters)
        )

    def _finished(self, share: Share) -> Manifest:
        """Look at what is there of a share in a finished folder, and make the bad ones again."""
        out = self._out
        try:
            manifest = read_manifest(out)
        except FormatError as error:
            raise FormatError(f"{error}; give another folder") from None
        if manifest.fingerprint != self._header.fingerprint:
            raise self._mismatch("finished", identity(manifest))
        shards = manifest.shards
        if [shard.name for shard in shards] != [shard_name(i) for i in range(len(shards))]:
            raise FormatError(f"{out / MANIFEST}: its shards are not those of a job")
        bad = {
            i for i, shard in enumerate(shards) if share.holds(i) and not shard_holds(out, shard)
        }
        if bad:
            manifest = self._repair(manifest, bad)
        else:
            self._tell(manifest.count + manifest.counters.get("skipped", 0))
        self._remove_journals()
        return manifest

    def _repair(self, manifest: Manifest, bad: set[int]) -> Manifest:
        out, shards = self._out, list(manifest.shards)
        writer = ShardWriter(out, self._header)
        for index in sorted(set(range(len(shards))) - bad):
            if shard_holds(out, shards[index]):
                writer.remember(Entry(index, shards[index], (), {}))
        made: dict[int, Shard] = {}

        def note(entry: Entry) -> None:
            if entry.index not in bad:
                raise UsageError(f"shard {entry.index} of the job is one too many")
            if entry.shard.rows != shards[entry.index].rows:
                raise MismatchError(
                    f"{entry.shard.name} came out with {entry.shard.rows} rows, it had"
                    f" {shards[entry.index].rows}: the inputs changed; give another folder"
                )
            made[entry.index] = entry.shard

        self._make(set(range(len(shards))) - bad, writer, note)
        lost = sorted(bad - made.keys())
        if lost:
            raise MismatchError(
                f"{out}: the inputs no longer give {shards[lost[0]].name}: give another folder"
            )
        # Another machine may round the last bit of a float differently, so that a shard made
        # again need not have its old checksum.
        with merge_lock(out):
            shards = list(read_manifest(out).shards)
            for index, shard in made.items():
                shards[index] = shard
            repaired = dataclasses.replace(manifest, shards=tuple(shards))
            if repaired != manifest:
                write_manifest(out, repaired)
        return repaired

    def _mismatch(self, state: str, old: dict[str, object]) -> MismatchError:
        changed = "; ".join(differences(old, identity(self._header))) or "the input data"
        return MismatchError(
            f"{self._out} was {state} by a job that differs: {changed}. Give the same options"
            " again, or another folder"
        )

    def _remove_journals(self) -> None:
        for journal in journals_in(self._out):
            remove(journal.path)


def _rows(entry: Entry) -> int:
    return entry.shard.rows + len(entry.skipped)


def _silent(rows: int) -> None:
    pass
