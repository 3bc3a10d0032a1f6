"""One graph from texts or images to codes: equal to torch, whole or refused."""

from __future__ import annotations

import copy
import hashlib
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_bert
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from samples import SMALL, curved
from torch_files import random_network

from embedpress.autoencoder.estimator import Compressor
from embedpress.autoencoder.pretrained import load_compressor, save
from embedpress.errors import (
    EmbedpressError,
    ExportError,
    FormatError,
    InputError,
    MismatchError,
    UsageError,
)
from embedpress.extract import torchvision_trap
from embedpress.extract.image import ImageExtractor
from embedpress.extract.text import TextExtractor
from embedpress.onnx import bert as bert_module
from embedpress.onnx.canary import INPUTS, VECTORS
from embedpress.onnx.export import export
from embedpress.onnx.runtime import ImageEncoder, TextEncoder, load, open_encoder

pytestmark = pytest.mark.filterwarnings("ignore:texts longer than max_length")

TEXTS = [
    "a cat",
    "",
    "trains are late again",
    "x",
    "soup! with 日 and é",
    "the river ran past the old mill " * 4,
]


@pytest.fixture(scope="session")
def deployed(
    saved: Callable[..., Path], bert: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """A compressor with a text model before it: not to be written to."""
    folder = tmp_path_factory.mktemp("deployed") / "out"
    export(saved(), folder, with_extractor=bert, num_threads=1)
    return folder


@pytest.fixture
def copied(deployed: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(deployed, tmp_path / "copied"))


def sign_anew(folder: Path, name: str) -> None:
    """Let config.json vouch for a changed file."""
    config = json.loads((folder / "config.json").read_text())
    config["sha256"][name] = hashlib.sha256((folder / name).read_bytes()).hexdigest()
    (folder / "config.json").write_text(json.dumps(config))


def assert_like_torch(encoder: TextEncoder, extractor: TextExtractor, folder: Path) -> None:
    expected = extractor.encode(TEXTS)
    compressor = load_compressor(folder)
    np.testing.assert_allclose(encoder.embed(TEXTS), expected, atol=1e-5)
    np.testing.assert_allclose(encoder.transform(TEXTS), compressor.transform(expected), atol=1e-5)
    assert (encoder.encode(TEXTS) == compressor.encode(expected)).mean() > 0.95


@pytest.mark.parametrize("num_threads", [1, 2])
def test_texts_are_encoded_as_by_torch(deployed: Path, bert: Path, num_threads: int) -> None:
    encoder, extractor = TextEncoder(deployed, num_threads=num_threads), TextExtractor(bert)
    assert_like_torch(encoder, extractor, deployed)
    assert (encoder.dim, encoder.n_components, encoder.code_size) == (32, 6, 4)
    assert encoder.max_length == extractor.max_length == 48
    assert encoder.count_tokens(TEXTS) == [len(ids) for ids in extractor.tokenize(TEXTS)]
    assert encoder.truncated > 0
    assert encoder.encode(TEXTS).dtype == np.uint8


def test_batches_side_by_side_come_back_in_order(deployed: Path) -> None:
    texts = [f"{word} {number}" for number in range(40) for word in ("a cat", "trains are late")]
    alone, beside = _opened(deployed), TextEncoder(deployed, num_threads=3)
    for budget in (20, 100, 10**6):
        found = beside.embed(texts, batch_tokens=budget)
        np.testing.assert_allclose(found, alone.embed(texts), atol=1e-5)
    codes = beside.encode(texts, batch_tokens=50)
    assert np.array_equal(codes, alone.encode(texts))
    # Whatever the batches, the compressor sees them together.
    assert np.array_equal(codes, alone.compressor.encode(alone.embed(texts)))


@settings(max_examples=20, deadline=None)
@given(st.lists(st.text(max_size=30), max_size=8), st.integers(1, 200))
def test_neighbours_order_and_batches_change_nothing(
    deployed: Path, texts: list[str], budget: int
) -> None:
    encoder = _opened(deployed)
    whole = encoder.embed(texts, batch_tokens=budget)
    assert whole.shape == (len(texts), 32)
    for row, text in enumerate(texts):
        np.testing.assert_allclose(whole[row], encoder.embed([text])[0], atol=1e-5)


_open: dict[Path, TextEncoder] = {}


def _opened(folder: Path) -> TextEncoder:
    return _open.setdefault(folder, TextEncoder(folder, num_threads=1))


@pytest.mark.parametrize("pooling", ["cls", "max", "mean"])
@pytest.mark.parametrize("normalize", [True, False])
def test_poolings_prompt_and_case(
    saved: Callable[..., Path], bert: Path, tmp_path: Path, pooling: str, normalize: bool
) -> None:
    model = Path(shutil.copytree(bert, tmp_path / "model"))
    modules = [{"path": "", "type": "sentence_transformers.models.Transformer"}]
    modules += [{"path": "p", "type": "sentence_transformers.models.Pooling"}]
    modules += [{"path": "n", "type": "sentence_transformers.models.Normalize"}] * normalize
    tiny_bert.write_json(model / "modules.json", modules)
    (model / "p").mkdir()
    tiny_bert.write_json(model / "p" / "config.json", {"pooling_mode": pooling})
    limits = {"max_seq_length": 20, "do_lower_case": True}
    tiny_bert.write_json(model / "sentence_bert_config.json", limits)
    prompts = {"prompts": {"query": "find: "}, "default_prompt_name": "query"}
    tiny_bert.write_json(model / "config_sentence_transformers.json", prompts)
    export(saved(code_size=None), tmp_path / "out", with_extractor=model, num_threads=1)
    encoder = TextEncoder(tmp_path / "out", num_threads=1)
    texts = [*TEXTS, "LOUD AND CLEAR"]
    np.testing.assert_allclose(encoder.embed(texts), TextExtractor(model).encode(texts), atol=1e-5)
    assert encoder.embed(["LOUD"]).tobytes() == encoder.embed(["loud"]).tobytes()
    with pytest.raises(UsageError, match="gives no codes"):
        encoder.encode(texts)


@pytest.mark.parametrize("kind", ["roberta", "distilbert", "gelu_new", "relu"])
def test_other_networks_of_berts_family(
    saved: Callable[..., Path], tmp_path: Path, kind: str
) -> None:
    transformers = pytest.importorskip("transformers")
    import torch

    sizes = {"vocab_size": 100, "num_hidden_layers": 2, "num_attention_heads": 4}
    if kind == "distilbert":
        config = transformers.DistilBertConfig(
            vocab_size=100, dim=32, hidden_dim=64, n_layers=2, n_heads=4,
            max_position_embeddings=48, initializer_range=0.5,
        )  # fmt: skip
    else:
        home = transformers.RobertaConfig if kind == "roberta" else transformers.BertConfig
        act = "gelu" if kind == "roberta" else kind
        config = home(
            **sizes, hidden_size=32, intermediate_size=64, max_position_embeddings=50,
            initializer_range=0.5, hidden_act=act, pad_token_id=0,
        )  # fmt: skip
    torch.manual_seed(0)
    transformers.AutoModel.from_config(config).save_pretrained(tmp_path / "model")
    tiny_bert.write_tokenizer(tmp_path / "model")
    export(saved(), tmp_path / "out", with_extractor=tmp_path / "model", num_threads=1)
    extractor = TextExtractor(tmp_path / "model")
    assert_like_torch(TextEncoder(tmp_path / "out", num_threads=1), extractor, tmp_path / "out")


def test_networks_that_cannot_be_exported(saved: Callable[..., Path], tmp_path: Path) -> None:
    torchvision_trap.prepare()
    transformers = pytest.importorskip("transformers")
    config = transformers.MPNetConfig(
        vocab_size=100, hidden_size=32, num_hidden_layers=1, num_attention_heads=4,
        intermediate_size=64, max_position_embeddings=50,
    )  # fmt: skip
    transformers.AutoModel.from_config(config).save_pretrained(tmp_path / "model")
    tiny_bert.write_tokenizer(tmp_path / "model")
    with pytest.raises(UsageError, match="a mpnet cannot be exported with its extractor, only"):
        export(saved(), tmp_path / "out", with_extractor=tmp_path / "model")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", ["layer.1.up", "layer.0.query", "layer.0.value"])
def test_a_graph_that_differs_is_refused(
    saved: Callable[..., Path],
    bert: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
) -> None:
    export(saved(), tmp_path / "out", num_threads=1)
    before = {file.name: file.read_bytes() for file in (tmp_path / "out").iterdir()}
    real = bert_module.dense

    def dense(graph: Any, x: str, weight: Any, bias: Any, key: str) -> str:
        return real(graph, x, weight, bias + 0.01 * (key == name), key)

    monkeypatch.setattr(bert_module, "dense", dense)
    monkeypatch.setattr(bert_module.add_bert, "__defaults__", (dense,))
    monkeypatch.setattr("embedpress.onnx.text_bundle.text_graph.__defaults__", (dense,))
    with pytest.raises(ExportError, match=r"of .* tokens differ from torch's"):
        export(saved(), tmp_path / "out", with_extractor=bert, num_threads=1)
    assert {file.name: file.read_bytes() for file in (tmp_path / "out").iterdir()} == before


def test_what_does_not_belong_together(
    saved: Callable[..., Path], fitted: Callable[..., Compressor], bert: Path, tmp_path: Path
) -> None:
    other = copy.copy(fitted())
    other.source_ = {"extractor fingerprint": "0" * 64}
    save(other, tmp_path / "model")
    with pytest.raises(MismatchError, match="is not the extractor that the compressor was fitted"):
        export(tmp_path / "model", tmp_path / "out", with_extractor=bert)
    weights = tmp_path / "w.pth"
    torch = pytest.importorskip("torch")
    torch.save(random_network("resnet18").state_dict(), weights)
    with pytest.raises(MismatchError, match="gives 512 dimensions, the compressor takes 32"):
        export(saved(), tmp_path / "out", with_extractor="resnet18", weights=weights)
    for options in ({"int8": True}, {"weights": "w.pth"}, {"sample": "texts.txt"}):
        with pytest.raises(UsageError, match="belong to an extractor"):
            export(saved(), tmp_path / "out", **options)
    with pytest.raises(UsageError, match="weights are for a ResNet"):
        export(saved(), tmp_path / "out", with_extractor=bert, weights="w.pth")
    assert not (tmp_path / "out").exists()


def test_an_export_without_the_extractor_takes_its_place(
    saved: Callable[..., Path], copied: Path
) -> None:
    assert isinstance(open_encoder(copied), TextEncoder)
    export(saved(), copied)
    assert open_encoder(copied) is None
    assert {file.name for file in copied.iterdir()} == {file.name for file in saved().iterdir()}
    with pytest.raises(FormatError, match=r"no extractor\.json"):
        TextEncoder(copied)


def test_input_that_cannot_be_encoded(deployed: Path) -> None:
    encoder = _opened(deployed)
    with pytest.raises(UsageError, match="a list of texts"):
        encoder.encode("a text")
    with pytest.raises(InputError, match="row 1: a text must be a string, not None"):
        encoder.encode(["a", None])  # type: ignore[list-item]
    with pytest.raises(UsageError, match="batch_tokens=0"):
        encoder.encode(["a"], batch_tokens=0)
    with pytest.raises(UsageError, match="encodes texts, not images"):
        ImageEncoder(deployed)
    assert encoder.encode([]).shape == (0, 4)
    assert encoder.count_tokens([]) == []


@pytest.mark.parametrize("wrong", [0, np.nan], ids=str)
def test_an_embedding_that_cannot_be_compressed_is_named_by_its_text(
    deployed: Path, monkeypatch: pytest.MonkeyPatch, wrong: float
) -> None:
    """Batches are sorted by length: the row of the batch would say nothing."""
    encoder = TextEncoder(deployed, num_threads=1)
    texts = ["a longer text than", "any", "of the", "others"]
    run = encoder._session.run

    class Spoilt:
        def run(self, outputs: list[str], feed: dict[str, np.ndarray]) -> list[np.ndarray]:
            found = run(outputs, feed)
            if feed["input_ids"].shape[1] == len("any") + 2:
                found[0][:] = wrong
            return list(found)

    monkeypatch.setattr(encoder, "_session", Spoilt())
    reason = "is all zeros" if wrong == 0 else "holds NaN"
    with pytest.raises(InputError, match=f"^row 1: its embedding .*{reason}"):
        encoder.encode(texts, batch_tokens=8)


def test_canaries_sing(deployed: Path, copied: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert load(deployed).check_canaries() == 16
    assert _opened(deployed).check_canaries() == 24
    real = TextEncoder.embed
    monkeypatch.setattr(TextEncoder, "embed", lambda self, texts: real(self, texts) + 0.1)
    with pytest.raises(MismatchError, match=r"its canaries' embeddings differ by .* on this"):
        _opened(deployed).check_canaries()
    monkeypatch.undo()
    monkeypatch.setattr(
        "embedpress.onnx.compressor.OnnxCompressor.encode",
        lambda self, x: np.zeros((len(x), 4), np.uint8),
    )
    with pytest.raises(MismatchError, match=r"% of its canaries' codes differ on this machine"):
        load(deployed).check_canaries()
    monkeypatch.undo()
    for name in (VECTORS, INPUTS):
        (copied / name).write_bytes(b"\0" * 100)
        with pytest.raises(FormatError, match="was changed since it was written"):
            TextEncoder(copied).check_canaries()
        sign_anew(copied, name)
        with pytest.raises(FormatError, match="cannot be read"):
            TextEncoder(copied).check_canaries()
        shutil.copy(deployed / name, copied / name)
        sign_anew(copied, name)
    assert TextEncoder(copied).check_canaries() == 24


@pytest.mark.parametrize("name", ["text_encoder.onnx", "tokenizer.json"])
def test_damaged_files(copied: Path, name: str) -> None:
    whole = (copied / name).read_bytes()
    (copied / name).write_bytes(whole[: len(whole) // 2])
    with pytest.raises(FormatError, match="was changed since it was written"):
        TextEncoder(copied)
    sign_anew(copied, name)
    with pytest.raises(FormatError, match="is not a"):
        TextEncoder(copied)
    (copied / name).unlink()
    with pytest.raises(FormatError, match=f"has no {name}"):
        TextEncoder(copied)


VALUES = st.none() | st.booleans() | st.integers(-2, 1 << 70) | st.text() | st.lists(st.integers())


@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data())
def test_extractor_json_is_not_trusted(copied: Path, data: st.DataObject) -> None:
    file = copied / "extractor.json"
    whole = file.read_text()
    fields = json.loads(whole)
    name = data.draw(st.sampled_from(sorted(fields)))
    fields[name] = data.draw(VALUES)
    file.write_text(json.dumps(fields))
    try:
        TextEncoder(copied, num_threads=1).encode(["a text"])
    except EmbedpressError as error:
        said = str(error)
    else:
        said = ""
    finally:
        file.write_text(whole)
    assert "\n" not in said


@pytest.fixture(scope="module")
def photos() -> list[Image.Image]:
    rng = np.random.default_rng(3)
    sizes = [(80, 64), (64, 64), (70, 99)]
    return [Image.fromarray(rng.integers(0, 256, (h, w, 3), np.uint8)) for h, w in sizes]


def test_images_are_encoded_as_by_torch(photos: list[Image.Image], tmp_path: Path) -> None:
    from safetensors.torch import save_file

    weights = tmp_path / "resnet18.safetensors"
    state = {name: t.contiguous() for name, t in random_network("resnet18").state_dict().items()}
    save_file(state, weights, {"resize": "64", "crop": "48"})
    options = {**SMALL, "epochs": 2, "metric": "l2"}
    compressor = Compressor(**options).fit(curved(200, dim=512))
    save(compressor, tmp_path / "model")
    export(tmp_path / "model", tmp_path / "out", with_extractor="resnet18", weights=weights)
    encoder = open_encoder(tmp_path / "out", num_threads=1)
    assert isinstance(encoder, ImageEncoder)
    expected = ImageExtractor("resnet18", weights=weights).encode(photos)
    largest = float(np.abs(expected).max())
    for batch in (1, 2, 8):
        found = encoder.embed(photos, batch_size=batch)
        np.testing.assert_allclose(found, expected, atol=1e-5 * largest)
    assert np.array_equal(encoder.encode(photos), compressor.encode(expected))
    np.testing.assert_allclose(
        encoder.transform(photos), compressor.transform(expected), rtol=1e-3, atol=1e-4
    )
    photos[0].save(tmp_path / "photo.png")
    assert np.array_equal(encoder.encode([tmp_path / "photo.png"]), encoder.encode(photos[:1]))
    assert encoder.check_canaries() == 18
    with pytest.raises(InputError, match="row 1: an image of mode L"):
        encoder.encode([photos[0], photos[0].convert("L")])
    with pytest.raises(UsageError, match="a list of images"):
        encoder.encode(photos[0])  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="encodes images, not texts"):
        TextEncoder(tmp_path / "out")


def test_texts_without_the_training_packages(deployed: Path) -> None:
    blocked = ("torch", "torchvision", "sklearn", "transformers", "onnx", "faiss", "matplotlib")
    program = (
        f"import sys; sys.modules.update(dict.fromkeys({blocked!r}))\n"
        "from embedpress.onnx.runtime import TextEncoder\n"
        "print(TextEncoder(sys.argv[1], num_threads=1).encode(sys.argv[2:]).tolist())"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(deployed), *TEXTS],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert json.loads(done.stdout) == _opened(deployed).encode(TEXTS).tolist()
