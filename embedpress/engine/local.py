"""Runs a job in this process, so that it can be killed at any instant and resumed."""

from __future__ import annotations

import dataclasses
import json
import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from embedpress.engine.job import Job, differences, fingerprint, identity
from embedpress.engine.journal import Entry, Journal
from embedpress.engine.lock import folder_lock
from embedpress.engine.shards import ShardWriter
from embedpress.errors import FormatError, InputError, MismatchError, StorageError, UsageError
from embedpress.vectors.files import remove, storage_errors, write_atomic
from embedpress.vectors.manifest import MANIFEST, Manifest, read_manifest, write_manifest
from embedpress.vectors.shard import shard_name
from embedpress.vectors.verify import shard_holds

SKIPPED = "skipped.jsonl"
_OURS = re.compile(r"part-\d+\.parquet|skipped\.jsonl")
_TEMPORARY = re.compile(r"\.(part-\d+\.parquet|\w+\.jsonl?)\.[0-9a-f]{8}\.tmp")
Progress = Callable[[int], None]


def run_job(job: Job, *, progress: Progress | None = None) -> Manifest:
    """Run a job to its end, from wherever an earlier run left it.

    Parameters
    ----------
    job
        What to do.
    progress
        Called with the number of input rows just finished, written or skipped; the first call
        may count what an earlier run did.

    Returns
    -------
    Manifest
        As it was written to the folder. The folder's bytes depend on the job alone, not on
        how often it was stopped. When all was done before, only the checksums are looked at.

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
    written last; then the journal goes.
    """
    out = Path(job.out)
    stamp = fingerprint(job.header, job.inputs_fingerprint)
    header = dataclasses.replace(job.header, fingerprint=stamp, count=0, shards=(), counters={})
    header.to_json()
    with storage_errors(out):
        if out.exists() and not out.is_dir():
            raise UsageError(f"{out} is a file: give a folder to write to")
        out.mkdir(parents=True, exist_ok=True)
    tell = progress or _silent
    with folder_lock(out):
        _sweep(out)
        if (out / MANIFEST).exists():
            manifest = _repair(job, out, header, tell)
        else:
            manifest = _fill(job, out, header, tell)
        remove(Journal(out).path)
    return manifest


def _fill(job: Job, out: Path, header: Manifest, tell: Progress) -> Manifest:
    journal = Journal(out)
    opening = {"identity": identity(header), "fingerprint": header.fingerprint}
    entries: dict[int, Entry] = {}
    if journal.exists():
        old, entries = journal.read()
        if old.get("fingerprint") != header.fingerprint:
            raise _mismatch(out, "begun", old["identity"], header)
        entries = {i: entry for i, entry in entries.items() if shard_holds(out, entry.shard)}
    elif any(_OURS.fullmatch(path.name) for path in out.iterdir()):
        raise UsageError(f"{out} holds shards without a manifest: give an empty or a new folder")
    journal.rewrite(opening, entries)
    writer = ShardWriter(out, header)
    for index in sorted(entries):
        writer.remember(entries[index])
    if entries:
        tell(sum(entry.shard.rows + len(entry.skipped) for entry in entries.values()))
    for index, payload in job.chunks(frozenset(entries)):
        if index in entries:
            raise UsageError(f"shard {index} of the job came twice")
        piece = job.work(payload)
        try:
            entry = writer.write(index, piece)
            journal.append(entry)
        except StorageError as error:
            kept = StorageError(f"{error} ({len(entries)} finished shards are kept)")
            kept.errno = error.errno
            raise kept from error
        entries[index] = entry
        tell(entry.shard.rows + len(entry.skipped))
    return _conclude(out, header, entries)


def _conclude(out: Path, header: Manifest, entries: dict[int, Entry]) -> Manifest:
    done = [entries[index] for index in sorted(entries)]
    missing = next((i for i, entry in enumerate(done) if entry.index != i), None)
    if missing is not None:
        raise UsageError(f"the job gave shard {done[missing].index} but no shard {missing}")
    skipped = [one for entry in done for one in entry.skipped]
    counters: Counter[str] = Counter()
    for entry in done:
        counters.update(entry.counters)
    if skipped:
        counters["skipped"] = len(skipped)
    shards = tuple(entry.shard for entry in done)
    count = sum(shard.rows for shard in shards)
    if count == 0:
        why = f"all {len(skipped)} were skipped" if skipped else "the input is empty"
        raise InputError(f"{out}: there are no rows to write, {why}")
    if skipped:
        lines = (json.dumps(one, sort_keys=True, allow_nan=False) + "\n" for one in skipped)
        write_atomic(out / SKIPPED, "".join(lines))
    manifest = dataclasses.replace(header, count=count, shards=shards, counters=dict(counters))
    write_manifest(out, manifest)
    return manifest


def _repair(job: Job, out: Path, header: Manifest, tell: Progress) -> Manifest:
    try:
        manifest = read_manifest(out)
    except FormatError as error:
        raise FormatError(f"{error}; give another folder") from None
    if manifest.fingerprint != header.fingerprint:
        raise _mismatch(out, "finished", identity(manifest), header)
    shards = list(manifest.shards)
    if [shard.name for shard in shards] != [shard_name(i) for i in range(len(shards))]:
        raise FormatError(f"{out / MANIFEST}: its shards are not those of a job")
    good = frozenset(i for i, shard in enumerate(shards) if shard_holds(out, shard))
    if len(good) == len(shards):
        tell(manifest.count + manifest.counters.get("skipped", 0))
        return manifest
    writer = ShardWriter(out, header)
    for index in sorted(good):
        writer.remember(Entry(index, shards[index], (), {}))
    for index, payload in job.chunks(good):
        if index in good or index >= len(shards):
            raise UsageError(f"shard {index} of the job is one too many")
        shard = writer.write(index, job.work(payload)).shard
        if shard.rows != shards[index].rows:
            raise MismatchError(
                f"{shard.name} came out with {shard.rows} rows, it had {shards[index].rows}:"
                " the inputs changed; give another folder"
            )
        shards[index] = shard
    missing = [shards[i].name for i in range(len(shards)) if not shard_holds(out, shards[i])]
    if missing:
        raise MismatchError(f"{out}: the inputs no longer give {missing[0]}: give another folder")
    # Another machine may round the last bit of a float differently, so that a shard made again
    # need not have its old checksum.
    repaired = dataclasses.replace(manifest, shards=tuple(shards))
    if repaired != manifest:
        write_manifest(out, repaired)
    return repaired


def _mismatch(out: Path, state: str, old: dict[str, object], header: Manifest) -> MismatchError:
    changed = "; ".join(differences(old, identity(header))) or "the input data"
    return MismatchError(
        f"{out} was {state} by a job that differs: {changed}. Give the same options again, or"
        " another folder"
    )


def _sweep(out: Path) -> None:
    with storage_errors(out):
        for path in out.iterdir():
            if _TEMPORARY.fullmatch(path.name):
                path.unlink()


def _silent(rows: int) -> None:
    pass
