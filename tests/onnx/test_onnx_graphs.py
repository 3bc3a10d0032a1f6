from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from samples import DIM, curved

from embedpress import __version__
from embedpress.autoencoder.estimator import Compressor
from embedpress.onnx.compressor import load

VARIANTS: list[dict[str, Any]] = [
    {},
    {"groups": 2, "batch_norm": True, "metric": "ip"},
    # Few rows leave one group nothing to learn: held-out recall would keep the start.
    {"groups": 1, "validation_fraction": 0},
    {"metric": "l2", "hidden_sizes": (16, 8), "dropout": 0.2},
    {"n_components": None, "groups": 1, "validation_fraction": 0},
    {"code_size": None, "hidden_sizes": ()},
]
METHODS = {
    "encoder.onnx": {"latents": "transform", "codes": "encode"},
    "latent_encoder.onnx": {"latents": "transform"},
    "code_encoder.onnx": {"codes": "encode"},
    "query_encoder.onnx": {"latents": "transform_queries", "code_queries": "encode_queries"},
    "decoder.onnx": {"embeddings": "inverse_transform"},
    "code_decoder.onnx": {"embeddings": "decode"},
}


def graphs(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.glob("*.onnx"))


@pytest.mark.parametrize("options", VARIANTS, ids=str)
def test_every_graph_gives_what_the_network_gives(
    fitted: Callable[..., Compressor], saved: Callable[..., Path], options: dict[str, Any]
) -> None:
    compressor, folder = fitted(**options), saved(**options)
    x = np.concatenate([curved(1000, seed=3), 5 * curved(500, seed=4)])
    for name in graphs(folder):
        session = onnxruntime.InferenceSession(str(folder / name))
        (port,) = session.get_inputs()
        given = {
            "embeddings": lambda: x,
            "latents": lambda: compressor.transform(x),
            "codes": lambda: compressor.encode(x),
        }[port.name]()
        for batch in (1, 7, 256, 1500):
            rows = given[:batch]
            outputs = [output.name for output in session.get_outputs()]
            assert set(outputs) <= set(METHODS[name])
            for output, found in zip(outputs, session.run(outputs, {port.name: rows}), strict=True):
                expected = getattr(compressor, METHODS[name][output])(rows)
                assert found.dtype == expected.dtype
                assert found.shape == expected.shape
                if output == "codes":
                    assert (found != expected).any(axis=1).mean() <= 0.002
                else:
                    np.testing.assert_allclose(
                        found, expected, atol=1e-5 * np.abs(expected).max(), rtol=1e-4
                    )


@pytest.mark.parametrize("options", VARIANTS, ids=str)
def test_graphs_say_what_they_are(saved: Callable[..., Path], options: dict[str, Any]) -> None:
    folder = saved(**options)
    for name in graphs(folder):
        model = onnx.load(folder / name)
        onnx.checker.check_model(model, full_check=True)
        assert [(entry.domain, entry.version) for entry in model.opset_import] == [("", 17)]
        assert model.ir_version == 8
        stamps = {entry.key: entry.value for entry in model.metadata_props}
        metric = options.get("metric", "cosine")
        assert stamps == {
            "fingerprint": load(folder).fingerprint,
            "metric": metric,
            "normalization": "l2" if metric == "cosine" else "none",
            "opset": "17",
            "embedpress": __version__,
            "onnx": onnx.__version__,
        }
        for port in (*model.graph.input, *model.graph.output):
            batch, width = port.type.tensor_type.shape.dim
            assert batch.dim_param == "batch"
            assert width.dim_value > 0


def test_shapes_of_the_graphs(saved: Callable[..., Path]) -> None:
    widths = {}
    for name in graphs(saved(groups=2, batch_norm=True, metric="ip")):
        model = onnx.load(saved(groups=2, batch_norm=True, metric="ip") / name)
        for port in (*model.graph.input, *model.graph.output):
            tensor = port.type.tensor_type
            kind = onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type)
            widths[name, port.name] = (tensor.shape.dim[1].dim_value, kind)
    floats, codes = np.dtype(np.float32), np.dtype(np.uint8)
    assert widths["encoder.onnx", "embeddings"] == (DIM, floats)
    assert widths["encoder.onnx", "latents"] == (6, floats)
    assert widths["encoder.onnx", "codes"] == (4, codes)
    assert widths["query_encoder.onnx", "code_queries"] == (2 * DIM, floats)
    assert widths["code_decoder.onnx", "codes"] == (4, codes)
    assert widths["decoder.onnx", "embeddings"] == (DIM, floats)


def test_batch_normalisation_is_folded_and_dropout_gone(saved: Callable[..., Path]) -> None:
    for options in VARIANTS[1], VARIANTS[3]:
        for name in graphs(saved(**options)):
            ops = {node.op_type for node in onnx.load(saved(**options) / name).graph.node}
            assert not ops & {"BatchNormalization", "Dropout"}
            assert "Relu" in ops


def test_folding_follows_what_was_seen_in_training(fitted: Callable[..., Compressor]) -> None:
    # Else the parity above would prove nothing: the running statistics must matter.
    tower = fitted(**VARIANTS[1]).latent_tower_
    assert tower is not None
    norm = tower.encoder.mlp[1]
    assert np.abs(norm.running_mean.numpy()).max() > 0.01
    assert np.abs(norm.running_var.numpy() - 1).max() > 0.1
    assert np.abs(norm.weight.detach().numpy() - 1).max() > 5e-3


def test_the_residual_networks_have_learnt(fitted: Callable[..., Compressor]) -> None:
    for options in VARIANTS[:5]:
        for tower in (fitted(**options).latent_tower_, fitted(**options).code_tower_):
            if tower is not None:
                for network in (tower.encoder, tower.query_encoder, tower.decoder):
                    assert network.mlp[-1].weight.abs().max() > 1e-3
