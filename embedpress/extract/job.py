"""Extraction as a job: a whole input to a folder of embeddings, resumed where it was killed."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from embedpress.engine.job import Job
from embedpress.engine.options import RunOptions
from embedpress.engine.run import run_job
from embedpress.errors import InputError, UsageError
from embedpress.extract.image import ImageExtractor
from embedpress.extract.images import ImageFile, contents_of, list_images
from embedpress.extract.text import TextExtractor
from embedpress.extract.texts import open_texts
from embedpress.extract.work import Embedder, EmbedPhotos, EmbedTexts, ReadPhotos
from embedpress.threads import check_threads
from embedpress.vectors.budget import Budget, peak_bytes, resident_bytes
from embedpress.vectors.manifest import Manifest

_HERE = RunOptions()
# Times that a text is in memory, in all of its forms, while its chunk is on the way.
TEXT_COPIES = 12
# What the allocator keeps between batches of other shapes than the largest.
GAPS = 96 * 2**20
# Batches of pixels on the way; what the widest layers of a network take for one photo; a large
# photo while it is decoded and resized.
BATCHES, ACTIVATIONS, PHOTO = 5, 14 * 2**20, 128 * 2**20


def extract_text(
    input: str | Path,
    out: str | Path,
    *,
    model: str | Path,
    column: str = "text",
    id_column: str | None = None,
    batch_tokens: int = 4096,
    pooling: str | None = None,
    normalize: bool | None = None,
    max_length: int | None = None,
    revision: str | None = None,
    device: str = "cpu",
    rows_per_shard: int = 8192,
    memory_budget: str | int = "2G",
    num_threads: int | None = None,
    options: RunOptions = _HERE,
    progress: Callable[[int], None] | None = None,
) -> Manifest:
    """Embed the texts of a file into a folder of Parquet shards.

    Parameters
    ----------
    input : str or Path
        A .txt, .jsonl, .csv, .parquet or .arrow file, a folder of .parquet files or a saved
        dataset; see
        :func:`embedpress.extract.texts.open_texts`.
    out : str or Path
        The folder to write. The same command finishes a job that was killed.
    model : str or Path
        A model folder or a hub id.
    column, id_column : str, optional
        Where the texts and the ids are; by default ids are the records' numbers.
    batch_tokens : int
        The most tokens of a batch, padding counted.
    pooling, normalize, max_length, revision, device
        See :class:`~embedpress.extract.text.TextExtractor`.
    rows_per_shard : int
        Texts in each shard but the last.
    memory_budget : str or int
        Most memory of the process, as ``"2G"`` or in bytes. It decides how much is read ahead,
        never over batches, so that the embeddings stay the same to the bit.
    num_threads : int, optional
        Threads of the network.
    options : RunOptions
        Where the job runs and which share of it.
    progress : callable, optional
        Called with numbers of rows as they are finished.

    Returns
    -------
    Manifest
        Its counters say how many texts were ``truncated`` and how many lines were ``blank``
        and skipped. Columns of a shard: ``id``, ``vector``, ``text`` and the input's others.

    Raises
    ------
    UsageError, InputError, FormatError
        For options, texts or a model that cannot be used.
    MismatchError
        If `out` holds the work of other options or inputs.
    StorageError
        If the disk refuses; what is done is kept.
    """
    _check_rows(rows_per_shard)
    budget = Budget(memory_budget)
    texts = open_texts(input, column=column, id_column=id_column)
    extractor = TextExtractor(
        model,
        pooling=pooling,
        normalize=normalize,
        max_length=max_length,
        revision=revision,
        device=device,
        num_threads=num_threads,
    )
    extractor.check_batch_tokens(batch_tokens)
    extractor.rehearse(batch_tokens)
    # What the largest batch took comes again beside what is read ahead.
    need = peak_bytes() - resident_bytes() + GAPS
    most = budget.left("this model", need) // TEXT_COPIES
    embedder = Embedder(
        extractor,
        model=model,
        pooling=extractor.pooling,
        normalize=extractor.normalized,
        max_length=extractor.max_length,
        revision=revision,
        device=device,
        num_threads=num_threads,
    )
    header = _header(
        extractor,
        pooling=extractor.pooling,
        normalized=extractor.normalized,
        config={
            "column": column,
            "id_column": id_column,
            "max_length": extractor.max_length,
            "rows_per_shard": rows_per_shard,
        },
    )
    job = Job(
        out=Path(out),
        header=header,
        inputs_fingerprint=texts.sha256,
        chunks=lambda done: texts.chunks(rows_per_shard, done, most_bytes=most),
        work=EmbedTexts(embedder, batch_tokens),
        shards=-(-texts.count // rows_per_shard),
        cpus=num_threads or 1,
        gpus=int(extractor.device.type == "cuda"),
    )
    return run_job(job, options=options, progress=progress)


def extract_images(
    folder: str | Path,
    out: str | Path,
    *,
    model: str = "resnet50",
    weights: str | Path | None = None,
    batch_size: int = 32,
    max_skipped: int | None = None,
    device: str = "cpu",
    rows_per_shard: int = 2048,
    memory_budget: str | int = "2G",
    num_threads: int | None = None,
    options: RunOptions = _HERE,
    progress: Callable[[int], None] | None = None,
) -> Manifest:
    """Embed the photos of a folder and its subfolders into a folder of Parquet shards.

    Parameters
    ----------
    folder : str or Path
        See :func:`embedpress.extract.images.list_images`.
    out : str or Path
        The folder to write. The same command finishes a job that was killed.
    model, weights, device
        See :class:`~embedpress.extract.image.ImageExtractor`.
    batch_size : int
        Photos at once.
    max_skipped : int, optional
        Fail when more photos than this cannot be read; by default any number is skipped.
    rows_per_shard : int
        Photos in each shard but the last, skipped ones counted.
    memory_budget : str or int
        Most memory of the process, as ``"2G"`` or in bytes. It decides how much is read ahead,
        never over batches, so that the embeddings stay the same to the bit.
    num_threads : int, optional
        Threads of the network, and at most as many that read photos.
    options : RunOptions
        Where the job runs and which share of it.
    progress : callable, optional
        Called with numbers of photos as they are finished.

    Returns
    -------
    Manifest
        Its counter ``skipped`` says how many photos could not be read; ``skipped.jsonl`` in the
        folder says which and why. Columns of a shard: ``id`` and ``path`` (relative to the
        folder), ``vector``, and ``label``, the first folder on the path, where there is one.

    Raises
    ------
    UsageError, InputError, FormatError
        For options, photos or weights that cannot be used.
    MismatchError
        If `out` holds the work of other options or inputs.
    StorageError
        If the disk refuses; what is done is kept.
    """
    _check_rows(rows_per_shard)
    if batch_size < 1:
        raise UsageError(f"batch_size must be at least 1, not {batch_size}")
    if max_skipped is not None and max_skipped < 0:
        raise UsageError(f"max_skipped must not be negative, not {max_skipped}")
    budget = Budget(memory_budget)
    files = list_images(folder)
    extractor = ImageExtractor(model, weights=weights, device=device, num_threads=num_threads)
    labelled = any(file.label is not None for file in files)
    limit = _SkipLimit(max_skipped, total=len(files))
    readers = _readers(budget, extractor, batch_size, check_threads(num_threads))
    embedder = Embedder(
        extractor, model=model, weights=weights, device=device, num_threads=num_threads
    )
    header = _header(
        extractor,
        pooling="mean",
        normalized=False,
        config={
            "stride": extractor.stride,
            "transform": extractor.transform.to_dict(),
            "rows_per_shard": rows_per_shard,
        },
    )

    def chunks(done: frozenset[int]) -> Iterator[tuple[int, list[ImageFile]]]:
        for index, start in enumerate(range(0, len(files), rows_per_shard)):
            if index not in done:
                yield index, files[start : start + rows_per_shard]

    contents = contents_of(files, check_threads(num_threads))
    job = Job(
        out=Path(out),
        header=header,
        inputs_fingerprint=contents,
        chunks=chunks,
        read=ReadPhotos(extractor.transform, batch_size, readers),
        work=EmbedPhotos(embedder, labelled),
        shards=-(-len(files) // rows_per_shard),
        cpus=num_threads or 1,
        gpus=int(extractor.device.type == "cuda"),
        watch=limit.add,
    )
    manifest = run_job(job, options=options, progress=progress)
    # An earlier run, stopped half-way, may have skipped some of them.
    limit.check(manifest.counters.get("skipped", 0))
    return manifest


@dataclass
class _SkipLimit:
    """Counts what this run skipped, and ends it at the first photo too many."""

    most: int | None
    total: int
    count: int = 0

    def add(self, skipped: Sequence[Mapping[str, Any]]) -> None:
        for one in skipped:
            self.count += 1
            last = f"; the last one: {one['id']}: {one['reason']}"
            if self.count == self.total:
                raise InputError(f"none of the {self.total} images can be read{last}")
            self.check(self.count, last)

    def check(self, count: int, last: str = "") -> None:
        if self.most is not None and count > self.most:
            raise InputError(
                f"{count} images cannot be read, more than max_skipped={self.most}{last}"
            )


def _header(
    extractor: TextExtractor | ImageExtractor,
    *,
    pooling: str,
    normalized: bool,
    config: dict[str, Any],
) -> Manifest:
    # Batch size, device and threads change embeddings by rounding only, so a job that ran out
    # of memory may go on with others: they are not part of its identity.
    identity = {
        "extractor": "text" if isinstance(extractor, TextExtractor) else "image",
        "fingerprint": extractor.fingerprint,
        "weights_sha256": extractor.weights_sha256,
    }
    return Manifest(
        kind="embeddings",
        dim=extractor.dim,
        metric="cosine",
        normalized=normalized,
        model=extractor.model_id,
        revision=extractor.revision,
        pooling=pooling,
        config={**identity, **config},
    )


def _readers(budget: Budget, extractor: ImageExtractor, batch_size: int, threads: int) -> int:
    """Threads that read photos within a memory budget."""
    batch = batch_size * extractor.transform.crop**2 * 3 * 4
    left = budget.left("this network", BATCHES * batch + batch_size * ACTIVATIONS)
    return max(1, min(threads, left // PHOTO))


def _check_rows(rows_per_shard: int) -> None:
    if rows_per_shard < 1:
        raise UsageError(f"rows_per_shard must be at least 1, not {rows_per_shard}")
