from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from samples import DIM, curved

from embedpress.autoencoder.estimator import Compressor
from embedpress.errors import FormatError, InputError, UsageError
from embedpress.onnx.compressor import BATCH_ROWS, load

METHODS = ("transform", "transform_queries", "encode", "encode_queries")
OPTIONS: list[dict[str, Any]] = [
    {},
    {"groups": 2, "batch_norm": True, "metric": "ip"},
    {"metric": "l2", "hidden_sizes": (16, 8), "dropout": 0.2},
]


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_it_does_what_the_estimator_does(
    fitted: Callable[..., Compressor], saved: Callable[..., Path], options: dict[str, Any]
) -> None:
    compressor, runtime = fitted(**options), load(saved(**options), num_threads=1)
    x = curved(3 * BATCH_ROWS + 200, seed=3)
    for method in METHODS:
        found, expected = getattr(runtime, method)(x), getattr(compressor, method)(x)
        assert found.dtype == expected.dtype
        if method == "encode":
            assert (found != expected).any(axis=1).mean() <= 0.002
        else:
            np.testing.assert_allclose(found, expected, atol=1e-5 * np.abs(expected).max())
    codes, latents = compressor.encode(x), compressor.transform(x)
    np.testing.assert_allclose(runtime.decode(codes), compressor.decode(codes), atol=2e-5)
    np.testing.assert_allclose(
        runtime.inverse_transform(latents), compressor.inverse_transform(latents), atol=2e-5
    )


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_rows_do_not_depend_on_their_batch(
    saved: Callable[..., Path], options: dict[str, Any]
) -> None:
    runtime = load(saved(**options), num_threads=1)
    x = curved(3 * BATCH_ROWS + 200, seed=3)
    for method in METHODS:
        run = getattr(runtime, method)
        whole = run(x)
        one_by_one = np.concatenate([run(x[i : i + 1]) for i in range(300)])
        by_seven = np.concatenate([run(x[i : i + 7]) for i in range(0, 301, 7)])
        if method == "encode":
            assert np.array_equal(one_by_one, whole[:300])
            assert np.array_equal(by_seven, whole[:301])
        else:
            np.testing.assert_allclose(one_by_one, whole[:300], atol=1e-6 * np.abs(whole).max())
            np.testing.assert_allclose(by_seven, whole[:301], atol=1e-6 * np.abs(whole).max())


def test_threads_change_nothing(saved: Callable[..., Path]) -> None:
    x = curved(600, seed=3)
    one, two = load(saved(), num_threads=1), load(saved(), num_threads=2)
    assert (one.num_threads, two.num_threads) == (1, 2)
    assert np.array_equal(one.encode(x), two.encode(x))
    assert np.array_equal(one.transform(x), two.transform(x))
    with pytest.raises(UsageError, match="num_threads=0"):
        load(saved(), num_threads=0)


def test_what_it_says_of_itself(saved: Callable[..., Path]) -> None:
    runtime = load(saved(groups=2, batch_norm=True, metric="ip"))
    assert (runtime.dim, runtime.n_components, runtime.code_size) == (DIM, 6, 4)
    assert runtime.metric == "ip"
    assert len(runtime.fingerprint) == 64
    assert load(saved()).fingerprint != runtime.fingerprint


def test_codebooks_are_the_centroids_of_a_product_quantizer(
    fitted: Callable[..., Compressor], saved: Callable[..., Path]
) -> None:
    options = OPTIONS[1]
    tower = fitted(**options).code_tower_
    assert tower is not None
    assert tower.quantizer is not None
    found = load(saved(**options)).codebooks()
    assert found.shape == (4, 256, 16)
    expected = tower.quantizer.codebooks.detach().numpy()
    for byte in range(4):
        assert np.array_equal(found[byte], expected[byte // 2, byte % 2])


def test_a_compressor_without_the_narrow_graphs(
    saved: Callable[..., Path], tmp_path: Path, others: np.ndarray
) -> None:
    folder = Path(shutil.copytree(saved(), tmp_path / "copy"))
    for name in ("latent_encoder.onnx", "code_encoder.onnx"):
        (folder / name).unlink()
    whole, wide = load(saved(), num_threads=1), load(folder, num_threads=1)
    assert np.array_equal(whole.encode(others), wide.encode(others))
    assert np.array_equal(whole.transform(others), wide.transform(others))
    assert wide.bad_files() == []


def test_a_tower_that_was_not_trained(saved: Callable[..., Path], others: np.ndarray) -> None:
    only_codes = load(saved(n_components=None, groups=1))
    only_latents = load(saved(code_size=None, hidden_sizes=()))
    for call in (only_codes.transform, only_codes.transform_queries):
        with pytest.raises(InputError, match="no n_components"):
            call(others)
    for call in (only_latents.encode, only_latents.encode_queries):
        with pytest.raises(InputError, match="no code_size"):
            call(others)
    with pytest.raises(InputError, match="no code_size"):
        only_latents.codebooks()
    with pytest.raises(InputError, match="no n_components"):
        only_codes.inverse_transform(np.zeros((1, 6)))
    with pytest.raises(InputError, match="no code_size"):
        only_latents.decode(np.zeros((1, 4), np.uint8))
    assert (only_codes.n_components, only_latents.code_size) == (None, None)


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (lambda x: np.where(x > 1, np.nan, x), "holds NaN"),
        (lambda x: x * np.float32(1e20), "so long that its squared length overflows"),
        (lambda x: x * 0, "row 0 is all zeros"),
        (lambda x: x[:0], "empty"),
        (lambda x: x[:, :31], "31 dimensions, 32 were expected"),
        (lambda x: x.astype(int), "dtype int64"),
        (lambda x: [[1.0], [1.0, 2.0]], "not a matrix of numbers"),
        (lambda x: np.ma.masked_greater(x, 1), "masked"),
    ],
)
def test_embeddings_that_cannot_be_used(
    saved: Callable[..., Path], others: np.ndarray, bad: Callable[[np.ndarray], Any], message: str
) -> None:
    runtime = load(saved())
    for method in METHODS:
        with pytest.raises(InputError, match=message):
            getattr(runtime, method)(bad(others))


def test_other_forms_of_the_same_numbers(saved: Callable[..., Path], others: np.ndarray) -> None:
    runtime = load(saved(), num_threads=1)
    for method in METHODS:
        run = getattr(runtime, method)
        for form in (others.tolist(), others.astype(np.float64), np.asfortranarray(others)):
            assert np.array_equal(run(form), run(others))


def test_codes_and_latents_that_cannot_be_used(saved: Callable[..., Path]) -> None:
    runtime = load(saved())
    with pytest.raises(InputError, match="3 bytes a row, 4 were expected"):
        runtime.decode(np.zeros((2, 3), np.uint8))
    with pytest.raises(InputError, match="dtype float64, not uint8"):
        runtime.decode(np.zeros((2, 4)))
    with pytest.raises(InputError, match="7 dimensions, 6 were expected"):
        runtime.inverse_transform(np.zeros((2, 7)))


# -- files that are not those of the compressor ---------------------------------------


@pytest.fixture
def copy(saved: Callable[..., Path], tmp_path: Path) -> Path:
    return Path(shutil.copytree(saved(), tmp_path / "copy"))


def without_sums(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    del config["sha256"]
    (folder / "config.json").write_text(json.dumps(config))


def restamped(folder: Path, name: str, change: Callable[[onnx.ModelProto], None]) -> None:
    """Change a graph in a folder that has no checksums to tell."""
    without_sums(folder)
    model = onnx.load(folder / name)
    change(model)
    onnx.save(model, folder / name)


def test_a_graph_of_another_compressor(
    saved: Callable[..., Path], copy: Path, others: np.ndarray
) -> None:
    shutil.copy(saved(groups=1) / "code_encoder.onnx", copy / "code_encoder.onnx")
    with pytest.raises(FormatError, match="was changed since it was written"):
        load(copy).encode(others)
    without_sums(copy)
    with pytest.raises(FormatError, match="belongs to another compressor"):
        load(copy).encode(others)
    assert load(copy).bad_files() == ["code_encoder.onnx"]


def test_a_graph_that_is_not_there(copy: Path, others: np.ndarray) -> None:
    (copy / "query_encoder.onnx").unlink()
    with pytest.raises(FormatError, match=r"has no query_encoder\.onnx: export"):
        load(copy).encode_queries(others)
    assert load(copy).bad_files() == ["query_encoder.onnx"]


def rename_output(model: onnx.ModelProto) -> None:
    model.graph.output[0].name = "other"
    model.graph.node[-1].output[0] = "other"


def widen(model: onnx.ModelProto) -> None:
    last = model.graph.node[-1].output[0]
    twice = onnx.helper.make_node("Concat", [last, last], ["wide"], axis=1)
    model.graph.node.append(twice)
    named = onnx.helper.make_node("Identity", ["wide"], ["codes"])
    model.graph.node[-2].output[0] = "narrow"
    twice.input[:] = ["narrow", "narrow"]
    model.graph.node[-1].input[:] = ["narrow", "narrow"]
    model.graph.node.append(named)
    model.graph.output[0].type.tensor_type.shape.dim[1].dim_value = 8


def narrow_input(model: onnx.ModelProto) -> None:
    model.graph.input[0].type.tensor_type.shape.dim[1].dim_value = 31


@pytest.mark.parametrize("change", [rename_output, widen, narrow_input])
def test_a_graph_of_another_shape(
    copy: Path,
    others: np.ndarray,
    change: Callable[[onnx.ModelProto], None],
    capfd: pytest.CaptureFixture[str],
) -> None:
    restamped(copy, "code_encoder.onnx", change)
    with pytest.raises(FormatError) as caught:
        load(copy).encode(others)
    assert "code_encoder.onnx" in str(caught.value)
    assert "\n" not in str(caught.value)
    # Standard output belongs to results, standard error to the one line above.
    assert capfd.readouterr() == ("", "")


def test_nonsense_is_one_line_and_nothing_is_printed(
    copy: Path, others: np.ndarray, capfd: pytest.CaptureFixture[str]
) -> None:
    without_sums(copy)
    sound = (copy / "code_encoder.onnx").read_bytes()
    for data in (
        b"",
        b"nonsense",
        sound[:-40],
        sound.replace(b"fingerprint", b"\xff" * 11),
        sound.replace(b"embeddings", b"\xff" * 10),
        sound.replace(b"Gemm", b"\xffemm"),
    ):
        (copy / "code_encoder.onnx").write_bytes(data)
        with pytest.raises(FormatError) as caught:
            load(copy).encode(others)
        assert "\n" not in str(caught.value)
        assert len(str(caught.value)) < 700
    assert capfd.readouterr() == ("", "")


def test_a_checksum_that_no_session_looks_at_is_compared_too(
    saved: Callable[..., Path], tmp_path: Path
) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(saved(), copy)
    (copy / "canaries.safetensors").write_bytes(b"other")
    assert load(copy).bad_files() == ["canaries.safetensors"]
    (copy / "canaries.safetensors").unlink()
    assert load(copy).bad_files() == ["canaries.safetensors"]
