from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from samples import SMALL, curved

from embedpress.autoencoder.estimator import Compressor
from embedpress.errors import UsageError

BAD: list[tuple[dict[str, Any], str]] = [
    ({"n_components": None, "code_size": None}, "nothing to train"),
    ({"n_components": 0}, "n_components=0 must lie between 1 and 31"),
    ({"n_components": 32}, "n_components=32 must lie between 1 and 31"),
    ({"n_components": 2.0}, "n_components=2.0 must be a whole number"),
    ({"n_components": True}, "n_components=True must be a whole number"),
    ({"code_size": 0}, "code_size=0 must lie between 1 and the 128 bytes"),
    ({"code_size": 129, "groups": 1}, "code_size=129 must lie"),
    ({"code_size": "32"}, "code_size='32' must be a whole number"),
    ({"code_size": "most"}, "code_size='most' must be a whole number, 'auto' or None"),
    ({"code_size": "auto", "groups": 5}, "none of them in groups=5 goes with 32 dimensions"),
    ({"code_size": "auto", "groups": 9, "metric": "l2"}, "none of them in groups=9"),
    ({"code_size": "auto", "target_recall": 0}, r"target_recall=0 must lie in \(0, 1\]"),
    ({"code_size": "auto", "target_recall": 90}, "target_recall=90"),
    ({"code_size": "auto", "target_recall": "all"}, "target_recall='all' must be a number"),
    ({"target_recall": 0.9}, "target_recall=0.9 finds the code_size: give code_size='auto'"),
    ({"target_recall": 0.9, "code_size": None}, "with it, not None"),
    ({"groups": 0}, "groups=0 must divide code_size=4"),
    ({"groups": 3}, "groups=3 must divide code_size=4"),
    ({"groups": 8}, "groups=8 must divide code_size=4"),
    ({"code_size": 64, "groups": 64}, "makes 64 slices of only 32 dimensions"),
    ({"metric": "l2", "groups": 2}, "metric 'l2' needs one codebook a slice, groups=4"),
    ({"metric": "l2", "groups": 1}, "metric 'l2' needs"),
    ({"metric": "euclidean"}, "metric 'euclidean' is not one of cosine, ip, l2"),
    ({"metric": None}, "metric None"),
    ({"hidden_sizes": (0,)}, "hidden_sizes="),
    ({"hidden_sizes": (8, 2.5)}, "hidden_sizes="),
    ({"hidden_sizes": 8}, "hidden_sizes=8"),
    ({"hidden_sizes": "8"}, "hidden_sizes='8'"),
    ({"dropout": 1}, r"dropout=1 must lie in \[0, 1\)"),
    ({"dropout": -0.1}, "dropout=-0.1"),
    ({"mask": 1.5}, "mask=1.5"),
    ({"mixup": 1}, r"mixup=1 must lie in \[0, 1\)"),
    ({"mixup": -0.2}, "mixup=-0.2"),
    ({"mixup": None}, "mixup=None must be a number"),
    ({"validation_fraction": 1.0}, "validation_fraction=1.0"),
    ({"validation_fraction": "half"}, "validation_fraction='half' must be a number"),
    ({"noise": -1}, "noise=-1 must be zero or more"),
    ({"noise": float("nan")}, "noise=nan"),
    ({"noise": float("inf")}, "noise=inf"),
    ({"weight_decay": -1e-3}, "weight_decay="),
    ({"reconstruction_weight": -1}, "reconstruction_weight="),
    ({"commitment_weight": -1}, "commitment_weight="),
    ({"temperature": 0}, "temperature=0 must be more than zero"),
    ({"learning_rate": 0}, "learning_rate=0 must be more than zero"),
    ({"learning_rate": None}, "learning_rate=None must be a number"),
    ({"epochs": -1}, "epochs=-1"),
    ({"epochs": 1.5}, "epochs=1.5"),
    ({"time_budget": 0}, "time_budget=0 must be more than zero seconds"),
    ({"time_budget": float("nan")}, "time_budget=nan"),
    ({"monitor": "accuracy"}, "monitor='accuracy' must be 'recall' or 'loss'"),
    ({"patience": -1}, "patience=-1"),
    ({"max_samples": 1}, "max_samples=1"),
    ({"seed": -1}, "seed=-1"),
    ({"seed": 2**40}, "seed="),
    ({"seed": None}, "seed=None"),
    ({"device": "abacus"}, "device 'abacus' cannot be used here"),
    ({"num_threads": 0}, "num_threads=0"),
]


@pytest.mark.parametrize(("options", "message"), BAD, ids=lambda value: str(value)[:60])
def test_an_option_that_cannot_be(options: dict[str, Any], message: str) -> None:
    compressor = Compressor(**{**SMALL, **options})
    with pytest.raises(UsageError, match=message) as caught:
        compressor.fit(curved(20))
    assert "\n" not in str(caught.value)
    assert not hasattr(compressor, "scale_")


def test_an_option_that_was_spoilt_later() -> None:
    x = curved(60)
    compressor = Compressor(**{**SMALL, "epochs": 0}).fit(x).set_params(learning_rate=-1)
    with pytest.raises(UsageError, match="learning_rate=-1"):
        compressor.partial_fit(x)


def test_numbers_of_numpy_are_numbers() -> None:
    options = {"n_components": np.int64(3), "code_size": np.int32(2), "seed": np.uint8(1)}
    floats = {"dropout": np.float32(0.1), "temperature": np.float64(0.1)}
    sizes = {"hidden_sizes": np.array([4, 3])}
    compressor = Compressor(**{**SMALL, "epochs": 1, **options, **floats, **sizes}).fit(curved(50))
    assert compressor.encode(curved(5)).shape == (5, 2)


@pytest.mark.parametrize(("code_size", "groups"), [(128, 32), (128, 1), (1, 1), (32, None), (6, 3)])
def test_the_widest_and_the_narrowest_codes(code_size: int, groups: int | None) -> None:
    x = curved(60)
    options = {"n_components": None, "code_size": code_size, "groups": groups, "epochs": 1}
    compressor = Compressor(**{**SMALL, **options}).fit(x)
    assert compressor.encode(x).shape == (60, code_size)
    # As many codewords as rows: a group of them is enough to tell all apart.
    assert len(np.unique(compressor.encode(x), axis=0)) > 50
