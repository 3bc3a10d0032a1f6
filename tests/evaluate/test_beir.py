from __future__ import annotations

import contextlib
import gzip
import json

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from embedpress.errors import InputError, UsageError
from embedpress.evaluate.beir import as_rows, read_judgements, read_texts

HEAD = "query-id\tcorpus-id\tscore\n"


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "qrels").mkdir()
    (tmp_path / "qrels" / "test.tsv").write_text(
        HEAD + 'q1\td1\t2\nq1\td2\t0\n\nq2\t"d3\t1\nq1\td1\t1\n'
    )
    (tmp_path / "qrels" / "dev.tsv").write_text(HEAD + "q9\td1\t1\n")
    corpus = [{"_id": "d1", "title": "One", "text": "first"}, {"_id": "d2", "text": "second"}]
    with gzip.open(tmp_path / "corpus.jsonl.gz", "wt") as file:
        file.writelines(json.dumps(line) + "\n" for line in corpus)
    (tmp_path / "queries.jsonl").write_text(json.dumps({"_id": "q1", "text": "why?"}) + "\n")
    return tmp_path


def test_judgements_are_read_as_they_are(folder):
    # A quote is part of an id, and of a pair that is judged twice the higher grade counts.
    assert read_judgements(folder) == {"q1": {"d1": 2.0, "d2": 0.0}, "q2": {'"d3': 1.0}}
    assert read_judgements(folder, "dev") == {"q9": {"d1": 1.0}}
    assert read_texts(folder, "corpus", ["d1", "d2", "d7"]) == {"d1": "One: first", "d2": "second"}
    assert read_texts(folder, "queries", ["q1"]) == {"q1": "why?"}
    assert read_texts(folder / "qrels", "corpus", ["d1"]) == {}


def test_ids_become_rows(folder):
    judged = read_judgements(folder)
    got = as_rows(judged, pa.array(["d2", "d1"]), pa.array(["q0", "q2", "q1"]))
    np.testing.assert_array_equal(got.query_rows, [1, 2])
    assert list(got.judgements) == [{-2: 1.0}, {1: 2.0, 0: 0.0}]
    assert got.missing == 1
    numbers = as_rows({"7": {"3": 1.0}}, pa.array([3, 4]), pa.array([7]))
    assert list(numbers.judgements) == [{0: 1.0}]
    with pytest.raises(InputError, match=r"none of the queries.*_id"):
        as_rows(judged, pa.array(["d1"]), pa.array([0, 1]))
    with pytest.raises(InputError, match=r"none of the judged documents.*_id"):
        as_rows(judged, pa.array([0, 1]), pa.array(["q1"]))


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"q1\td1\t1\n", "must begin with the columns"),
        (b"", "must begin with the columns"),
        ((HEAD + "q1\td1\n").encode(), "line 2"),
        ((HEAD + "q1\td1\thigh\n").encode(), "line 2"),
        ((HEAD + "q1\td1\tnan\n").encode(), "not finite"),
        (HEAD.encode() + b"\xff\xfe\t\t\n", "not a table"),
        (HEAD.encode(), "no judgements"),
    ],
)
def test_other_files_are_refused(folder, content, said):
    (folder / "qrels" / "test.tsv").write_bytes(content)
    with pytest.raises(InputError, match=said):
        read_judgements(folder)


def test_a_split_that_is_not_there(folder, tmp_path):
    with pytest.raises(UsageError, match=r"train.tsv: it has dev, test"):
        read_judgements(folder, "train")
    with pytest.raises(UsageError, match="layout of BEIR"):
        read_judgements(folder / "qrels")


@given(st.binary(max_size=200))
@settings(max_examples=100, deadline=None)
def test_any_bytes_end_in_an_error_of_ours_or_judgements(tmp_path_factory, content):
    folder = tmp_path_factory.mktemp("beir")
    (folder / "qrels").mkdir()
    for start in (b"", HEAD.encode()):
        (folder / "qrels" / "test.tsv").write_bytes(start + content)
        with contextlib.suppress(InputError):
            assert read_judgements(folder)
