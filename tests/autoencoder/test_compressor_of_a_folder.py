from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from samples import SMALL, curved, write_embeddings

from embedpress.autoencoder.estimator import Compressor
from embedpress.autoencoder.fit import fit
from embedpress.autoencoder.pretrained import load_compressor
from embedpress.errors import InputError, UsageError
from embedpress.onnx.compress import compress
from embedpress.vectors.holdout import held_out


def test_the_rows_that_will_ask_are_not_trained_on(tmp_path: Path) -> None:
    x, ids = curved(300), [f"row {i}" for i in range(300)]
    write_embeddings(tmp_path / "x", x, ids=ids, model="bert", pooling="mean")
    calls: list[tuple[str, int, int]] = []
    config = fit(
        tmp_path / "x",
        tmp_path / "model",
        Compressor(**SMALL),
        progress=lambda *call: calls.append(call),
    )
    kept = ~held_out(pa.array(ids))
    assert 5 < (~kept).sum() < 30
    expected = Compressor(**SMALL).fit(x[kept])
    found = load_compressor(tmp_path / "model").set_params(num_threads=1)
    assert np.array_equal(found.encode(x), expected.encode(x))
    assert np.array_equal(found.transform(x), expected.transform(x))
    about = {"rows": 300, "rows trained on": int(kept.sum()), "extractor": "bert"}
    assert config["source"] == {**about, "pooling": "mean", "normalized": False}
    assert config == json.loads((tmp_path / "model" / "config.json").read_text())
    assert "- rows trained on: " in (tmp_path / "model" / "README.md").read_text()
    assert [name for name, done, total in calls if done == total] == ["latents", "codes"]


def test_a_plain_file_has_the_metric_of_the_compressor(tmp_path: Path) -> None:
    x = curved(120)
    x[3] = 0  # allowed by distance, not by direction
    np.save(tmp_path / "x.npy", x)
    fit(tmp_path / "x.npy", tmp_path / "model", Compressor(**{**SMALL, "metric": "l2"}))
    assert load_compressor(tmp_path / "model").metric == "l2"
    with pytest.raises(InputError, match="row 3 is all zeros"):
        fit(tmp_path / "x.npy", tmp_path / "other", Compressor(**SMALL))
    assert not (tmp_path / "other" / "config.json").exists()


def test_a_sample_of_a_large_file(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", curved(300))
    compressor = Compressor(**{**SMALL, "max_samples": 50})
    config = fit(tmp_path / "x.npy", tmp_path / "model", compressor)
    assert config["source"]["rows"] == 300
    assert 40 <= config["source"]["rows trained on"] <= 50


@pytest.mark.parametrize("n", [2, 3])
def test_few_rows_are_all_trained_on(tmp_path: Path, n: int) -> None:
    # Ids of which all but one would be held out.
    ids = [*np.flatnonzero(held_out(pa.array(range(2000))))[: n - 1].tolist(), 1]
    assert (~held_out(pa.array(ids))).sum() == 1
    write_embeddings(tmp_path / "x", curved(n), ids=ids)
    config = fit(tmp_path / "x", tmp_path / "model", Compressor(**{**SMALL, "epochs": 1}))
    assert config["source"]["rows trained on"] == n


def test_what_cannot_be_fitted(tmp_path: Path) -> None:
    write_embeddings(tmp_path / "x", curved(60))
    fit(tmp_path / "x", tmp_path / "model", Compressor(**{**SMALL, "epochs": 0}))
    compress(tmp_path / "x", tmp_path / "model", tmp_path / "codes")
    with pytest.raises(InputError, match="holds codes: fit on the embeddings"):
        fit(tmp_path / "codes", tmp_path / "again", Compressor(**SMALL))
    with pytest.raises(UsageError, match="is a file"):
        fit(tmp_path / "x", tmp_path / "x" / "manifest.json", Compressor(**SMALL))
    with pytest.raises(UsageError, match="does not exist"):
        fit(tmp_path / "nothing", tmp_path / "again", Compressor(**SMALL))
    assert not (tmp_path / "again").exists()
