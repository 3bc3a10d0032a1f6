"""Graphs that are programs: nothing is loaded, looped or made gigabytes of."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from child import one_line
from damage import DAMAGE, Damage, damaged
from hypothesis import HealthCheck, given, settings
from safetensors.numpy import save
from samples import curved

from embedpress import load
from embedpress.errors import EmbedpressError, FormatError
from embedpress.onnx.compressor import fingerprint
from embedpress.onnx.contents import check_contents
from embedpress.vectors import sha256_of

onnx = pytest.importorskip("onnx")
helper, numpy_helper = onnx.helper, onnx.numpy_helper


def graph(nodes: list[Any], weights: list[Any] = (), **more: Any) -> bytes:  # type: ignore[assignment]
    kind = onnx.TensorProto.FLOAT
    ports = [helper.make_tensor_value_info(name, kind, None) for name in ("x", "y")]
    made = helper.make_graph(nodes, "g", ports[:1], ports[1:], list(weights), **more)
    return bytes(helper.make_model(made).SerializeToString())


def node(op: str, *inputs: str, **options: Any) -> Any:
    return helper.make_node(op, list(inputs), ["y"], **options)


def outside(location: str) -> Any:
    tensor = onnx.TensorProto(name="w", data_type=onnx.TensorProto.UINT8, dims=[100])
    tensor.data_location = onnx.TensorProto.EXTERNAL
    entry = tensor.external_data.add()
    entry.key, entry.value = "location", location
    return tensor


def hostile() -> dict[str, bytes]:
    size = numpy_helper.from_array(np.array([2**40]), "size")
    inner = helper.make_graph([], "inner", [], [])
    looped = helper.make_graph([node("Loop", "size", "", "x", body=inner)], "looped", [], [])
    reading = helper.make_graph([node("Identity", "w")], "reading", [], [], [outside("secret")])
    again = node("If", "x", then_branch=inner, else_branch=inner)
    branching = helper.make_graph([again], "branching", [], [])
    held = helper.make_node("Identity", ["x"], ["y"])
    held.attribute.append(helper.make_attribute("value", outside("secret")))
    names = ("/etc/passwd", "../../secret", "secret")
    found = {
        f"weights of {name}": graph([node("Identity", "w")], [outside(name)]) for name in names
    }
    found |= {
        "weights in an attribute": graph([held]),
        "loop": graph([node("Loop", "size", "", "x", body=inner)], [size]),
        "branches, misnamed": graph([node("Add", "x", then_branch=inner)]),
        "branch with a loop": graph([node("If", "x", then_branch=looped, else_branch=inner)]),
        "branch with files": graph([node("If", "x", then_branch=inner, else_branch=reading)]),
        "branch in a branch": graph([node("If", "x", then_branch=branching, else_branch=inner)]),
        "many branches": graph([node("If", "x", branches=[inner, inner])]),
        "filled": graph([node("ConstantOfShape", "size")], [size]),
        "expanded": graph([node("Expand", "x", "size")], [size]),
        "random": graph([node("RandomUniform", shape=[2**20])]),
        "foreign": graph([node("Add", "x", domain="evil.example")]),
        "two graphs": graph([node("Identity", "x")]) * 2,
        "nothing": b"",
        "text": b"not a graph at all",
        "ORT's own format": b"\x18\0\0\0ORTM" + bytes(64),
        "endless number": b"\xff" * 40,
        "beyond its end": b"\x3a\xff\xff\xff\x7f",
    }
    return found


def test_branches_of_what_the_exporters_write(tmp_path: Path) -> None:
    shares = helper.make_graph([node("Softmax", "x")], "shares", [], [])
    content = graph([node("If", "x", then_branch=shares, else_branch=shares)])
    (tmp_path / "x.onnx").write_bytes(content)
    check_contents(tmp_path / "x.onnx")


@pytest.mark.parametrize("name", list(hostile()))
def test_graphs_that_are_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / "x.onnx").write_bytes(hostile()[name])
    with pytest.raises(FormatError) as caught:
        check_contents(tmp_path / "x.onnx")
    assert str(caught.value).isprintable()


def restamped(saved: Path, copy: Path, name: str, content: bytes) -> Path:
    shutil.copytree(saved, copy)
    (copy / name).write_bytes(content)
    config = json.loads((copy / "config.json").read_text())
    if name == "model.safetensors":
        config["fingerprint"] = fingerprint(config, copy / name)
    config["sha256"][name] = sha256_of(copy / name)
    (copy / "config.json").write_text(json.dumps(config))
    return copy


def test_a_refused_graph_never_reaches_onnx_runtime(
    saved: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import onnxruntime

    content = graph([node("Identity", "w")], [outside("/etc/passwd")])
    copy = restamped(saved(), tmp_path / "copy", "code_encoder.onnx", content)
    monkeypatch.setattr(onnxruntime, "InferenceSession", None)
    with pytest.raises(FormatError, match="names other files as its weights"):
        load(copy).encode(curved(2))


@given(damage=DAMAGE)
@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_damage_is_answered(saved: Callable[..., Path], tmp_path: Path, damage: Damage) -> None:
    sound = (saved() / "latent_encoder.onnx").read_bytes()
    shutil.rmtree(tmp_path / "copy", ignore_errors=True)
    spoilt = damaged(sound, damage)
    copy = restamped(saved(), tmp_path / "copy", "latent_encoder.onnx", spoilt)
    with one_line():
        assert load(copy, num_threads=1).transform(curved(2)).shape == (2, 6)


@pytest.mark.parametrize(
    "shape", [(1, 4, 256), (1, 4, 256, 0), (1, 4, 256, 2, 2), (), (1, 2, 256, 8)]
)
def test_codebooks_of_other_shapes(
    saved: Callable[..., Path], tmp_path: Path, shape: tuple[int, ...]
) -> None:
    content = save({"codes.quantizer.codebooks": np.ones(shape, np.float32)})
    copy = restamped(saved(), tmp_path / "copy", "model.safetensors", content)
    with pytest.raises(FormatError, match="codebooks of shape"):
        load(copy).codebooks()


@pytest.mark.parametrize(
    "tensors",
    [
        {"x": np.ones((2, 2), np.float32)},
        {"embeddings": np.ones((2,), np.int32)},
        {"embeddings": np.ones((0, 32), np.float32)},
        {"embeddings": np.array(1, np.float32)},
        {"embeddings": np.ones((2, 32), np.float32), "latents": np.ones((2, 0), np.float32)},
    ],
)
def test_canaries_that_are_none(
    saved: Callable[..., Path], tmp_path: Path, tensors: dict[str, Any]
) -> None:
    copy = restamped(saved(), tmp_path / "copy", "canaries.safetensors", save(tensors))
    with pytest.raises(EmbedpressError):
        load(copy).check_canaries()
