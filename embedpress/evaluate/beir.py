"""Relevance judgements in the folder layout of BEIR, read as it is."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from embedpress.errors import FormatError, InputError, UsageError
from embedpress.evaluate.metrics import Judgements
from embedpress.extract.rows import read_rows
from embedpress.vectors.files import storage_errors

COLUMNS = ("query-id", "corpus-id", "score")
MOST_LINES = 20_000_000
LONGEST_LINE = 100_000

ById = dict[str, dict[str, float]]


@dataclass(frozen=True)
class Judged:
    """Judgements as row numbers.

    Attributes
    ----------
    query_rows : ndarray, shape (n,), int64
        Rows of the queries that are judged, in order.
    judgements : list of dict, length n
        Base row -> grade; negative numbers stand for documents that are not in the base.
    missing : int
        How many those are.
    """

    query_rows: NDArray[np.int64]
    judgements: Judgements
    missing: int


def read_judgements(folder: str | Path, split: str = "test") -> ById:
    """Read ``qrels/<split>.tsv``.

    Parameters
    ----------
    folder : str or Path
        Holds corpus.jsonl, queries.jsonl (either may be gzipped) and qrels/.
    split : str
        The name of a file in qrels/.

    Returns
    -------
    dict
        query id -> document id -> grade; the highest where a pair is judged twice.

    Raises
    ------
    UsageError
        No such file.
    FormatError
        A file that is not of the layout; names the line.
    """
    path = Path(folder) / "qrels" / f"{split}.tsv"
    if not path.is_file():
        held = sorted(file.stem for file in path.parent.glob("*.tsv"))
        there = f"it has {', '.join(held)}" if held else "is it in the layout of BEIR?"
        raise UsageError(f"{folder} has no qrels/{split}.tsv: {there}")
    judged: ById = {}
    with storage_errors(path, "read"), path.open(encoding="utf-8", newline="") as file:
        try:
            lines = csv.reader(_bounded(file, path), delimiter="\t", quoting=csv.QUOTE_NONE)
            head = next(lines, [])
            if tuple(head) != COLUMNS:
                raise FormatError(f"{path} must begin with the columns {', '.join(COLUMNS)}")
            for number, line in enumerate(lines, 2):
                if not line:
                    continue
                if number > MOST_LINES:
                    raise FormatError(f"{path} has more than {MOST_LINES:,} lines")
                query, document, grade = _fields(line, f"{path}, line {number}")
                own = judged.setdefault(query, {})
                own[document] = max(grade, own.get(document, grade))
        except (UnicodeDecodeError, csv.Error) as error:
            raise FormatError(f"{path} is not a table of text: {error}") from None
    if not judged:
        raise InputError(f"{path} holds no judgements")
    return judged


def _bounded(file: TextIO, path: Path) -> Iterator[str]:
    while line := file.readline(LONGEST_LINE + 1):
        if len(line) > LONGEST_LINE:
            raise FormatError(f"{path} has a line of more than {LONGEST_LINE:,} characters")
        yield line


def _fields(line: list[str], place: str) -> tuple[str, str, float]:
    try:
        query, document, score = line
        grade = float(score)
    except ValueError:
        raise FormatError(f"{place} must be a query, a document and a number") from None
    if not np.isfinite(grade):
        raise FormatError(f"{place}: the grade {score} is not finite")
    return query, document, grade


def as_rows(judged: ById, base_ids: pa.Array, query_ids: pa.Array) -> Judged:
    """Judgements by the rows of embeddings.

    Raises
    ------
    InputError
        No query, or no document, is known by its id.
    """
    row_of = {str(one): row for row, one in enumerate(base_ids.to_pylist())}
    rows: list[int] = []
    judgements: list[dict[Any, float]] = []
    unknown: dict[str, int] = {}
    for row, query in enumerate(map(str, query_ids.to_pylist())):
        if query in judged:
            own = {}
            for document, grade in judged[query].items():
                place = row_of.get(document)
                if place is None:
                    place = unknown.setdefault(document, -2 - len(unknown))
                own[place] = grade
            rows.append(row)
            judgements.append(own)
    hint = "embed corpus.jsonl and queries.jsonl with --id-column _id"
    if not rows:
        raise InputError(f"none of the queries is judged by its id: {hint}")
    if not any(place >= 0 for own in judgements for place in own):
        raise InputError(f"none of the judged documents is in the base by its id: {hint}")
    return Judged(np.asarray(rows, np.int64), judgements, len(unknown))


def read_texts(folder: str | Path, name: str, ids: Iterable[Any]) -> dict[str, str]:
    """Titles and texts of corpus.jsonl or queries.jsonl, plain or gzipped, for some ids.

    Parameters
    ----------
    folder : str or Path
    name : {"corpus", "queries"}
    ids : iterable
        Of the records that are wanted.

    Returns
    -------
    dict
        Without ids that are not there; empty without the file.
    """
    files = [Path(folder) / f"{name}.jsonl", Path(folder) / f"{name}.jsonl.gz"]
    path = next((file for file in files if file.is_file()), None)
    if path is None:
        return {}
    wanted = {str(one) for one in ids}
    found = {}
    for row in read_rows(path, "text"):
        if row.values is not None and str(row.values.get("_id")) in wanted:
            parts = (row.values.get("title"), row.values.get("text"))
            found[str(row.values["_id"])] = ": ".join(str(part) for part in parts if part)
    return found
