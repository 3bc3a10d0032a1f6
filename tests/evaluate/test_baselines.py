from __future__ import annotations

import faiss
import numpy as np
import pytest

from embedpress.errors import InputError, UsageError
from embedpress.evaluate.axes import principal_axes
from embedpress.evaluate.baselines import baseline, peers_at
from embedpress.evaluate.coders import Coder
from embedpress.evaluate.metrics import recall_at_k, true_neighbors
from embedpress.evaluate.recipes import Recipe, check_kinds, recipes


@pytest.mark.parametrize("metric", ["cosine", "ip", "l2"])
@pytest.mark.parametrize(
    ("kind", "n_bytes"),
    [("pca", 32), ("pca-sq", 8), ("opq", 8), ("rabitq", 12), ("int8", 32), ("binary", 4)],
)
def test_each_peer_finds_what_it_should(base, queries, kind, n_bytes, metric):
    peer = baseline(kind, n_bytes, dim=32, metric=metric).fit(base[:400])
    truth = true_neighbors(queries, base, 10, metric=metric)
    found = peer.search(base, queries, 10)
    assert found.shape == (80, 10)
    assert found.dtype == np.int64
    assert peer.bytes_per_vector == n_bytes
    assert peer.model_bytes > 0
    assert peer.train_seconds > 0
    assert peer.encode_seconds > 0
    least = {"int8": 0.95, "opq": 0.45, "rabitq": 0.4, "binary": 0.25, "pca": 0.25, "pca-sq": 0.3}
    assert recall_at_k(found, truth).mean() > least[kind]


def test_peers_at_take_exactly_the_bytes(base):
    names = {}
    for peer in peers_at(16, 32, "cosine"):
        peer.fit(base[:300])
        names[peer.kind] = peer.name
        assert peer._fitted().encode(base[:3]).shape == (3, 16)
    assert names["pca"] == "PCA4"
    assert names["pca-sq"] == "PCA16+SQ8"
    assert names["opq"] == "OPQ16"
    assert "RaBitQ" in names["rabitq"]
    slow = {"rq", "prq", "lsq"}
    assert not slow & set(names)
    assert slow <= {p.kind for p in peers_at(16, 32, "l2", slow=True)}


def test_residual_quantization_beats_nothing_less(base, queries):
    peer = baseline("rq", 2, dim=32, metric="ip").fit(base[:600])
    truth = true_neighbors(queries, base[:600], 10, metric="ip")
    assert recall_at_k(peer.search(base[:600], queries, 10), truth).mean() > 0.3
    assert peer._fitted().encode(base[:5]).shape == (5, 2)


@pytest.mark.parametrize("metric", ["cosine", "l2"])
@pytest.mark.parametrize(("kind", "form", "least"), [("prq", "PRQ2x2", 0.4), ("lsq", "LSQ4", 0.5)])
def test_additive_quantizers_find_what_they_should(base, queries, kind, form, least, metric):
    peer = baseline(kind, 4, dim=32, metric=metric).fit(base[:400])
    assert peer.name == form
    assert peer._fitted().encode(base[:5]).shape == (5, 4)
    truth = true_neighbors(queries, base, 10, metric=metric)
    assert peer.model_bytes > 4 * 256 * 16 * 4  # codebooks of half the dimensions at least
    # A random answer would find 10 / 1500.
    assert recall_at_k(peer.search(base, queries, 10), truth).mean() > least


def test_additive_quantizers_at_every_size():
    def labels(kind, n_bytes, dim):
        return [recipe.label for recipe in recipes(kind, n_bytes, dim, "cosine")]

    assert labels("prq", 32, 384) == ["PRQ16x2", "PRQ8x4", "PRQ4x8"]
    assert labels("prq", 8, 384) == ["PRQ4x2", "PRQ2x4"]
    assert labels("prq", 48, 2048) == ["PRQ16x3", "PRQ8x6"]
    assert labels("prq", 48, 384) == ["PRQ24x2", "PRQ12x4", "PRQ6x8"]
    assert labels("prq", 14, 31) == ["PRQ7x2"]
    assert labels("prq", 2, 384) == []
    assert labels("lsq", 8, 384) == ["LSQ8"]
    assert labels("lsq", 48, 384) == ["PLSQ6x8"]
    assert labels("lsq", 12, 384) == []
    # 6 slices do not divide 2,048 dimensions.
    wide = recipes("lsq", 48, 2048, "cosine")[0]
    assert (wide.dims, wide.rotate) == (2052, "random")


def test_slices_that_do_not_divide_the_dimensions_are_padded(base, queries):
    form = Recipe("PRQ3x2", "rq", 33, books=6, splits=3, rotate="random")
    coder = Coder(form, base[:400], l2=False, seed=0)
    codes = coder.encode(base)
    assert codes.shape == (len(base), 6)
    truth = true_neighbors(queries, base, 10, metric="ip")
    assert recall_at_k(coder.search(codes, queries, 10), truth).mean() > 0.4


@pytest.mark.parametrize(
    "recipe",
    [
        Recipe("RQ4", "rq", 32, books=4),
        Recipe("PRQ2x2", "rq", 32, books=4, splits=2),
        Recipe("PLSQ2x2", "lsq", 32, books=4, splits=2),
    ],
    ids=lambda recipe: recipe.label,
)
def test_a_sum_of_codewords_is_what_faiss_restores_and_scans(base, queries, recipe):
    coder = Coder(recipe, base[:400], l2=False, seed=0)
    codes = coder.encode(base)
    index = coder._index
    quantizer = faiss.downcast_AdditiveQuantizer(index.aq)
    words = faiss.vector_to_array(quantizer.codebooks).reshape(4, 256, 32 // recipe.splits)
    slices = []
    for split in range(recipe.splits):
        books = range(split * 4 // recipe.splits, (split + 1) * 4 // recipe.splits)
        slices.append(sum(words[book][codes[:, book]] for book in books))
    restored = np.concatenate(slices, axis=1)
    np.testing.assert_allclose(restored, index.sa_decode(codes), atol=1e-4)
    index.add(base)
    own = index.search(queries, 10)[1]
    assert recall_at_k(coder.search(codes, queries, 10), own).mean() > 0.99


def test_opq_pads_where_the_codebooks_do_not_divide_the_dimensions(base, queries):
    peer = baseline("opq", 5, dim=32, metric="l2").fit(base[:400])
    assert peer._fitted().recipe.dims == 35
    truth = true_neighbors(queries, base, 10, metric="l2")
    assert recall_at_k(peer.search(base, queries, 10), truth).mean() > 0.25


def test_pca_without_loss_is_exact_search(queries):
    rng = np.random.default_rng(0)
    low = rng.normal(size=(500, 4)) @ rng.normal(size=(4, 32)) + 2
    x = np.asarray(low, np.float32)
    for metric in ("ip", "l2"):
        peer = baseline("pca", 20, dim=32, metric=metric).fit(x)
        np.testing.assert_array_equal(
            peer.search(x, queries, 5), true_neighbors(queries, x, 5, metric=metric)
        )


def test_search_is_scored_by_what_codes_restore(base, queries):
    coder = Coder(Recipe("PQ4", "pq", 32, books=4), base, l2=False, seed=0)
    codes = coder.encode(base)
    restored = coder._index.sa_decode(codes)
    wanted = np.argsort(-(queries @ restored.T), axis=1)[:, :1]
    scores = np.take_along_axis(queries @ restored.T, coder.search(codes, queries, 1), axis=1)
    best = np.take_along_axis(queries @ restored.T, wanted, axis=1)
    np.testing.assert_allclose(scores, best, rtol=1e-5)
    # The same as FAISS's own scan of the codes.
    plain = coder._index
    plain.add_sa_codes(codes)
    own = plain.search(queries, 10)[1]
    assert recall_at_k(coder.search(codes, queries, 10), own).mean() > 0.99


def test_a_bit_a_component_is_the_sign_about_the_mean():
    x = np.array([[1, -5], [1.2, -6], [3, -9], [3.2, -8]], np.float32).repeat(100, axis=0)
    coder = Coder(Recipe("binary", "sign", 2), x, l2=False, seed=0)
    restored = coder._index.sa_decode(coder.encode(x[::100]))
    np.testing.assert_allclose(
        restored, [[1.1, -5.5], [1.1, -5.5], [3.1, -8.5], [3.1, -8.5]], rtol=1e-5
    )


def test_rabitq_pays_for_its_factors():
    for recipe in recipes("rabitq", 56, 384, "cosine"):
        if recipe.bits == 1:
            assert recipe.dims == 384
            return
    pytest.skip("this FAISS has no RaBitQ")


@pytest.mark.parametrize(
    ("kind", "n_bytes"),
    [("pca", 6), ("pca", 128), ("opq", 33), ("int8", 31), ("binary", 5), ("rabitq", 8), ("opq", 0)],
)
def test_sizes_a_kind_does_not_have(kind, n_bytes):
    assert recipes(kind, n_bytes, 32, "ip") == []
    with pytest.raises(UsageError, match="no form"):
        baseline(kind, n_bytes, dim=32, metric="ip")


def test_bad_requests(base, queries):
    with pytest.raises(UsageError, match="zip"):
        baseline("zip", 8, dim=32, metric="ip")
    with pytest.raises(UsageError, match="hamming"):
        baseline("opq", 8, dim=32, metric="hamming")
    peer = baseline("opq", 8, dim=32, metric="ip")
    with pytest.raises(UsageError, match="fit"):
        peer.search(base, queries, 5)
    with pytest.raises(InputError, match="256"):
        peer.fit(base[:100])
    with pytest.raises(InputError, match="32 were expected"):
        peer.fit(base[:, :8])
    peer.fit(base[:300])
    with pytest.raises(UsageError, match="k is 301"):
        peer.search(base[:300], queries, 301)


def test_threads_are_put_back_after_a_failure(base):
    before = faiss.omp_get_max_threads()
    with pytest.raises(InputError):
        baseline("opq", 8, dim=32, metric="ip", num_threads=1).fit(base[:100])
    assert faiss.omp_get_max_threads() == before


def test_the_seed_decides(base, queries):
    found = [
        baseline("rabitq", 12, dim=32, metric="ip", seed=seed).fit(base).search(base, queries, 5)
        for seed in (1, 1, 2)
    ]
    np.testing.assert_array_equal(found[0], found[1])
    assert not np.array_equal(found[0], found[2])


def test_principal_axes_have_a_fixed_sign_and_order(base):
    axes = principal_axes(base, 5)
    np.testing.assert_allclose(axes.T @ axes, np.eye(5), atol=1e-5)
    assert (np.take_along_axis(axes, np.abs(axes).argmax(axis=0)[None], axis=0) > 0).all()
    spread = (base @ axes).var(axis=0)
    assert (np.diff(spread) < 0).all()
    np.testing.assert_allclose(spread, np.linalg.eigvalsh(np.cov(base.T))[::-1][:5], rtol=1e-2)


def test_kinds_of_baselines():
    assert check_kinds(False) == ()
    assert not {"rq", "prq", "lsq"} & set(check_kinds(True))
    assert check_kinds(["opq", "pca", "opq"]) == ("opq", "pca")
    with pytest.raises(UsageError, match="best"):
        check_kinds(["best"])
