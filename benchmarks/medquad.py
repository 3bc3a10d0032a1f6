"""MedQuAD for the benchmarks: medical questions and their answers through all-MiniLM-L6-v2.

A folder in the layout of BEIR: ``corpus.jsonl`` (15,809 answers), ``queries.jsonl`` (14,979
questions), either may be gzipped, and ``qrels/*.tsv``. Half of the answers, drawn by seed 0, are
the base that methods are trained on, the other half a base that none was trained on; 2,000
questions, drawn by seed 0, are the queries; the others are sample queries, of which embedpress
alone can make use. Embedded once, into ``data/medquad-embeddings``.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from split import ROOT, Split

from embedpress.errors import UsageError
from embedpress.evaluate.metrics import judgements_of
from embedpress.extract.job import extract_text
from embedpress.vectors import Batch, open_vectors

FOLDER = ROOT / "data" / "medquad"
EMBEDDINGS = ROOT / "data" / "medquad-embeddings"
N_QUERIES = 2_000
# Half of the answers are longer than this; their first lines say what they are about.
MAX_LENGTH = 128


def embedded(folder: Path, name: str, embeddings: Path) -> Batch:
    """The embeddings of a file of texts, made where they are missing."""
    files = [folder / f"{name}.jsonl", folder / f"{name}.jsonl.gz"]
    file = next((file for file in files if file.is_file()), None)
    if file is None:
        raise UsageError(f"{folder} holds no {name}.jsonl or {name}.jsonl.gz")
    from demo import minilm_folder

    out = embeddings / name
    embeddings.mkdir(parents=True, exist_ok=True)
    extract_text(
        file,
        out,
        model=minilm_folder(),
        id_column="_id",
        max_length=MAX_LENGTH,
        rows_per_shard=2048,
    )
    return open_vectors(out).read(columns=())


def judgement_lines(folder: Path) -> Iterator[tuple[str, str, float]]:
    """(question, answer, grade) of every judgement."""
    for path in sorted((folder / "qrels").glob("*.tsv")):
        with path.open(encoding="utf-8", newline="") as file:
            for line in csv.DictReader(file, delimiter="\t"):
                yield line["query-id"], line["corpus-id"], float(line["score"])


def load_split(
    folder: Path = FOLDER, embeddings: Path = EMBEDDINGS, n_queries: int = N_QUERIES
) -> Split:
    """The benchmark's vectors, with the judgements of the drawn questions."""
    answers = embedded(folder, "corpus", embeddings)
    questions = embedded(folder, "queries", embeddings)
    order = np.random.default_rng(0).permutation(len(answers.ids))
    asking = np.random.default_rng(0).permutation(len(questions.ids))
    drawn, others = asking[:n_queries], asking[n_queries:]
    half = len(order) // 2
    row_of = {str(id): row for row, id in enumerate(answers.ids.take(order).to_pylist())}
    query_of = {str(id): row for row, id in enumerate(questions.ids.take(drawn).to_pylist())}
    judged = [
        (query_of[question], row_of[answer], grade)
        for question, answer, grade in judgement_lines(folder)
        if question in query_of and answer in row_of
    ]
    return Split(
        base=np.ascontiguousarray(answers.vectors[order[:half]]),
        unseen=np.ascontiguousarray(answers.vectors[order[half:]]),
        queries=np.ascontiguousarray(questions.vectors[drawn]),
        judgements=judgements_of(*zip(*judged, strict=True), queries=len(drawn)),
        sample=np.ascontiguousarray(questions.vectors[others]),
    )
