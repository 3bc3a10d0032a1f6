"""Corrupted queries of the benchmarks of denoising and of drift."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch")


@pytest.fixture
def queries() -> np.ndarray:
    x = np.random.default_rng(0).normal(size=(200, 64)).astype(np.float32)
    return np.asarray(x / np.linalg.norm(x, axis=1, keepdims=True), np.float32)


def test_queries_are_corrupted_as_they_are_named(queries: np.ndarray) -> None:
    from denoising import corruptions

    forms = corruptions(queries, seed=0)
    np.testing.assert_allclose(forms["clean"], queries, atol=1e-6)
    for form in forms.values():
        np.testing.assert_allclose(np.linalg.norm(form, axis=1), 1, rtol=1e-5)
    cosines = {name: (form * queries).sum(axis=1).mean() for name, form in forms.items()}
    # Noise as long as s norms leaves 1 / sqrt(1 + s^2) of the direction, a share kept its root.
    for size in (0.5, 1, 2):
        assert cosines[f"noise {size:g}"] == pytest.approx(1 / np.sqrt(1 + size**2), abs=0.02)
    for share in (0.25, 0.5, 0.75):
        dropped = forms[f"{share:.0%} dropped"]
        assert (dropped == 0).mean() == pytest.approx(share, abs=0.02)
        assert cosines[f"{share:.0%} dropped"] == pytest.approx(np.sqrt(1 - share), abs=0.02)
    # A number takes at most so many values: 2 (2^(bits - 1) - 1) + 1.
    assert max(len(np.unique(np.abs(row).round(5))) for row in forms["3 bits"]) <= 4
    assert cosines["int8"] > 0.999 > cosines["3 bits"]
    again, other = corruptions(queries, seed=0), corruptions(queries, seed=1)
    np.testing.assert_array_equal(again["noise 1"], forms["noise 1"])
    assert not np.array_equal(other["noise 1"], forms["noise 1"])


def test_recall_of_corrupted_queries_is_by_clean_truth(
    queries: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    import denoising
    from split import Split

    rng = np.random.default_rng(1)
    base = rng.normal(size=(300, 64)).astype(np.float32)
    base /= np.linalg.norm(base, axis=1, keepdims=True)
    split = Split(base, base[:10], queries[:50])
    monkeypatch.setattr(denoising, "LATENTS", 16)
    monkeypatch.setattr(denoising, "TRAININGS", {})
    rows = denoising.measure(split, seeds=2, epochs=1)
    found: dict[tuple[str, str, int], float] = {
        (row["method"], row["queries"], row["seed"]): row["recall"] for row in rows
    }
    assert len(found) == len(rows) == 2 * 2 * 9
    assert found["the embeddings", "clean", 0] == 1
    truth = np.argsort(-split.queries @ base.T, axis=1)[:, :10]
    noisy = denoising.corruptions(split.queries, 1000)["noise 2"]
    hits = np.argsort(-noisy @ base.T, axis=1)[:, :10]
    expected = np.mean([len(set(t) & set(h)) / 10 for t, h in zip(truth, hits, strict=True)])
    assert found["the embeddings", "noise 2", 0] == pytest.approx(expected)
    assert 0 < found["PCA", "clean", 0] < 1


def test_pca_ranks_by_inner_products_of_what_it_keeps(queries: np.ndarray) -> None:
    import denoising
    from split import Split

    # All of the variance is in the first two numbers: nothing is lost.
    base = np.zeros((100, 64), np.float32)
    base[:, :2] = np.random.default_rng(0).normal(size=(100, 2))
    stored, ask = denoising.principal(Split(base, base, queries))
    assert stored.shape == (100, denoising.LATENTS)
    ours, true = ask(queries) @ stored.T, queries @ base.T
    shift = ours - true  # the same for all vectors of a query: it changes no order
    np.testing.assert_allclose(shift - shift[:, :1], 0, atol=1e-4)


def test_a_line_a_method_means_over_the_seeds() -> None:
    from denoising import table

    rows = [
        {"method": method, "queries": name, "seed": seed, "recall": recall + seed / 10}
        for method, recall in (("PCA", 0.2), ("embedpress", 0.4))
        for name in ("clean", "noise 1")
        for seed in (0, 1)
    ]
    head, _, *lines = table(rows)
    assert head == "| stored as 64 floats by | clean | noise 1 |"
    assert lines == ["| PCA | 0.250 | 0.250 |", "| embedpress | 0.450 | 0.450 |"]


def test_draws_drift_as_much_as_they_say(queries: np.ndarray) -> None:
    import drift

    rng = np.random.default_rng(0)
    scaled = 3 * queries
    added = np.linalg.norm(drift.noisy(0.2)(rng, scaled) - scaled, axis=1)
    assert added.mean() == pytest.approx(0.2 * 3, rel=0.03)
    dropped = drift.dropped(0.3)(rng, queries)
    gone = (dropped == 0).all(axis=0)
    assert 0.1 < gone.mean() < 0.5
    np.testing.assert_array_equal(dropped[:, ~gone], queries[:, ~gone])
    rounded = drift.rounded(rng, queries)
    assert rounded.dtype == np.float32
    assert np.abs(rounded - queries).max() <= np.abs(queries).max() / 254 * 1.01


def test_the_share_of_alarms_is_counted(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    import drift

    asked = []

    def found(sample: Any, model: Any, *, false_alarm_rate: float, seed: int) -> dict[str, Any]:
        asked.append((np.load(sample)[0, 0], false_alarm_rate, seed))
        checks = [("error of codes", 0.1), ("error of latents", 0.3), ("recall", 0.5)]
        listed = [{"name": name, "value": value} for name, value in checks]
        return {"drifted": seed == 3, "checks": listed}

    monkeypatch.setattr(drift, "drift_folder", found)
    row = drift.measure("a kind", 4, lambda seed: np.full((2, 2), seed), tmp_path)
    assert row == {"name": "a kind", "draws": 4, "alarms": 0.25, "shift": 0.3, "recall": 0.5}
    assert asked == [(seed, drift.RATE, seed) for seed in range(4)]
