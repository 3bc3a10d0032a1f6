from __future__ import annotations

import json

import numpy as np
import pytest
from stub_compressor import Nested, Reconstructing, StubCompressor

from embedpress.errors import FormatError, InputError, UsageError
from embedpress.evaluate import evaluation, forms
from embedpress.evaluate.evaluation import evaluate
from embedpress.evaluate.forms import search_codes, search_latents
from embedpress.evaluate.metrics import recall_at_k, true_neighbors
from embedpress.evaluate.report import render
from embedpress.evaluate.result import Evaluation
from embedpress.evaluate.statistics import code_use, latent_space, reconstruction, row_cosines


@pytest.fixture(scope="module")
def compressor(base):
    return StubCompressor(base)


@pytest.fixture(scope="module")
def measured(base, queries, compressor):
    judged = [{int(i % len(base)): 1.0, 3: 2.0} for i in range(len(queries))]
    return evaluate(
        base,
        queries,
        compressor,
        baselines=["pca", "pca-sq", "binary"],
        base_texts=[f"document {i}" for i in range(len(base))],
        query_texts=[f"question {i}" for i in range(len(queries))],
        judgements=judged,
        history={"codes": [{"step": 0, "recall": 0.4, "loss": 2}]},
    )


def test_codes_are_scored_by_what_they_restore(base, queries, compressor):
    truth = true_neighbors(queries, base, 10, metric="ip")
    restored = compressor.decode(compressor.encode(base))
    by_hand = true_neighbors(queries, restored, 10, metric="ip")
    found, _ = search_codes(compressor, compressor.encode(base), queries, 10)
    assert recall_at_k(found, by_hand).mean() > 0.995
    assert recall_at_k(found, truth).mean() == pytest.approx(
        recall_at_k(by_hand, truth).mean(), abs=0.01
    )


@pytest.mark.parametrize("metric", ["ip", "l2", "cosine"])
def test_both_ways_to_score_codes_agree(base, queries, metric, monkeypatch):
    scan = StubCompressor(base, metric=metric)
    own = Reconstructing(base, metric=metric)
    monkeypatch.setattr(forms, "BLOCK_ROWS", 100)
    codes = scan.encode(base)
    a, b = (search_codes(c, codes, queries, 10)[0] for c in (scan, own))
    assert recall_at_k(a, b).mean() > 0.995


def test_latents_are_searched_by_the_metric(base, queries, compressor):
    found, _ = search_latents(compressor, compressor.transform(base), queries, 5)
    by_hand = true_neighbors(
        compressor.transform(queries), compressor.transform(base), 5, metric="ip"
    )
    np.testing.assert_array_equal(found, by_hand)


def test_nested_latents_are_forms_of_their_own(base, queries):
    nested = Nested(base)
    whole, short = (nested.transform(base)[:, :n].copy() for n in (8, 3))
    figures = evaluate(base, queries, nested, baselines=["pca"])
    truth = true_neighbors(queries, base, 10, metric="ip")
    for name, size, latents in (("latents", 32, whole), ("latents, first 3", 12, short)):
        row = next(row for row in figures.recall if row.name == name)
        asked = nested.transform(queries)[:, : latents.shape[1]].copy()
        found = true_neighbors(asked, latents, 10, metric="ip")
        assert (row.kind, row.bytes) == ("latents", size)
        assert row.recall == pytest.approx(recall_at_k(found, truth).mean(), abs=0.005)
    assert figures.row("latents").bytes == 32
    assert [row.bytes for row in figures.recall if row.kind == "peer"] == [4, 32, 12]
    assert {point.form for point in figures.rerank} == {"codes", "latents"}
    assert "embedpress latents, first 3" in render(figures)
    with pytest.raises(InputError, match="wide"):
        search_latents(nested, nested.transform(base)[:, :5].copy(), queries, 2)


def test_codebooks_of_another_compressor_are_refused(base, queries, compressor):
    with pytest.raises(InputError, match="belong together"):
        search_codes(compressor, np.zeros((5, 3), np.uint8), queries, 2)


def test_the_figures_are_those_of_the_parts(base, queries, compressor, measured):
    truth = true_neighbors(queries, base, 10, metric="ip")
    found, _ = search_codes(compressor, compressor.encode(base), queries, 10)
    codes = measured.row("codes")
    assert codes.recall == pytest.approx(recall_at_k(found, truth).mean(), abs=0.005)
    assert codes.low < codes.recall < codes.high
    assert codes.bytes == 4
    assert measured.row("latents").bytes == 32
    original = measured.row("original")
    assert (original.bytes, original.recall) == (128, 1.0)
    assert (measured.base_rows, measured.query_rows, measured.dim) == (1500, 80, 32)
    assert measured.form == "codes"


def test_recall_at_other_depths(base, queries, compressor, measured):
    assert {one.k for one in measured.depths} == {1, 10, 100}
    assert {one.recall for one in measured.depths if one.name == "embeddings"} == {1.0}
    truth = true_neighbors(queries, base, 100, metric="ip")
    found, _ = search_latents(compressor, compressor.transform(base), queries, 100)
    for k in (1, 10, 100):
        one = next(o for o in measured.depths if (o.name, o.k) == ("latents", k))
        assert one.recall == pytest.approx(recall_at_k(found, truth[:, :k]).mean())
        assert one.low <= one.recall <= one.high
    at_ten = {one.name: one.recall for one in measured.depths if one.k == 10}
    assert at_ten == {row.name: row.recall for row in measured.recall}


def test_peers_are_compared_at_equal_bytes(measured):
    peers = [(row.name, row.bytes) for row in measured.recall if row.kind == "peer"]
    assert [size for _, size in peers] == [4, 4, 4, 32]
    assert peers[0][0] == "PCA1"
    assert peers[3][0] == "PCA8"
    # The stub's latents are those of PCA: no difference, query by query.
    last = next(row for row in measured.recall if row.name == "PCA8")
    assert abs(last.difference) < 0.08
    first = next(row for row in measured.recall if row.name == "PCA1")
    assert first.difference == pytest.approx(first.recall - measured.row("codes").recall)
    assert first.difference_low <= first.difference <= first.difference_high < 0


def test_reranking_more_candidates_finds_more(measured):
    for form in ("codes", "latents"):
        points = [p for p in measured.rerank if p.form == form]
        assert [p.candidates for p in points] == [10, 20, 50, 100, 200]
        recalls = [p.recall for p in points]
        assert recalls == sorted(recalls)
        assert recalls[0] == pytest.approx(measured.row(form).recall)


def test_the_channel_rises_with_the_bytes(measured):
    points = [p for p in measured.curve if p.name == "Gaussian channel"]
    assert [p.bytes for p in points] == [1, 2, 4, 8, 16]
    assert [p.recall for p in points] == sorted(p.recall for p in points)
    assert [p.bytes for p in measured.curve if p.name == "PCA+SQ"] == [1, 2, 4, 8, 16]


def test_worst_queries_come_with_their_texts(measured):
    assert 0 < len(measured.worst) <= 10
    recalls = [q.recall for q in measured.worst]
    assert recalls == sorted(recalls)
    first = measured.worst[0]
    assert first.text == f"question {first.row}"
    assert all(text.startswith("document ") for text in first.lost + first.intruders)
    assert not set(first.lost) & set(first.intruders)


def test_relevance_of_the_exact_search_comes_first(measured):
    names = [row.name for row in measured.relevance]
    assert names[:3] == ["embeddings", "codes", "latents"]
    assert names[3:] == [row.name for row in measured.recall if row.kind == "peer"]
    assert all(0 <= row.ndcg <= 1 and row.queries == 80 for row in measured.relevance)


def test_it_goes_to_json_and_back(measured):
    text = json.dumps(measured.to_dict(), allow_nan=False)
    assert Evaluation.from_dict(json.loads(text)) == measured


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"k": "10"}, "evaluation.k must be a whole number"),
        ({"k": True}, "evaluation.k must be a whole number"),
        ({"recall": {}}, "evaluation.recall must be a list"),
        ({"latents": [1]}, "evaluation.latents must be an object"),
        ({"surprise": 1}, "unknown field 'surprise'"),
        ({"history": {"codes": [{"loss": float("nan")}]}}, "finite number"),
        ({"curve": [{"name": "x", "bytes": 1}]}, "lacks fields, among recall"),
    ],
)
def test_what_is_no_evaluation_is_refused(measured, change, message):
    with pytest.raises(FormatError, match=message):
        Evaluation.from_dict({**measured.to_dict(), **change})


def test_a_missing_field_is_named(measured):
    data = measured.to_dict()
    del data["metric"]
    with pytest.raises(FormatError, match="metric"):
        Evaluation.from_dict(data)
    with pytest.raises(FormatError):
        Evaluation.from_dict([1])


@pytest.mark.parametrize("sizes", [{"n_components": None}, {"code_size": None}])
def test_one_form_is_enough(base, queries, sizes):
    got = evaluate(base[:300], queries[:10], StubCompressor(base, **sizes), k=3)
    kinds = [row.kind for row in got.recall]
    assert kinds == ["original", got.form]
    assert (got.codes is None) == ("code_size" in sizes)
    assert (got.latents is None) == ("n_components" in sizes)


def test_a_small_base_and_k_one(base, queries):
    got = evaluate(base[:30], queries[:5], StubCompressor(base), k=1)
    assert [p.candidates for p in got.rerank if p.form == "codes"] == [1, 2, 5, 10, 20]
    got = evaluate(base[:3], queries[:5], StubCompressor(base), k=3)
    assert got.rerank[0].recall == 1.0
    with pytest.raises(UsageError):
        evaluate(base[:3], queries[:5], StubCompressor(base), k=4)


def test_nothing_varies(queries):
    same = np.ones((300, 32), np.float32)
    rng = np.random.default_rng(0)
    stub = StubCompressor(rng.normal(size=(300, 32)).astype(np.float32))
    assert evaluate(same, queries, stub, k=2).curve == []


def test_rows_go_through_the_compressor_in_blocks(base, queries, monkeypatch):
    monkeypatch.setattr(forms, "BLOCK_ROWS", 64)
    stub = StubCompressor(base)
    evaluate(base[:200], queries[:5], stub, k=2)
    assert max(stub.batches) == 64
    assert stub.batches[:4] == [64, 64, 64, 8]


def test_inputs_that_do_not_fit(base, queries, compressor):
    with pytest.raises(InputError, match="2 query texts for 80"):
        evaluate(base, queries, compressor, query_texts=["a", "b"])
    with pytest.raises(InputError, match="1 judgements"):
        evaluate(base, queries, compressor, judgements=[{}])
    with pytest.raises(InputError, match="no query has a relevant"):
        evaluate(base[:50], queries[:2], compressor, judgements=[{}, {1: 0}])
    with pytest.raises(UsageError, match="zip"):
        evaluate(base, queries, compressor, baselines=["zip"])
    with pytest.raises(InputError, match="neither codes nor latents"):
        evaluate(base, queries, StubCompressor(base, n_components=None, code_size=None))


def test_steps_are_named(base, queries, compressor):
    steps: list[str] = []
    evaluate(base[:300], queries[:5], compressor, baselines=["int8", "pca"], progress=steps.append)
    assert steps[:4] == ["exact search", "codes", "latents", "Gaussian channel"]
    assert evaluation.CURVE_PEER == "pca-sq"


def test_row_cosines():
    x = np.array([[1, 0], [1, 1], [0, 0], [0, 0]], np.float32)
    y = np.array([[-2, 0], [5, 0], [0, 0], [1, 0]], np.float32)
    np.testing.assert_allclose(row_cosines(x, y), [-1, 2**-0.5, 1, 0])


def test_reconstruction_of_itself_is_perfect(base):
    got = reconstruction("codes", base, base)
    assert (got.cosine_mean, got.cosine_p01, got.relative_error) == pytest.approx((1, 1, 0))
    assert sum(got.counts) == got.rows == 1500
    half = reconstruction("codes", base, base / 2)
    assert half.relative_error == pytest.approx(0.25)
    assert half.cosine_mean == pytest.approx(1)
    assert sum(reconstruction("codes", base, -base).counts) == 1500


def test_effective_rank_counts_the_directions_in_use():
    rng = np.random.default_rng(0)
    z = rng.normal(size=(20_000, 6)).astype(np.float32)
    z[:, 4:] = 0
    space = latent_space(z)
    assert space.effective_rank == pytest.approx(4, abs=0.01)
    assert space.dead == 2
    assert sum(space.variance_shares) == pytest.approx(1)
    # Correlated components: one direction only, though none is dead.
    line = latent_space(np.outer(rng.normal(size=500), [1, 2, 3]).astype(np.float32))
    assert line.effective_rank == pytest.approx(1, abs=1e-3)
    assert line.dead == 0
    assert latent_space(np.ones((5, 3), np.float32)).dead == 3


def test_histograms_count_every_component():
    z = np.random.default_rng(0).normal(size=(4000, 3)).astype(np.float32) * [1, 2, 0.1]
    space = latent_space(z.astype(np.float32))
    assert len(space.histograms) == 3
    assert all(3990 <= sum(counts) <= 4000 for counts in space.histograms)
    centres = (np.array(space.edges[:-1]) + space.edges[1:]) / 2
    spreads = [np.sqrt(np.average(centres**2, weights=counts)) for counts in space.histograms]
    np.testing.assert_allclose(spreads[:2], [1, 2], rtol=0.05)


def test_code_use_by_hand():
    codes = np.array([[0, 7], [0, 8], [1, 9], [1, 10]], np.uint8)
    got = code_use(codes)
    assert got.unused == [254, 252]
    assert got.entropy_bits == pytest.approx([1, 2])
    every = code_use(np.arange(256, dtype=np.uint8)[:, None])
    assert (every.unused, every.entropy_bits) == ([0], [8.0])
