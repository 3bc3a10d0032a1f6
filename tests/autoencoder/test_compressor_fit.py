from __future__ import annotations

from collections.abc import Callable

import faiss
import numpy as np
import pytest
import torch
from samples import SMALL, curved
from sklearn.base import clone
from sklearn.decomposition import PCA

from embedpress.autoencoder.estimator import Compressor
from embedpress.errors import InputError

UNTRAINED = {**SMALL, "epochs": 0, "validation_fraction": 0}


def weights(compressor: Compressor) -> dict[str, np.ndarray]:
    towers = {"latents": compressor.latent_tower_, "codes": compressor.code_tower_}
    return {
        f"{name}.{key}": value.numpy().copy()
        for name, tower in towers.items()
        if tower is not None
        for key, value in tower.state_dict().items()
    }


@pytest.mark.parametrize("metric", ["cosine", "ip", "l2"])
@pytest.mark.parametrize("n_components", [1, 6, 31])
def test_without_training_it_is_pca(
    embeddings: np.ndarray, others: np.ndarray, metric: str, n_components: int
) -> None:
    options = {**UNTRAINED, "n_components": n_components, "code_size": None, "metric": metric}
    compressor = Compressor(**options).fit(embeddings)
    x, held = embeddings.astype(np.float64), others.astype(np.float64)
    if metric == "cosine":
        x /= np.linalg.norm(x, axis=1, keepdims=True)
        held /= np.linalg.norm(held, axis=1, keepdims=True)
    pca = PCA(n_components, svd_solver="full").fit(x)
    restored = compressor.inverse_transform(compressor.transform(others))
    expected = pca.inverse_transform(pca.transform(held))
    np.testing.assert_allclose(restored, expected, atol=2e-4 * np.abs(held).max())
    scale = float(compressor.scale_.scale)
    latents = scale * compressor.transform(others).astype(np.float64)
    # PCA knows neither signs nor, of equal variances, an order: inner products know neither.
    wanted = pca.transform(held)
    if metric != "l2":
        # Not centred: the directions of latents are those of the embeddings.
        wanted = wanted - pca.transform(np.zeros_like(held[:1]))
    np.testing.assert_allclose(
        latents @ latents.T, wanted @ wanted.T, atol=1e-3 * np.square(wanted).sum(axis=1).max()
    )


@pytest.mark.parametrize("metric", ["cosine", "ip", "l2"])
def test_without_training_queries_are_scored_as_their_reconstruction(
    embeddings: np.ndarray, others: np.ndarray, metric: str
) -> None:
    compressor = Compressor(**{**UNTRAINED, "code_size": None, "metric": metric}).fit(embeddings)
    asked, stored = compressor.transform_queries(others), compressor.transform(others)
    restored = compressor.inverse_transform(stored) / compressor.scale_.scale.numpy()
    q = others / compressor.scale_.scale.numpy()
    if metric == "l2":
        # A distance is taken between equals, both centred.
        np.testing.assert_allclose(asked, stored, atol=1e-5)
        return
    if metric == "cosine":
        q = q / np.linalg.norm(q, axis=1, keepdims=True)
    mean = compressor.inverse_transform(np.zeros((1, 6))) / compressor.scale_.scale.numpy()
    # An inner product leaves the query where it is, or all scores would shift by its centre.
    np.testing.assert_allclose(asked @ stored.T, q @ (restored - mean).T, atol=1e-4)


def test_without_training_codes_are_an_orthonormal_quantizer(embeddings: np.ndarray) -> None:
    compressor = Compressor(**{**UNTRAINED, "metric": "l2", "code_size": 32}).fit(embeddings)
    codes = compressor.encode(embeddings)
    error = np.square(compressor.decode(codes) - embeddings).sum(axis=1).mean()
    # 256 codewords on each axis of its own: a scalar quantizer of 8 bits.
    assert error < 1e-3 * np.square(embeddings).sum(axis=1).mean()


def test_training_finds_more_held_out_neighbours_than_its_start() -> None:
    options = {"hidden_sizes": (64,), "epochs": 50, "learning_rate": 1e-2, "monitor": "recall"}
    compressor = Compressor(**{**SMALL, **options, "n_components": 3, "code_size": 2})
    compressor.fit(curved(1000))
    for name, gain in (("latents", 0.04), ("codes", 0.03)):
        recalls = [record["recall"] for record in compressor.history_[name]]
        assert max(recalls) > recalls[0] + gain
    # Vectors that no part of training has seen, by the public score.
    unseen = curved(1000, seed=5)
    start = clone(compressor).set_params(epochs=0).fit(curved(1000))
    assert compressor.score(unseen) > start.score(unseen) + 0.02


def test_the_same_seed_gives_the_same_bits(
    fitted: Callable[..., Compressor], embeddings: np.ndarray, others: np.ndarray
) -> None:
    first, again = fitted(dropout=0.2, noise=0.1), Compressor(**SMALL, dropout=0.2, noise=0.1)
    torch.randn(3)
    again.fit(embeddings)
    assert np.array_equal(first.transform(others), again.transform(others))
    assert np.array_equal(first.encode(others), again.encode(others))
    assert np.array_equal(first.encode_queries(others), again.encode_queries(others))
    ours, theirs = weights(first), weights(again)
    assert all(np.array_equal(ours[name], theirs[name]) for name in ours)
    other = Compressor(**SMALL, dropout=0.2, noise=0.1, seed=1).fit(embeddings)
    assert not np.array_equal(first.transform(others), other.transform(others))
    assert not np.array_equal(first.encode(others), other.encode(others))


def test_no_global_state_is_left_behind(embeddings: np.ndarray) -> None:
    state, drawn = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    threads = torch.get_num_threads(), faiss.omp_get_max_threads()
    options = {**SMALL, "dropout": 0.5, "epochs": 1, "num_threads": threads[0] + 1}
    Compressor(**options).fit(embeddings[:100]).partial_fit(embeddings[:100])
    assert torch.equal(torch.get_rng_state(), state)
    assert np.array_equal(np.random.get_state()[1], drawn)  # noqa: NPY002
    assert (torch.get_num_threads(), faiss.omp_get_max_threads()) == threads


@pytest.mark.parametrize("what", ["latents", "codes"])
def test_the_best_weights_are_kept(embeddings: np.ndarray, what: str) -> None:
    # A rate at which training soon does harm.
    options = {**SMALL, "learning_rate": 0.5, "epochs": 40, "monitor": "recall"}
    options["n_components" if what == "codes" else "code_size"] = None
    compressor = Compressor(**options).fit(embeddings)
    recalls = [record["recall"] for record in compressor.history_[what]]
    assert min(recalls) < max(recalls) - 0.05
    tower = compressor.code_tower_ if what == "codes" else compressor.latent_tower_
    _, _, validation = compressor._holdout().split(compressor._sample(embeddings))
    assert validation is not None
    assert validation.recall(tower, torch.device("cpu")) == max(recalls)


def test_patience_ends_a_training_that_only_does_harm(embeddings: np.ndarray) -> None:
    harmful = {**SMALL, "learning_rate": 10.0, "epochs": 60, "monitor": "recall", "code_size": None}
    whole = Compressor(**harmful).fit(embeddings).history_["latents"]
    for patience in (0, 2):
        compressor = Compressor(**harmful, patience=patience).fit(embeddings)
        history = compressor.history_["latents"]
        recalls = [record["recall"] for record in history]
        assert recalls == [record["recall"] for record in whole[: len(history)]]
        best = int(np.argmax(recalls))
        assert len(history) == best + patience + 2 < len(whole)


def test_the_monitored_loss_is_that_of_the_kept_weights(embeddings: np.ndarray) -> None:
    compressor = Compressor(**{**SMALL, "epochs": 30}).fit(embeddings)
    losses = [record["loss"] for record in compressor.history_["codes"][1:]]
    assert losses[-1] < losses[0]
    assert "loss" not in compressor.history_["codes"][0]
    for record in compressor.history_["codes"][1:]:
        assert record["loss"] >= record["distillation"] + record["reconstruction"] > 0


def test_a_time_budget_ends_training() -> None:
    calls: list[tuple[str, int, int]] = []
    options = {**SMALL, "epochs": 2**30, "time_budget": 1.0, "validation_fraction": 0}
    compressor = Compressor(**options)
    compressor.fit(curved(300), progress=lambda *call: calls.append(call))
    for name in ("latents", "codes"):
        seconds = compressor.history_[name][-1]["seconds"]
        assert 0.4 < seconds < 3
        done = [done for tower, done, _ in calls if tower == name]
        assert done == sorted(done)
        assert len(done) == compressor.history_[name][-1]["step"]
    assert all(done <= total == 2**30 for _, done, total in calls)


def test_progress_counts_every_step(embeddings: np.ndarray) -> None:
    calls: list[tuple[str, int, int]] = []
    Compressor(**SMALL).fit(embeddings, progress=lambda *call: calls.append(call))
    steps = calls[-1][2]
    assert steps == SMALL["epochs"]
    expected = [(name, step + 1, steps) for name in ("latents", "codes") for step in range(steps)]
    assert calls == expected


def test_partial_fit_goes_on_where_fit_ended(embeddings: np.ndarray) -> None:
    compressor = Compressor(**{**SMALL, "epochs": 20, "learning_rate": 1e-2}).fit(embeddings)
    before, records = weights(compressor), {k: len(v) for k, v in compressor.history_.items()}
    recall = compressor.history_["codes"][-1]["recall"]
    assert compressor.partial_fit(embeddings) is compressor
    after = weights(compressor)
    for name in ("latents.encoder.mlp.0.weight", "codes.quantizer.codebooks"):
        assert not np.array_equal(before[name], after[name])
        # It went on, rather than starting anew.
        assert np.abs(before[name] - after[name]).mean() < np.abs(before[name]).mean()
    for name, count in records.items():
        assert len(compressor.history_[name]) > count
    assert compressor.history_["codes"][records["codes"]]["recall"] == pytest.approx(
        recall, abs=0.02
    )
    fresh = Compressor(**SMALL).partial_fit(embeddings)
    assert np.array_equal(
        fresh.encode(embeddings), Compressor(**SMALL).fit(embeddings).encode(embeddings)
    )


def test_partial_fit_takes_only_the_same_dimensions(fitted: Callable[..., Compressor]) -> None:
    with pytest.raises(InputError, match="31 features, but Compressor is expecting 32"):
        fitted().partial_fit(curved(50, dim=31))


@pytest.mark.parametrize("n", [2, 3, 9, 200, 255])
@pytest.mark.parametrize("batch_norm", [False, True])
def test_fewer_rows_than_codewords(n: int, batch_norm: bool) -> None:
    x = curved(n)
    compressor = Compressor(**{**SMALL, "epochs": 2, "metric": "l2", "batch_norm": batch_norm})
    compressor.set_params(learning_rate=1e-6)
    restored = compressor.fit(x).decode(compressor.encode(x))
    assert np.isfinite(restored).all()
    if n <= 9:
        # Each has codewords of its own, whatever training did with few of them.
        np.testing.assert_allclose(restored, x, atol=1e-2)


def test_one_row_is_refused() -> None:
    with pytest.raises(InputError, match="at least 2"):
        Compressor(**SMALL).fit(curved(1))


def test_equal_rows_are_learnt_and_given_back() -> None:
    x = np.repeat(curved(1), 40, axis=0)
    compressor = Compressor(**{**SMALL, "metric": "l2"}).fit(x)
    assert len(np.unique(compressor.encode(x), axis=0)) == 1
    np.testing.assert_allclose(compressor.decode(compressor.encode(x)), x, atol=0.2)


def test_a_sample_bounds_the_work(embeddings: np.ndarray) -> None:
    few = {**UNTRAINED, "n_components": 9, "code_size": None, "metric": "l2", "max_samples": 10}
    compressor = Compressor(**few).fit(embeddings)
    restored = compressor.inverse_transform(compressor.transform(embeddings))
    exact = np.isclose(restored, embeddings, atol=1e-3).all(axis=1)
    # PCA of ten rows gives back those ten, in whatever order they were drawn.
    assert exact.sum() == 10
    assert not exact[:10].all()


def test_held_out_vectors_are_not_trained_on(embeddings: np.ndarray) -> None:
    compressor = Compressor(**SMALL).fit(embeddings)
    train, _, validation = compressor._holdout().split(compressor._sample(embeddings))
    assert validation is not None
    assert len(validation.queries) == 40
    assert len(train) == 760
    rows = {row.tobytes() for row in train}
    assert not rows & {row.tobytes() for row in validation.queries}
    assert {row.tobytes() for row in validation.base} <= rows


def test_the_base_of_the_queries_is_drawn_from_all_of_a_sorted_file() -> None:
    x = np.zeros((42_000, 2), np.float32)
    x[:, 0], x[:, 1] = np.arange(42_000), 1
    compressor = Compressor(1, None, metric="ip", validation_fraction=0.01)
    _, _, validation = compressor._holdout().split(x)
    assert validation is not None
    assert len(validation.base) == 20_000
    assert np.mean(validation.base[:, 0] > 21_000) == pytest.approx(0.5, abs=0.02)


@pytest.mark.parametrize(
    "options",
    [
        {"dropout": 0.5},
        {"batch_norm": True},
        {"noise": 0.5},
        {"mask": 0.3},
        {"hidden_sizes": ()},
        {"hidden_sizes": (16, 8), "dropout": 0.1, "batch_norm": True},
        {"groups": 1},
        {"groups": 2, "noise": 0.1},
    ],
    ids=str,
)
def test_options_train_and_are_off_in_use(
    fitted: Callable[..., Compressor], others: np.ndarray, options: dict
) -> None:
    compressor = fitted(**options)
    assert np.array_equal(compressor.transform(others), compressor.transform(others))
    assert np.array_equal(compressor.encode(others), compressor.encode(others))
    plain = fitted()
    assert not np.array_equal(
        compressor.encode_queries(others)[:, :4], plain.encode_queries(others)[:, :4]
    )
    x = others / np.linalg.norm(others, axis=1, keepdims=True)
    for restored in (
        compressor.inverse_transform(compressor.transform(others)),
        compressor.decode(compressor.encode(others)),
    ):
        error = np.square(restored - x).sum(axis=1).mean()
        assert error < np.square(x - x.mean(axis=0)).sum(axis=1).mean()


def test_noise_and_mask_corrupt_only_inputs(embeddings: np.ndarray) -> None:
    quiet = Compressor(**SMALL).fit(embeddings)
    noisy = Compressor(**{**SMALL, "noise": 2.0}).fit(embeddings)
    # Targets stay clean: the task is harder, the loss is larger.
    clean, harder = (c.history_["latents"][-1]["loss"] for c in (quiet, noisy))
    assert harder > 1.2 * clean
