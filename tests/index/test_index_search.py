from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import pytest
from index_truth import assert_best, exact_scores
from samples import curved, write_embeddings

from embedpress.autoencoder.estimator import Compressor
from embedpress.errors import FormatError, InputError, MismatchError, UsageError
from embedpress.index.build import build_index
from embedpress.index.search import SearchIndex, open_index
from embedpress.onnx.compress import compress
from embedpress.onnx.compressor import load
from embedpress.vectors import open_vectors

KINDS: list[tuple[str, dict[str, Any]]] = [
    ("codes", {}),
    ("codes", {"groups": 2, "metric": "ip"}),
    ("codes", {"groups": 1}),
    ("codes", {"metric": "l2"}),
    ("latents", {}),
    ("latents", {"metric": "l2"}),
    ("latents", {"groups": 2, "metric": "ip"}),
]


def recall_of(found: np.ndarray, truth: np.ndarray) -> float:
    pairs = zip(found, truth, strict=True)
    return float(np.mean([len(set(a) & set(b)) / truth.shape[1] for a, b in pairs]))


@pytest.mark.parametrize(("what", "options"), KINDS, ids=str)
def test_a_flat_scan_is_brute_force(
    built: Callable[..., Path],
    compressed: Callable[..., Path],
    saved: Callable[..., Path],
    fitted: Callable[..., Compressor],
    queries: np.ndarray,
    what: str,
    options: dict[str, Any],
) -> None:
    index = open_index(built(what, **options), saved(**options), num_threads=1)
    truth = exact_scores(fitted, compressed(what, **options), queries, options)
    for k in (1, 10, 499):
        assert_best(index.search(queries, k), truth, k, options.get("metric", "cosine"))


@pytest.mark.parametrize(("what", "options"), KINDS, ids=str)
def test_all_lists_of_an_inverted_file_are_a_flat_scan(
    built: Callable[..., Path],
    compressed: Callable[..., Path],
    saved: Callable[..., Path],
    fitted: Callable[..., Compressor],
    queries: np.ndarray,
    what: str,
    options: dict[str, Any],
) -> None:
    index = open_index(built(what, "IVF12", **options), saved(**options), num_threads=1)
    assert isinstance(index.faiss, faiss.IndexIVF)
    assert index.faiss.nlist == 12
    sizes = [index.faiss.invlists.list_size(i) for i in range(12)]
    assert sum(sizes) == 500
    assert max(sizes) < 250
    truth = exact_scores(fitted, compressed(what, **options), queries, options)
    metric = options.get("metric", "cosine")
    assert_best(index.search(queries, 10, nprobe=12), truth, 10, metric)
    assert_best(index.search(queries, 10, nprobe=100), truth, 10, metric)
    # Fewer lists find much of the same, and one list something else than all.
    whole = index.search(queries, 10, nprobe=12).rows
    shares = [recall_of(index.search(queries, 10, nprobe=n).rows, whole) for n in (1, 4, 8)]
    assert 0.2 < shares[0] < 1
    assert shares == sorted(shares)
    assert shares[2] > 0.8
    # By default so many that hardly a hit is missing.
    by_default = index.search(queries, 10).rows
    said = index.manifest.nprobe
    assert np.array_equal(by_default, index.search(queries, 10, nprobe=said).rows)
    assert recall_of(by_default, whole) > 0.95


@pytest.mark.parametrize(("what", "options"), KINDS, ids=str)
@pytest.mark.parametrize("factory", ["Flat", "IVF12"])
def test_plain_faiss_reads_the_file(
    built: Callable[..., Path],
    saved: Callable[..., Path],
    queries: np.ndarray,
    what: str,
    factory: str,
    options: dict[str, Any],
) -> None:
    folder = built(what, factory, **options)
    compressor = load(saved(**options), num_threads=1)
    asked = (
        compressor.encode_queries(queries)
        if what == "codes"
        else compressor.transform_queries(queries)
    )
    scores, rows = faiss.read_index(str(folder / "index.faiss")).search(asked, 10)
    hits = open_index(folder, compressor).search(queries, 10)
    assert np.array_equal(hits.rows, rows)
    assert np.array_equal(hits.scores, scores)


def test_codes_lie_in_the_index_as_they_are(
    built: Callable[..., Path], compressed: Callable[..., Path]
) -> None:
    codes = open_vectors(compressed()).read(columns=()).vectors
    flat = faiss.read_index(str(built() / "index.faiss"))
    assert np.array_equal(faiss.vector_to_array(flat.codes).reshape(500, 4), codes)
    inverted = faiss.read_index(str(built("codes", "IVF12") / "index.faiss"))
    lists = inverted.invlists
    for number in range(12):
        size = lists.list_size(number)
        rows = faiss.rev_swig_ptr(lists.get_ids(number), size)
        found = faiss.rev_swig_ptr(lists.get_codes(number), size * 4).reshape(size, 4)
        assert np.array_equal(found, codes[rows])


@pytest.mark.parametrize("what", ["codes", "latents"])
@pytest.mark.parametrize("factory", ["Flat", "IVF12"])
def test_a_memory_mapped_index_finds_the_same(
    built: Callable[..., Path],
    saved: Callable[..., Path],
    queries: np.ndarray,
    what: str,
    factory: str,
) -> None:
    folder = built(what, factory)
    plain, mapped = (open_index(folder, saved(), memory_map=m) for m in (False, True))
    for expression in (None, 'label == "food"'):
        first = plain.search(queries, 7, filter=expression)
        second = mapped.search(queries, 7, filter=expression)
        assert np.array_equal(first.rows, second.rows)
        assert np.array_equal(first.scores, second.scores)


@pytest.mark.parametrize("factory", ["Flat", "IVF12"])
def test_more_hits_than_rows(
    built: Callable[..., Path],
    compressed: Callable[..., Path],
    saved: Callable[..., Path],
    fitted: Callable[..., Compressor],
    queries: np.ndarray,
    factory: str,
) -> None:
    for what, options in (("codes", {}), ("latents", {"metric": "l2"})):
        index = open_index(built(what, factory, **options), saved(**options), num_threads=1)
        hits = index.search(queries[:3], 600, nprobe=12)
        assert hits.rows.shape == hits.scores.shape == (3, 600)
        truth = exact_scores(fitted, compressed(what, **options), queries[:3], options)
        assert_best(hits, truth, 600, options.get("metric", "cosine"))
        assert index.ids(hits.rows)[0][500:] == [None] * 100
        assert len(index.records(hits)[0]) == 500


def test_ids_and_records(
    built: Callable[..., Path], saved: Callable[..., Path], queries: np.ndarray
) -> None:
    index = open_index(built(), saved(), num_threads=1)
    assert len(index) == 500
    hits = index.search(queries, 4)
    ids = index.ids(hits.rows)
    assert ids == [[f"id {row}" for row in line] for line in hits.rows]
    for line, rows, scores in zip(index.records(hits), hits.rows, hits.scores, strict=True):
        for record, row, score in zip(line, rows, scores, strict=True):
            assert list(record)[:2] == ["id", "score"]
            assert record["id"] == f"id {row}"
            # The metadata has a "score" of its own, which must not pass for the hit's.
            assert record["score"] == float(score)
            assert record["limit"] == 1990 + row % 17
            assert record["label"] == ["food", "toys", None, 'it\'s "odd"'][row % 4]


@pytest.mark.parametrize(
    "ids", [[2**62 + i for i in range(60)], [-i for i in range(60)], [f"é{i}" for i in range(60)]]
)
def test_ids_of_any_kind_survive(
    saved: Callable[..., Path], queries: np.ndarray, tmp_path: Path, ids: list[Any]
) -> None:
    write_embeddings(tmp_path / "x", curved(60), ids=ids, rows_per_shard=17)
    compress(tmp_path / "x", saved(), tmp_path / "codes", rows_per_shard=23)
    build_index(tmp_path / "codes", saved(), tmp_path / "index", memory_budget=10_000)
    index = open_index(tmp_path / "index", saved())
    hits = index.search(queries, 3)
    assert index.ids(hits.rows) == [[ids[row] for row in line] for line in hits.rows]
    assert index.table["id"].to_pylist() == ids
    records = index.records(hits)
    assert [set(record) for record in records[0]] == [{"id", "score"}] * 3


def test_a_vector_finds_itself_first(
    built: Callable[..., Path], saved: Callable[..., Path], base: np.ndarray
) -> None:
    index = open_index(built("codes", "Flat", "float32", groups=1), saved(groups=1))
    assert np.array_equal(index.search(base, 1, oversample=500).rows[:, 0], np.arange(500))


def test_threads_change_nothing(
    built: Callable[..., Path], saved: Callable[..., Path], queries: np.ndarray
) -> None:
    before = faiss.omp_get_max_threads()
    one, two = (open_index(built("codes", "IVF12"), saved(), num_threads=n) for n in (1, 2))
    assert np.array_equal(one.search(queries, 9).rows, two.search(queries, 9).rows)
    assert np.array_equal(one.search(queries[:1], 9).rows[0], two.search(queries, 9).rows[0])
    assert faiss.omp_get_max_threads() == before
    with pytest.raises(UsageError, match="num_threads=0"):
        open_index(built(), saved(), num_threads=0)


def test_a_compressor_that_does_not_belong_to_it(
    built: Callable[..., Path], saved: Callable[..., Path]
) -> None:
    with pytest.raises(MismatchError, match="holds codes of another compressor"):
        open_index(built(), saved(groups=1))
    with pytest.raises(UsageError, match="no compressor folder"):
        open_index(built(), built() / "nothing")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"k": 0}, "k=0 must lie between 1 and 10000"),
        ({"k": 10_001}, "k=10001 must lie"),
        ({"nprobe": 0}, "nprobe=0 must be at least 1"),
        ({"nprobe": -3}, "nprobe=-3 must be at least 1"),
        ({"oversample": 0}, "oversample=0 must be at least 1"),
        ({"rerank": True}, "nothing reranks the index"),
        ({"filter": "colour == 1"}, "names 'colour'"),
    ],
)
@pytest.mark.parametrize("factory", ["Flat", "IVF12"])
def test_options_that_cannot_be(
    built: Callable[..., Path],
    saved: Callable[..., Path],
    queries: np.ndarray,
    factory: str,
    arguments: dict[str, Any],
    message: str,
) -> None:
    index = open_index(built("codes", factory), saved())
    with pytest.raises(UsageError, match=message):
        index.search(queries, **arguments)


def test_queries_that_cannot_be(
    built: Callable[..., Path], saved: Callable[..., Path], queries: np.ndarray
) -> None:
    index = open_index(built(), saved())
    for bad, message in (
        (queries[:, :31], "31 dimensions, 32 were expected"),
        (queries[0], "2-d"),
        (queries[:0], "empty"),
        (np.where(queries > 1, np.inf, queries), "holds infinity"),
        ([[1.0], [2.0, 3.0]], "not a matrix of numbers"),
    ):
        with pytest.raises(InputError, match=message):
            index.search(bad)
    assert np.array_equal(index.search(queries.tolist()).rows, index.search(queries).rows)


def test_an_index_of_another_width_than_its_compressor(
    built: Callable[..., Path], saved: Callable[..., Path], queries: np.ndarray, tmp_path: Path
) -> None:
    model = Path(shutil.copytree(saved(), tmp_path / "model"))
    text = (model / "config.json").read_text()
    (model / "config.json").write_text(text.replace('"code_width": 32', '"code_width": 16'))
    with pytest.raises(FormatError):
        SearchIndex(built(), model).search(queries)
