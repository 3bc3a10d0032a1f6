from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from index_truth import IDS, METADATA, N, assert_best, exact_scores

from embedpress.autoencoder.estimator import Compressor
from embedpress.errors import UsageError
from embedpress.index.filter import filter_rows
from embedpress.index.search import open_index

TABLE = pa.table({"id": IDS, **METADATA})
ROWS = [dict(zip(METADATA, values, strict=True)) for values in zip(*METADATA.values(), strict=True)]

# A missing value makes a comparison neither true nor false, and only what is true is kept.
EXPRESSIONS: list[tuple[str, Callable[[dict[str, Any]], bool | None]]] = [
    ('label == "food"', lambda r: r["label"] == "food"),
    ("label == 'food'", lambda r: r["label"] == "food"),
    ('label != "food"', lambda r: r["label"] is not None and r["label"] != "food"),
    ('not label == "food"', lambda r: r["label"] is not None and r["label"] != "food"),
    ('label == "it\'s \\"odd\\""', lambda r: r["label"] == 'it\'s "odd"'),
    ("year > 2000", lambda r: r["year"] is not None and r["year"] > 2000),
    ("year >= 2000.5", lambda r: r["year"] is not None and r["year"] > 2000),
    ("year < -5", lambda r: False),
    ("score < -490", lambda r: r["score"] < -490),
    ("year == limit", lambda r: r["year"] is not None and r["year"] == r["limit"]),
    ("sold", lambda r: r["sold"]),
    ("not sold", lambda r: r["sold"] is False),
    ("sold == True", lambda r: r["sold"]),
    ("year in [1991, 1995]", lambda r: r["year"] in (1991, 1995)),
    ("year in (1991,)", lambda r: r["year"] == 1991),
    ("year not in [1991, 1995]", lambda r: r["year"] not in (1991, 1995, None)),
    ("not year in [1991, 1995]", lambda r: r["year"] not in (1991, 1995, None)),
    ('label in ["food", "toys", "none"]', lambda r: r["label"] in ("food", "toys")),
    ("label in []", lambda r: False),
    ("label not in []", lambda r: r["label"] is not None),
    ("price in [1, 2.5]", lambda r: r["price"] in (1, 2.5)),
    ('nothing == "x"', lambda r: False),
    ("nothing in [1]", lambda r: False),
    ("nothing not in [1]", lambda r: False),
    (
        '(label == "food" or year > 2010) and not price < 60',
        lambda r: (
            (r["label"] == "food" or (r["year"] or 0) > 2010)
            and r["price"] is not None
            and r["price"] >= 60
        ),
    ),
    ("  year > 2000  ", lambda r: r["year"] is not None and r["year"] > 2000),
    ("limit > 0", lambda r: True),
]


@pytest.mark.parametrize(("expression", "keeps"), EXPRESSIONS, ids=lambda v: str(v)[:50])
def test_rows_that_an_expression_keeps(
    expression: str, keeps: Callable[[dict[str, Any]], bool | None]
) -> None:
    expected = [bool(keeps(row)) for row in ROWS]
    kept = filter_rows(TABLE, expression)
    assert kept.dtype == bool
    assert kept.tolist() == expected
    # The same where the columns lie in several chunks, or are dictionary-encoded.
    chunked = pa.concat_tables([TABLE.slice(0, 101), TABLE.slice(101)])
    label = chunked.column_names.index("label")
    coded = chunked.set_column(label, "label", chunked["label"].dictionary_encode())
    assert filter_rows(chunked, expression).tolist() == expected
    assert filter_rows(coded, expression).tolist() == expected


@pytest.mark.parametrize(
    ("expression", "message"),
    [
        ("", "is not an expression"),
        ("year >", "is not an expression"),
        ("year = 3", "is not an expression"),
        ("year > 3; sold", "is not an expression"),
        ("year > 3\nsold", "is not an expression"),
        ("import os", "is not an expression"),
        ("\0", "is not an expression"),
        ("((((" * 3000, "longer than|is not an expression"),
        ("not " * 2000 + "sold", "is not an expression|cannot contain"),
        ("-" * 3000 + "1 == year", "is not an expression|compares a column first"),
        ("sold and " * 1200, "longer than"),
        ("year > " + "9" * 30, "is not an expression"),
        ("year in [" + "9" * 30 + "]", "is not an expression"),
        ("year > " + "9" * 5000, "is not an expression"),
        ('label == "\\ud800"', "is not an expression"),
        ("colour == 1", "names 'colour', but the index has the columns id, label"),
        ("colour", "names 'colour'"),
        ('year == "1990"', "compares unlike types"),
        ("label > 3", "compares unlike types"),
        ("label in [3]", "compares unlike types"),
        ('year in ["1990"]', "compares unlike types"),
        ('label in ["a", 3]', "compares unlike types"),
        ("year in [1990.5]", "compares unlike types"),
        ("sold > 1", "compares unlike types"),
        ("not label", "compares unlike types"),
        ("label and sold", "compares unlike types"),
        ("label", "must compare something"),
        ("year", "must compare something"),
        ("1990 == year", "compares a column first"),
        ("'a' == 'a'", "compares a column first"),
        ("1990 < year < 2000", "cannot contain"),
        ("True", "cannot contain 'True'"),
        ("year + 1 > 1990", "compares a column first"),
        ("year > 1990 + 1", "not '1990"),
        ("year == None", "not 'None'"),
        ("year is 1990", "compares by"),
        ("year == ...", "not '...'"),
        ("year == 1j", "compares with numbers"),
        ('label == b"food"', "compares with numbers"),
        ('label == f"{year}"', "compares with numbers"),
        ("year in 1990", 'after "in" a filter takes a list'),
        ("year in {1990}", 'after "in" a filter takes a list'),
        ("year in label", 'after "in" a filter takes a list'),
        ("year in [*label]", "compares with numbers"),
        ("year in [[1990]]", "compares with numbers"),
        ("year == -label", "compares with numbers"),
        ('__import__("os").system("true")', "cannot contain"),
        ("label.__class__", "cannot contain"),
        ("label.__class__ == 1", "compares a column first"),
        ("__builtins__", "names '__builtins__'"),
        ("(lambda: 1)()", "cannot contain"),
        ("[x for x in label]", "cannot contain"),
        ("(year := 1)", "cannot contain"),
        ("label[0] == 'f'", "compares a column first"),
        ("sold if sold else sold", "cannot contain"),
        ('label == open("/etc/passwd").read()', "compares with numbers"),
        ("print(year)", "cannot contain"),
    ],
    ids=lambda value: value[:40],
)
def test_expressions_that_are_none(expression: str, message: str) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        filter_rows(TABLE, expression)
    assert "\n" not in str(caught.value)


@pytest.mark.filterwarnings("ignore::SyntaxWarning", "ignore::DeprecationWarning")
@given(
    st.text(max_size=40) | st.text(alphabet="yearlbso dnti=<>!()[],.'\"0123456789-+*", max_size=40)
)
@settings(deadline=None)
def test_any_text_is_answered(text: str) -> None:
    try:
        kept = filter_rows(TABLE, text)
    except UsageError:
        return
    assert kept.shape == (N,)


@given(
    st.sampled_from(["year", "limit", "price"]),
    st.sampled_from(["==", "!=", "<", "<=", ">", ">="]),
    st.integers(1985, 2025) | st.floats(-10, 2100, allow_nan=False),
)
@settings(deadline=None)
def test_comparisons_are_those_of_python(column: str, operator: str, value: float) -> None:
    import operator as op

    compare = {"==": op.eq, "!=": op.ne, "<": op.lt, "<=": op.le, ">": op.gt, ">=": op.ge}[operator]
    expected = [x is not None and compare(x, value) for x in METADATA[column]]
    assert filter_rows(TABLE, f"{column} {operator} {value!r}").tolist() == expected


@pytest.mark.parametrize("factory", ["Flat", "IVF12"])
@pytest.mark.parametrize(
    ("what", "options"),
    [("codes", {}), ("codes", {"groups": 2, "metric": "ip"}), ("latents", {"metric": "l2"})],
    ids=str,
)
@pytest.mark.parametrize(
    "expression", ['label == "food"', "score <= -493", "score < -498", "year < 0", "limit > 0"]
)
def test_a_filtered_search_is_brute_force_over_the_kept_rows(
    built: Callable[..., Path],
    compressed: Callable[..., Path],
    saved: Callable[..., Path],
    fitted: Callable[..., Compressor],
    queries: np.ndarray,
    factory: str,
    what: str,
    options: dict[str, Any],
    expression: str,
) -> None:
    index = open_index(built(what, factory, **options), saved(**options), num_threads=1)
    hits = index.search(queries, 8, filter=expression, nprobe=12)
    truth = exact_scores(fitted, compressed(what, **options), queries, options)
    truth[:, ~filter_rows(TABLE, expression)] = -np.inf
    if not np.isfinite(truth).any():
        assert (hits.rows == -1).all()
        assert index.records(hits) == [[]] * len(queries)
    else:
        assert_best(hits, truth, 8, options.get("metric", "cosine"))
