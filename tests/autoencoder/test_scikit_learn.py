"""The compressor among scikit-learn's tools: its own checks, pipelines, searches, data frames."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from samples import SMALL, curved
from sklearn.model_selection import GridSearchCV
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

from embedpress.autoencoder.estimator import Compressor
from embedpress.errors import InputError

NO_INTEGERS = (
    "integers other than int8 are refused: they are codes or ids taken for embeddings by mistake"
)
EXPECTED = {"check_estimators_dtypes": NO_INTEGERS, "check_dtype_object": NO_INTEGERS}
"""Checks that fail on purpose, and why."""

# The checks' data have 2 dimensions at the least, and zero vectors, which have no cosine.
QUICK = {"hidden_sizes": (8,), "epochs": 1, "num_threads": 1, "metric": "l2"}


@parametrize_with_checks(
    [Compressor(1, None, **QUICK), Compressor(1, 1, groups=1, **QUICK)],
    expected_failed_checks=lambda estimator: EXPECTED,
)
def test_scikit_learns_own_checks(estimator: Compressor, check: Any) -> None:
    check(estimator)


def labelled(n: int) -> tuple[np.ndarray, np.ndarray]:
    x = curved(n)
    return x, (x[:, 0] > np.median(x[:, 0])).astype(int)


def test_a_grid_search_by_its_own_score_prefers_more_components() -> None:
    search = GridSearchCV(
        Compressor(**{**SMALL, "code_size": None, "epochs": 2}), {"n_components": [1, 8]}, cv=2
    )
    search.fit(curved(200))
    assert search.best_params_ == {"n_components": 8}
    assert 0.3 < search.best_score_ <= 1
    assert search.cv_results_["mean_test_score"][0] < search.best_score_


def test_a_grid_search_through_a_pipeline_sets_its_parameters() -> None:
    x, y = labelled(240)
    pipeline = make_pipeline(
        StandardScaler(),
        Compressor(**{**SMALL, "code_size": None, "epochs": 2, "metric": "l2"}),
        KNeighborsClassifier(),
    )
    search = GridSearchCV(pipeline, {"compressor__n_components": [2, 6]}, cv=2).fit(x, y)
    assert search.best_params_ == {"compressor__n_components": 6}
    assert search.best_estimator_[1].n_components == 6
    assert search.score(x, y) > 0.8


def test_frames_in_and_out_keep_their_names() -> None:
    pandas = pytest.importorskip("pandas", reason="pandas is not installed")
    x = curved(120)
    frame = pandas.DataFrame(x, columns=[f"e{i}" for i in range(x.shape[1])], index=range(5, 125))
    compressor = Compressor(**{**SMALL, "code_size": None, "epochs": 1}).set_output(
        transform="pandas"
    )
    latents = compressor.fit(frame).transform(frame)
    assert list(latents.columns) == [f"compressor{i}" for i in range(6)]
    assert list(latents.index) == list(frame.index)
    assert list(compressor.feature_names_in_) == list(frame.columns)
    np.testing.assert_array_equal(
        compressor.set_output(transform="default").transform(frame), latents.to_numpy()
    )
    with pytest.raises(InputError, match="feature names should match") as caught:
        compressor.transform(frame.rename(columns={"e0": "other"}))
    assert "\n" not in str(caught.value)
