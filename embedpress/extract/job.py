"""Extraction as a job: a whole input to a folder of embeddings, resumed where it was killed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from embedpress.engine.job import Job, Piece
from embedpress.engine.run import run_job
from embedpress.errors import InputError, UsageError
from embedpress.extract.image import ImageExtractor
from embedpress.extract.images import ImageFile, contents_of, list_images, read_ahead
from embedpress.extract.text import TextExtractor
from embedpress.extract.texts import TextChunk, open_texts
from embedpress.threads import check_threads
from embedpress.vectors.manifest import Manifest
from embedpress.vectors.shard import shard_table


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
    num_threads: int | None = None,
    progress: Callable[[int], None] | None = None,
) -> Manifest:
    """Embed the texts of a file into a folder of Parquet shards.

    Parameters
    ----------
    input : str or Path
        A .txt, .jsonl, .csv or .parquet file or a folder of .parquet files; see
        :func:`embedpress.extract.texts.open_texts`.
    out : str or Path
        The folder to write. The same command finishes a job that was killed.
    model : str or Path
        A model folder or a hub id; see :class:`~embedpress.extract.text.TextExtractor`, also
        for `pooling`, `normalize`, `max_length`, `revision` and `device`.
    column, id_column : str, optional
        Where the texts and the ids are; by default ids are the records' numbers.
    batch_tokens : int
        The most tokens of a batch, padding counted.
    rows_per_shard : int
        Texts in each shard but the last.
    num_threads : int, optional
        Threads of the network.
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

    def work(chunk: TextChunk) -> Piece:
        before = extractor.truncated
        vectors = extractor.encode(chunk.texts, batch_tokens=batch_tokens)
        # Not add_column: a table without columns may count no rows.
        columns = dict(zip(chunk.metadata.column_names, chunk.metadata.columns, strict=True))
        metadata = pa.table({"text": pa.array(chunk.texts, pa.string()), **columns})
        counters = {"truncated": extractor.truncated - before, "blank": chunk.blank}
        return Piece(shard_table(chunk.ids, vectors, metadata), counters=counters)

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
        chunks=lambda done: texts.chunks(rows_per_shard, done),
        work=work,
        shards=-(-texts.count // rows_per_shard),
    )
    return run_job(job, progress=progress)


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
    num_threads: int | None = None,
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
    num_threads : int, optional
        Threads of the network, and as many that read photos.
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
    files = list_images(folder)
    extractor = ImageExtractor(model, weights=weights, device=device, num_threads=num_threads)
    labelled = any(file.label is not None for file in files)
    limit = _SkipLimit(max_skipped, total=len(files))
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

    with ThreadPoolExecutor(check_threads(num_threads)) as pool:

        def work(chunk: list[ImageFile]) -> Piece:
            kept: list[ImageFile] = []
            blocks = [np.empty((0, extractor.dim), np.float32)]
            skipped: list[dict[str, Any]] = []
            for batch, read in read_ahead(chunk, extractor.transform, batch_size, pool):
                for file, found in zip(batch, read, strict=True):
                    if isinstance(found, str):
                        limit.add(file, found)
                        skipped.append({"id": file.id, "reason": found})
                    else:
                        kept.append(file)
                arrays = [found for found in read if not isinstance(found, str)]
                if arrays:
                    blocks.append(extractor.encode_pixels(np.stack(arrays)))
            table = shard_table(
                pa.array([file.id for file in kept], pa.string()),
                np.concatenate(blocks),
                _image_metadata(kept, labelled=labelled),
            )
            return Piece(table, skipped=skipped, counters={"skipped": len(skipped)})

        job = Job(
            out=Path(out),
            header=header,
            inputs_fingerprint=contents_of(files, pool),
            chunks=chunks,
            work=work,
            shards=-(-len(files) // rows_per_shard),
        )
        manifest = run_job(job, progress=progress)
    # An earlier run, stopped half-way, may have skipped some of them.
    limit.check(manifest.counters.get("skipped", 0))
    return manifest


@dataclass
class _SkipLimit:
    """Counts what this run skipped, and ends it at the first photo too many."""

    most: int | None
    total: int
    count: int = 0

    def add(self, file: ImageFile, reason: str) -> None:
        self.count += 1
        last = f"; the last one: {file.id}: {reason}"
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


def _image_metadata(files: list[ImageFile], *, labelled: bool) -> pa.Table:
    columns = {"path": pa.array([file.id for file in files], pa.string())}
    if labelled:
        columns["label"] = pa.array([file.label for file in files], pa.string())
    return pa.table(columns)


def _check_rows(rows_per_shard: int) -> None:
    if rows_per_shard < 1:
        raise UsageError(f"rows_per_shard must be at least 1, not {rows_per_shard}")
