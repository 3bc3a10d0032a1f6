"""int8 dense layers: close to float32, the same in any batch, or refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest

from embedpress.errors import ExportError, InputError, PrecisionWarning, UsageError
from embedpress.onnx import int8, int8_bundle, int8_judge
from embedpress.onnx.builder import GraphBuilder
from embedpress.onnx.export import export
from embedpress.onnx.int8 import Range, instructions_missing, quantized_weight
from embedpress.onnx.runtime import TextEncoder
from embedpress.onnx.sample import sample_texts

pytestmark = pytest.mark.filterwarnings(
    "ignore:texts longer than max_length", "ignore:this processor lacks"
)


@pytest.fixture(scope="module")
def deployed(
    saved: Callable[..., Path], bert: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    folder = tmp_path_factory.mktemp("int8") / "out"
    with pytest.MonkeyPatch.context() as patch:
        # Random weights are no model: how much they lose says nothing.
        patch.setattr(int8_judge, "MOST_LOST", 0.5)
        patch.setattr(int8_bundle, "MOST_JUDGED", 400)
        export(saved(), folder, with_extractor=bert, int8=True, num_threads=1)
    return folder


@pytest.fixture(scope="module")
def plain(
    saved: Callable[..., Path], bert: Path, tmp_path_factory: pytest.TempPathFactory
) -> TextEncoder:
    folder = tmp_path_factory.mktemp("float32") / "out"
    export(saved(), folder, with_extractor=bert, num_threads=1)
    return TextEncoder(folder, num_threads=1)


def test_int8_is_close_to_float32_and_smaller(deployed: Path, plain: TextEncoder) -> None:
    encoder = TextEncoder(deployed, num_threads=1)
    texts = sample_texts()[1000:1200]
    ours, theirs = encoder.embed(texts), plain.embed(texts)
    cosine = (ours * theirs).sum(1) / np.linalg.norm(ours, axis=1) / np.linalg.norm(theirs, axis=1)
    assert cosine.mean() > 0.99
    assert not np.array_equal(ours, theirs)
    assert encoder.check_canaries() == 24
    measured = json.loads((deployed / "extractor.json").read_text())["measured"]
    assert set(measured) == {"recall@10", "recall@10 of float32", "cosine", "queries"}
    assert 0.9 < measured["cosine"] < 1
    sizes = [(one / "text_encoder.onnx").stat().st_size for one in (deployed, plain.path)]
    assert sizes[0] < sizes[1]


def test_a_text_does_not_depend_on_its_batch(deployed: Path) -> None:
    encoder = TextEncoder(deployed, num_threads=1)
    texts = sample_texts()[2000:2060]
    alone = np.concatenate([encoder.embed([text]) for text in texts])
    largest = float(np.abs(alone).max())
    for budget in (100, 1024, 10**6):
        among = encoder.embed(texts, batch_tokens=budget)
        np.testing.assert_allclose(among, alone, atol=int8_judge.ALONE_TOLERANCE * largest)


def test_values_take_the_smoothing_of_what_reads_their_averages() -> None:
    rng = np.random.default_rng(0)
    sizes = np.geomspace(0.2, 5, 8).astype(np.float32)
    value = rng.normal(size=(4, 8)).astype(np.float32) * sizes, rng.normal(size=8) * sizes
    output = rng.normal(size=(8, 3)).astype(np.float32) / sizes[:, None], np.zeros(3)
    x = rng.normal(size=(50, 4)).astype(np.float32)
    averages = x @ value[0] + value[1]
    wanted = averages @ output[0]
    ranges = {
        name: Range(read.min(axis=0), read.max(axis=0))
        for name, read in (("0.value", x), ("0.output", averages))
    }
    graph, dense = GraphBuilder(), int8.Int8Dense(ranges)
    read = "x"
    for name, layer in (("0.value", value), ("0.output", output)):
        weight, bias = (part.astype(np.float32) for part in layer)
        read = dense(graph, read, weight, bias, name)
    graph.add("Identity", read, name="y")
    assert "0.output.smoothing" not in graph.weights
    ports = [("x", onnx.TensorProto.FLOAT, (4,))], [("y", onnx.TensorProto.FLOAT, (3,))]
    session = onnxruntime.InferenceSession(graph.model(*ports, {}).SerializeToString())
    error = np.abs(session.run(None, {"x": x})[0] - wanted).max()
    assert error < 0.05 * np.abs(wanted).max()


def test_what_loses_too_much_is_refused(
    saved: Callable[..., Path], bert: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = int8_bundle._ranges

    def clipped(*arguments: object) -> dict[str, Range]:
        ranges = real(*arguments)  # type: ignore[arg-type]
        return {name: Range(found.low / 50, found.high / 50) for name, found in ranges.items()}

    monkeypatch.setattr(int8_bundle, "_ranges", clipped)
    monkeypatch.setattr(int8_bundle, "MOST_JUDGED", 400)
    with pytest.raises(ExportError, match=r"more than 0\.01 is lost; export without --int8"):
        export(saved(), tmp_path / "out", with_extractor=bert, int8=True, num_threads=1)
    assert not (tmp_path / "out").exists()


def test_what_depends_on_its_batch_is_refused(
    saved: Callable[..., Path], bert: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(int8_judge, "ALONE_TOLERANCE", -1.0)
    monkeypatch.setattr(int8_bundle, "MOST_JUDGED", 400)
    with pytest.raises(ExportError, match="the embedding of a text depends on its batch"):
        export(saved(), tmp_path / "out", with_extractor=bert, int8=True, num_threads=1)


def test_samples(saved: Callable[..., Path], bert: Path, tmp_path: Path) -> None:
    def refused(sample: Path) -> None:
        out = tmp_path / "out"
        export(saved(), out, with_extractor=bert, int8=True, sample=sample, num_threads=1)

    with pytest.raises(UsageError, match="no such file of texts"):
        refused(tmp_path / "nothing.txt")
    (tmp_path / "few.txt").write_text("a\n\nb\n")
    with pytest.raises(UsageError, match="the sample has 2 texts: int8 is judged on 500 of them"):
        refused(tmp_path / "few.txt")
    (tmp_path / "bytes.txt").write_bytes(b"\xff\xfe" * 100)
    with pytest.raises(InputError, match="is not UTF-8 text"):
        refused(tmp_path / "bytes.txt")
    with pytest.raises(UsageError, match="a sample of texts is for int8"):
        export(saved(), tmp_path / "out", with_extractor=bert, sample=tmp_path / "few.txt")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("scale", [1e-12, 1.0, 1e6])
def test_weights_are_rounded_to_the_nearest_step(scale: float) -> None:
    weight = scale * np.random.default_rng(0).standard_normal((40, 7)).astype(np.float32)
    weight[:, 3] = 0
    whole, scales = quantized_weight(weight)
    assert whole.dtype == np.int8
    assert np.abs(whole).max() <= 127
    assert (np.abs(whole * scales - weight) <= scales * 0.5001).all()
    if scale == 1.0:
        assert (np.abs(whole).max(axis=0)[[0, 1, 2, 4, 5, 6]] == 127).all()


@pytest.mark.parametrize(
    ("text", "missing"),
    [
        ("model name\t: X\nflags\t\t: fpu avx2 avx512_vnni\n", False),
        ("flags\t\t: fpu avx2 avx512f\n", True),
        ("Features\t: fp asimd asimddp\n", False),
        ("Features\t: fp asimd\n", True),
        ("nothing of the kind", None),
    ],
)
def test_processors_are_told_apart(tmp_path: Path, text: str, missing: bool | None) -> None:
    (tmp_path / "cpuinfo").write_text(text)
    assert instructions_missing(tmp_path / "cpuinfo") is missing


def test_it_is_said_where_int8_does_not_pay(
    saved: Callable[..., Path], bert: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(int8, "instructions_missing", lambda: True)
    monkeypatch.setattr(int8_bundle, "text_bundle", lambda *_: 1 / 0)
    with (
        pytest.warns(PrecisionWarning, match="this processor lacks the instructions"),
        pytest.raises(ZeroDivisionError),
    ):
        export(saved(), tmp_path / "out", with_extractor=bert, int8=True, num_threads=1)
