from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from embedpress.autoencoder.estimator import Compressor
from embedpress.autoencoder.pretrained import load_compressor, save
from embedpress.errors import ExportError, FormatError, UsageError
from embedpress.info import describe
from embedpress.onnx import graph
from embedpress.onnx.builder import GraphBuilder
from embedpress.onnx.compressor import load
from embedpress.onnx.export import check_parity, export


def content(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in sorted(folder.iterdir())}


@pytest.mark.parametrize(
    "options", [{}, {"groups": 2, "batch_norm": True, "metric": "ip"}, {"n_components": None}]
)
def test_an_export_is_a_whole_compressor(
    saved: Callable[..., Path], others: np.ndarray, tmp_path: Path, options: dict[str, Any]
) -> None:
    source = saved(**options)
    written = export(source, tmp_path / "new" / "out")
    found = content(tmp_path / "new" / "out")
    assert written == sorted(found)
    assert found == content(source)
    ours, theirs = load(source, num_threads=1), load(tmp_path / "new" / "out", num_threads=1)
    assert ours.fingerprint == theirs.fingerprint
    assert np.array_equal(ours.encode(others), theirs.encode(others))
    assert describe(tmp_path / "new" / "out")["bad_files"] == []


def test_an_export_over_another_compressor(
    saved: Callable[..., Path], others: np.ndarray, tmp_path: Path
) -> None:
    export(saved(), tmp_path / "out")
    export(saved(code_size=None, hidden_sizes=()), tmp_path / "out")
    assert content(tmp_path / "out") == content(saved(code_size=None, hidden_sizes=()))


def test_graphs_can_be_made_anew_from_weights(saved: Callable[..., Path], tmp_path: Path) -> None:
    copy = Path(shutil.copytree(saved(), tmp_path / "copy"))
    for file in copy.glob("*.onnx"):
        file.unlink()
    (copy / "metrics.json").unlink()
    export(copy, tmp_path / "out")
    whole = content(saved())
    del whole["metrics.json"]
    assert content(tmp_path / "out") == whole


def test_places_that_cannot_be(saved: Callable[..., Path], tmp_path: Path) -> None:
    before = content(saved())
    with pytest.raises(UsageError, match="another folder than the compressor's own"):
        export(saved(), saved() / ".." / saved().name)
    assert content(saved()) == before
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match="is a file"):
        export(saved(), tmp_path / "file")
    with pytest.raises(UsageError, match="no compressor folder"):
        export(tmp_path / "nothing", tmp_path / "out")
    with pytest.raises(FormatError, match=r"no config\.json"):
        export(tmp_path, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def sabotage(name: str, change: Callable[[np.ndarray], np.ndarray]) -> Callable[..., str]:
    def weight(self: GraphBuilder, key: str, value: np.ndarray) -> str:
        if name in key and key not in self.weights:
            value = change(np.array(value))
        if key not in self.weights:
            self.weights[key] = numpy_helper.from_array(np.ascontiguousarray(value), key)
        return key

    return weight


@pytest.mark.parametrize(
    ("key", "change", "blamed"),
    [
        ("latents.linear.bias", lambda v: v + 0.01, "encoder.onnx: latents at batch 1"),
        ("latents.mlp.0.weight", lambda v: v * 1.1, "encoder.onnx: latents"),
        ("books.0", lambda v: v[:, :, ::-1], "encoder.onnx: codes at batch 1"),
        ("books.0", lambda v: v * (np.arange(len(v[0])) < len(v[0]) - 1)[:, None], "codes"),
        ("decoder.linear.bias", lambda v: v + np.float32(np.nan), "decoder.onnx: embeddings"),
        ("codebooks", lambda v: v * 1.01, "code_decoder.onnx: embeddings"),
        ("codes.linear.weight", lambda v: v * 0.99, "code_queries|codes at batch"),
    ],
)
def test_a_graph_that_differs_is_not_written(
    fitted: Callable[..., Compressor],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    key: str,
    change: Callable[[np.ndarray], np.ndarray],
    blamed: str,
) -> None:
    monkeypatch.setattr(GraphBuilder, "weight", sabotage(key, change))
    with pytest.raises(ExportError, match=blamed) as caught:
        save(fitted(metric="ip", groups=2, batch_norm=True), tmp_path)
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.glob("*.onnx"))
    with pytest.raises(FormatError, match=r"no config\.json"):
        load_compressor(tmp_path)


def test_vectors_of_any_size_are_compared_at_their_size(embeddings: np.ndarray) -> None:
    # Compared on vectors of norm 1, networks for small ones would see only one direction.
    from samples import SMALL

    x = embeddings * np.float32(1e-4)
    compressor = Compressor(**{**SMALL, "metric": "l2", "code_size": None}).fit(x)
    tower, scale = compressor.latent_tower_, compressor.scale_
    assert tower is not None
    stamp = {"fingerprint": "none"}
    model = graph.decoder_graph(scale, 32, tower, stamp)
    check_parity(compressor, "decoder.onnx", model)
    for weight in model.graph.initializer:
        if weight.name == "scale":
            value = numpy_helper.to_array(weight) * np.float32(1.01)
            weight.CopyFrom(numpy_helper.from_array(value, "scale"))
    with pytest.raises(ExportError, match="differ from the network's"):
        check_parity(compressor, "decoder.onnx", model)


def test_a_graph_of_another_width(fitted: Callable[..., Compressor]) -> None:
    wide, narrow = fitted(), fitted(n_components=5)
    assert narrow.latent_tower_ is not None
    model = graph.encoder_graph(narrow.scale_, 32, narrow.latent_tower_, None, {})
    with pytest.raises(ExportError, match=r"has shape \(1, 5\), the network gives \(1, 6\)"):
        check_parity(wide, "encoder.onnx", model)


def test_batch_normalisation_elsewhere_cannot_be_folded() -> None:
    from torch import nn

    with pytest.raises(TypeError, match="must follow a dense layer"):
        graph.folded_layers(nn.Sequential(nn.Linear(2, 2), nn.ReLU(), nn.BatchNorm1d(2)))


def test_weights_of_the_graphs_are_stored_once(saved: Callable[..., Path]) -> None:
    for file in saved().glob("*.onnx"):
        model = onnx.load(file)
        names = [weight.name for weight in model.graph.initializer]
        assert len(names) == len(set(names))
        used = {name for node in model.graph.node for name in node.input}
        assert set(names) <= used
