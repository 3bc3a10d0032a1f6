from __future__ import annotations

import math

import pytest

from embedpress.analyze import words as module
from embedpress.analyze.words import ClusterWords, words_of


def test_words_are_what_names_something():
    assert words_of("The Cat's in 3 rooms, isn't it? ÜBER-cool naïve 'quoted'") == [
        "cat's", "rooms", "über-cool", "naïve", "quoted",
    ]  # fmt: skip
    assert words_of("") == []


def test_scores_by_hand():
    counted = ClusterWords(2)
    counted.add(["cat cat dog", "dog bird bird bird bird"], [0, 1])
    # A is (3 + 5) / 2 = 4; dog is in both.
    cat, dog = 2 / 3 * math.log1p(4 / 2), 1 / 3 * math.log1p(4 / 2)
    assert cat > dog
    assert counted.names(1) == [["cat"], ["bird"]]
    assert counted.names() == [["cat", "dog"], ["bird", "dog"]]


def test_a_frequent_word_of_all_clusters_names_none():
    counted = ClusterWords(3)
    for label, own in enumerate(("apple", "train", "river")):
        counted.add([f"thing {own} thing {own}"] * 10, [label] * 10)
    assert [names[0] for names in counted.names()] == ["apple", "train", "river"]


def test_plurals_noise_and_nothing_are_left_out():
    counted = ClusterWords(2)
    counted.add(["cards cards cards card bank", "never counted", None], [0, -1, 1])
    assert counted.names() == [["cards", "bank"], []]


def test_the_counts_are_bounded(monkeypatch):
    monkeypatch.setattr(module, "MOST_COUNTS", 50)
    counted = ClusterWords(2)
    for i in range(200):
        counted.add([f"heron w{'abcdefghij'[i % 10]}{chr(97 + i // 10)}x"], [i % 2])
    assert sum(map(len, counted.counts)) <= 51
    assert all(names[0] == "heron" for names in counted.names())


def test_agreement_is_that_of_scikit_learn():
    metrics = pytest.importorskip("sklearn.metrics")
    import numpy as np

    from embedpress.analyze.agreement import agreement

    rng = np.random.default_rng(0)
    for clusters, classes, n in ((5, 4, 300), (1, 3, 50), (30, 2, 60), (1, 1, 9), (7, 7, 7)):
        found, true = rng.integers(clusters, size=n), rng.integers(classes, size=n)
        got = agreement(true, found)
        assert got["nmi"] == pytest.approx(metrics.normalized_mutual_info_score(true, found))
        assert got["ari"] == pytest.approx(metrics.adjusted_rand_score(true, found))
