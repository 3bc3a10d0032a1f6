from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from samples import DIM, SMALL, curved
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils import _set_output

from embedpress.autoencoder.estimator import Compressor
from embedpress.autoencoder.judge import leave_one_out_recall
from embedpress.errors import InputError, UsageError

METHODS = ("transform", "transform_queries", "encode", "encode_queries")
GROUPS = [1, 2, 4]


@pytest.mark.parametrize("groups", GROUPS)
@pytest.mark.parametrize("metric", ["cosine", "ip"])
def test_codes_are_the_greedy_nearest_codewords_of_the_latent(
    fitted: Callable[..., Compressor], others: np.ndarray, metric: str, groups: int
) -> None:
    compressor = fitted(metric=metric, groups=groups)
    codes = compressor.encode(others)
    assert codes.shape == (300, 4)
    assert codes.dtype == np.uint8
    tower = compressor.code_tower_
    assert tower is not None
    assert tower.quantizer is not None
    books = tower.quantizer.codebooks.detach().numpy().astype(np.float64)
    stages, _, _, width = books.shape
    assert (stages, width) == (4 // groups, DIM // groups)
    z = compressor._run(lambda x: tower.encoder(compressor.scale_(x)), others)
    residual = z.astype(np.float64).reshape(300, groups, width)
    for stage in range(stages):
        for group in range(groups):
            part, chosen = residual[:, group], codes[:, stage * groups + group]
            distances = np.square(part[:, None] - books[stage, group][None]).sum(axis=2)
            least = distances.min(axis=1)
            taken = distances[np.arange(300), chosen]
            assert (taken <= least + 1e-5 * (1 + least)).all()
            assert (chosen == distances.argmin(axis=1)).mean() > 0.98
            residual[:, group] = part - books[stage, group][chosen]


@pytest.mark.parametrize(
    ("metric", "groups"), [("cosine", 1), ("cosine", 2), ("ip", 2), ("ip", 4), ("l2", 4)]
)
def test_code_queries_score_as_the_query_latent_does(
    fitted: Callable[..., Compressor], others: np.ndarray, metric: str, groups: int
) -> None:
    compressor = fitted(metric=metric, groups=groups)
    tower = compressor.code_tower_
    assert tower is not None
    assert tower.quantizer is not None
    stages, _, _, width = tower.quantizer.codebooks.shape
    codes = compressor.encode(others[:100])
    centroids = tower.quantizer.codebooks.detach().numpy().reshape(4, 256, width)
    chosen = centroids[np.arange(4), codes].reshape(100, 4 * width)
    queries = compressor.encode_queries(others[100:200])
    assert queries.shape == (100, 4 * width)
    latent = compressor._run(lambda x: tower.query_encoder(compressor.scale_(x)), others[100:200])
    stored = chosen.reshape(100, stages, -1).sum(axis=1)
    np.testing.assert_allclose(queries @ chosen.T, latent @ stored.T, atol=2e-4)
    lookup = compressor._run(tower.quantizer.lookup, codes.astype(np.int64))
    np.testing.assert_allclose(stored, lookup, atol=1e-5)


@pytest.mark.parametrize("metric", ["cosine", "ip", "l2"])
def test_what_was_compressed_comes_back(
    fitted: Callable[..., Compressor], others: np.ndarray, metric: str
) -> None:
    compressor = fitted(metric=metric)
    x = others / np.linalg.norm(others, axis=1, keepdims=True) if metric == "cosine" else others
    spread = np.square(x - x.mean(axis=0)).sum(axis=1).mean()
    for restored in (
        compressor.decode(compressor.encode(others)),
        compressor.inverse_transform(compressor.transform(others)),
    ):
        assert restored.shape == others.shape
        assert restored.dtype == np.float32
        assert np.square(restored - x).sum(axis=1).mean() < 0.5 * spread


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("metric", ["cosine", "l2"])
def test_rows_do_not_depend_on_their_batch(
    fitted: Callable[..., Compressor], method: str, metric: str
) -> None:
    run = getattr(fitted(metric=metric, batch_norm=True), method)
    x = np.concatenate([curved(4000, seed=2), curved(700, seed=3)])
    whole = run(x)
    order = np.random.default_rng(0).permutation(len(x))
    for found, expected in (
        (run(x[order]), whole[order]),
        (np.concatenate([run(x[i : i + 1]) for i in range(40)]), whole[:40]),
        (run(x[4090:4103]), whole[4090:4103]),
    ):
        if method == "encode":
            assert (found != expected).any(axis=1).mean() < 0.001
        else:
            np.testing.assert_allclose(found, expected, atol=2e-6)


def test_cosine_ignores_lengths(fitted: Callable[..., Compressor], others: np.ndarray) -> None:
    compressor = fitted()
    latents, codes = compressor.transform(others), compressor.encode(others)
    for length in (1e-15, 1e-6, 3.0, 1e17):
        scaled = (others * np.float32(length)).astype(np.float32)
        np.testing.assert_allclose(compressor.transform(scaled), latents, atol=1e-5)
        assert (compressor.encode(scaled) != codes).any(axis=1).mean() < 0.01


@pytest.mark.parametrize("metric", ["ip", "l2"])
@pytest.mark.parametrize("factor", [1e-9, 1e15])
def test_any_unit_of_measure_will_do(embeddings: np.ndarray, metric: str, factor: float) -> None:
    scaled = embeddings * np.float32(factor)
    options = {**SMALL, "epochs": 3, "metric": metric}
    plain, other = Compressor(**options).fit(embeddings), Compressor(**options).fit(scaled)
    restored = other.decode(other.encode(scaled)) / np.float32(factor)
    expected = plain.decode(plain.encode(embeddings))
    error = np.square(restored - embeddings).sum(axis=1).mean()
    assert error == pytest.approx(np.square(expected - embeddings).sum(axis=1).mean(), rel=0.1)


@pytest.mark.parametrize(
    "convert",
    [
        lambda x: x.tolist(),
        lambda x: x.astype(np.float64),
        lambda x: np.asfortranarray(x),
        lambda x: x.astype(">f4"),
        lambda x: np.repeat(x, 2, axis=0)[::2],
    ],
    ids=["list", "float64", "fortran", "big-endian", "strided"],
)
def test_other_forms_of_the_same_numbers(
    fitted: Callable[..., Compressor], others: np.ndarray, convert: Callable[[np.ndarray], Any]
) -> None:
    compressor = fitted()
    for method in METHODS:
        run = getattr(compressor, method)
        assert np.array_equal(run(convert(others)), run(others))
    restored = compressor.inverse_transform(convert(compressor.transform(others)))
    assert np.array_equal(restored, compressor.inverse_transform(compressor.transform(others)))


def with_value(x: np.ndarray, value: float) -> np.ndarray:
    bad = x.copy()
    bad[7] = value
    return bad


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (lambda x: with_value(x, np.nan), "row 7 holds NaN"),
        (lambda x: with_value(x, -np.inf), "row 7 holds infinity"),
        (lambda x: with_value(x, 0), "row 7 is all zeros"),
        (lambda x: with_value(x, 1e20), "row 7 is so long"),
        (lambda x: with_value(x.astype(np.float64), 1e300), "row 7 holds 1e\\+300"),
        (lambda x: x[:0], "empty"),
        (lambda x: x[:, :0], "empty"),
        (lambda x: x[0], "2-d"),
        (lambda x: x.astype(int), "dtype int64"),
        (lambda x: x.astype(complex), "dtype complex128"),
        (lambda x: [[1.0] * DIM, [2.0]], "not a matrix of numbers"),
        (lambda x: np.ma.masked_greater(x, 1), "masked"),
        (lambda x: "vectors", "dtype"),
    ],
)
def test_embeddings_that_cannot_be_used(
    fitted: Callable[..., Compressor], bad: Callable[[np.ndarray], Any], message: str
) -> None:
    x = curved(40)
    for method in ("fit", "partial_fit", *METHODS, "score"):
        estimator = clone(fitted()) if method == "fit" else fitted()
        with pytest.raises(InputError, match=message) as caught:
            getattr(estimator, method)(bad(x))
        assert "\n" not in str(caught.value)


def test_zero_vectors_are_welcome_where_they_have_a_meaning(
    fitted: Callable[..., Compressor], others: np.ndarray
) -> None:
    x = with_value(others, 0)
    for metric in ("ip", "l2"):
        assert np.isfinite(fitted(metric=metric).transform(x)).all()


def test_another_dimension_is_refused(fitted: Callable[..., Compressor]) -> None:
    compressor = fitted()
    for method in METHODS:
        with pytest.raises(InputError, match="33 features, but Compressor is expecting 32"):
            getattr(compressor, method)(curved(3, dim=33))
    with pytest.raises(InputError, match="latents have 5 dimensions, 6 were expected"):
        compressor.inverse_transform(np.zeros((2, 5)))
    with pytest.raises(InputError, match="codes have 3 bytes a row, 4 were expected"):
        compressor.decode(np.zeros((2, 3), np.uint8))
    with pytest.raises(InputError, match="dtype int64, not uint8"):
        compressor.decode(np.zeros((2, 4), np.int64))
    with pytest.raises(InputError, match="latents: row 1 holds NaN"):
        compressor.inverse_transform(np.array([[0.0] * 6, [np.nan] * 6]))


def test_use_before_fit() -> None:
    x = curved(5)
    calls = dict.fromkeys((*METHODS, "score"), x)
    calls |= {"inverse_transform": x[:, :6], "decode": np.zeros((2, 4), np.uint8)}
    for method, argument in calls.items():
        with pytest.raises(NotFittedError):
            getattr(Compressor(**SMALL), method)(argument)


def test_a_tower_that_was_not_trained(
    fitted: Callable[..., Compressor], others: np.ndarray
) -> None:
    only_codes, only_latents = fitted(n_components=None), fitted(code_size=None)
    for method in ("transform", "transform_queries"):
        with pytest.raises(InputError, match="n_components=None"):
            getattr(only_codes, method)(others)
    for method in ("encode", "encode_queries"):
        with pytest.raises(InputError, match="code_size=None"):
            getattr(only_latents, method)(others)
    with pytest.raises(UsageError, match="code_size=None"):
        only_latents.code_groups()
    assert only_codes.encode(others).shape == (300, 4)
    assert only_latents.transform(others).shape == (300, 6)
    assert 0 < only_latents.score(others) <= 1


def test_code_groups() -> None:
    assert Compressor(code_size=12, groups=3).code_groups() == 3
    assert Compressor(code_size=12).code_groups() in (1, 2, 3, 4, 6, 12)


# -- scikit-learn ---------------------------------------------------------------------


def test_parameters_and_clones(fitted: Callable[..., Compressor], others: np.ndarray) -> None:
    compressor = Compressor(**SMALL, groups=2)
    parameters = compressor.get_params()
    assert parameters["groups"] == 2
    assert parameters["hidden_sizes"] == (24,)
    assert Compressor(**parameters).get_params() == parameters
    assert compressor.set_params(epochs=1, seed=9) is compressor
    assert (compressor.epochs, compressor.seed) == (1, 9)
    with pytest.raises(ValueError, match="Invalid parameter"):
        compressor.set_params(epoch=1)
    copy = clone(fitted(groups=2))
    assert not hasattr(copy, "scale_")
    with pytest.raises(NotFittedError):
        copy.transform(others)


def test_in_a_pipeline(embeddings: np.ndarray, others: np.ndarray) -> None:
    compressor = Compressor(**{**SMALL, "metric": "l2", "code_size": None})
    pipeline = make_pipeline(StandardScaler(), compressor)
    latents = pipeline.fit_transform(embeddings)
    assert latents.shape == (800, 6)
    assert np.array_equal(latents, pipeline.transform(embeddings))
    restored = pipeline.inverse_transform(pipeline.transform(others))
    spread = np.square(others - others.mean(axis=0)).mean()
    assert np.square(restored - others).mean() < 0.5 * spread
    assert pipeline.get_feature_names_out().tolist() == [f"compressor{i}" for i in range(6)]
    assert 0 < pipeline.score(others) <= 1


class Table:
    """What a data frame is to the compressor: an array with names."""

    def __init__(self, values: np.ndarray, names: list[str]) -> None:
        self.values, self.names = np.asarray(values), names

    def __array__(self, dtype: Any = None, copy: Any = None) -> np.ndarray:
        return self.values


class TableAdapter:
    container_lib = "tables"

    def create_container(
        self, X_output: Any, X_original: Any, columns: Any, inplace: bool = True
    ) -> Table:
        return Table(X_output, list(columns() if callable(columns) else columns))


@pytest.fixture
def tables() -> Iterator[str]:
    manager = _set_output.ADAPTERS_MANAGER
    manager.register(TableAdapter())
    yield "tables"
    del manager.adapters["tables"]
    manager.supported_outputs.discard("tables")


def test_output_as_named_columns(
    tables: str, fitted: Callable[..., Compressor], others: np.ndarray, tmp_path: Any
) -> None:
    from embedpress.autoencoder.pretrained import save

    plain = fitted(code_size=None)
    compressor = Compressor(**{**SMALL, "code_size": None}).fit(curved(800))
    compressor.set_output(transform=tables)
    found = compressor.transform(others)
    assert isinstance(found, Table)
    assert found.names == [f"compressor{i}" for i in range(6)]
    assert np.array_equal(found.values, plain.transform(others))
    assert np.array_equal(
        compressor.inverse_transform(found), plain.inverse_transform(plain.transform(others))
    )
    assert compressor.score(others) == plain.score(others)
    save(compressor, tmp_path / "saved")


# -- the score ------------------------------------------------------------------------


@pytest.mark.parametrize("metric", ["cosine", "ip", "l2"])
def test_the_score_is_the_recall_of_a_brute_force_search(
    fitted: Callable[..., Compressor], others: np.ndarray, metric: str
) -> None:
    compressor = fitted(metric=metric)
    tower = compressor.code_tower_
    assert tower is not None
    assert tower.quantizer is not None
    x = others.astype(np.float64)
    if metric == "cosine":
        x /= np.linalg.norm(x, axis=1, keepdims=True)
    codes = compressor.encode(others)
    stored = compressor._run(tower.quantizer.lookup, codes.astype(np.int64)).astype(float)
    asked = compressor._run(lambda q: tower.query_encoder(compressor.scale_(q)), others)

    def nearest(q: np.ndarray, base: np.ndarray) -> np.ndarray:
        scores = q @ base.T
        if metric == "l2":
            scores = 2 * scores - np.square(base).sum(axis=1)
        np.fill_diagonal(scores, -np.inf)
        return np.argsort(-scores, axis=1)[:, :10]

    truth, found = nearest(x, x), nearest(asked.astype(float), stored)
    recall = np.mean([len(set(t) & set(f)) / 10 for t, f in zip(truth, found, strict=True)])
    assert compressor.score(others) == pytest.approx(recall, abs=0.002)
    assert 0.2 < recall < 1


def test_the_score_of_what_loses_nothing_is_one() -> None:
    x = curved(60)
    unit = x / np.linalg.norm(x, axis=1, keepdims=True)
    assert leave_one_out_recall(unit, unit, unit, metric="ip", seed=0) == 1
    assert leave_one_out_recall(unit, -unit, unit, metric="ip", seed=0) < 0.2
    assert leave_one_out_recall(unit[:1], unit[:1], unit[:1], metric="ip", seed=0) == 1
    assert leave_one_out_recall(unit[:3], unit[:3], unit[:3], metric="ip", seed=0) == 1
