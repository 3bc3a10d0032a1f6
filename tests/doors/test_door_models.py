"""Models whose configuration or weights ask for more than their files hold."""

from __future__ import annotations

import json
import pickle
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from child import answer

from embedpress.errors import FormatError
from embedpress.extract.text import TextExtractor
from embedpress.extract.weights import load_weights
from embedpress.onnx.compressor import fingerprint

EXTRACT = """
from embedpress.extract import torchvision_trap; torchvision_trap.prepare()
from embedpress.extract.text import TextExtractor
TextExtractor(folder)
"""


@pytest.fixture
def copy(bert: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(bert, tmp_path / "bert"))


def changed(folder: Path, **changes: Any) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, **changes}))


SIZES = {
    "hidden_size": 2**30,
    "num_hidden_layers": 40,
    "vocab_size": 2**40,
    "max_position_embeddings": 2**33,
    "num_attention_heads": 10**9,
    "num_labels": 10**8,
    "type_vocab_size": 2**62,
    "hidden_dim": 2**40,
    "n_layers": 10**7,
    "text_config": {"hidden_sizes": [2**30]},
}


@pytest.mark.parametrize("name", list(SIZES))
def test_sizes_that_no_weights_are_there_for(
    copy: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    import transformers

    changed(copy, **{name: SIZES[name]})
    for loader in (transformers.AutoConfig, transformers.AutoModel, transformers.AutoTokenizer):
        monkeypatch.setattr(loader, "from_pretrained", None)
    with pytest.raises(FormatError, match=r"config.json: \w+ is [0-9]+, too large for the 39 tens"):
        TextExtractor(copy)


def test_a_network_far_larger_than_its_weights(copy: Path) -> None:
    changed(copy, intermediate_size=2**20, max_position_embeddings=2**20)
    found = answer(EXTRACT, copy)
    assert "describes a network of 169882464 weights, but there are 23008" in found.said
    assert found.peak < 1000


def test_numbers_that_are_no_sizes_are_left_alone(copy: Path) -> None:
    changed(copy, rope_theta=10**12, seed=2**62, num_hidden_layers=2)
    assert TextExtractor(copy).dim == 32


@pytest.mark.parametrize("named", ["../other.safetensors", "/etc/x.safetensors", "no", 3])
def test_an_index_of_weights_elsewhere(copy: Path, named: Any) -> None:
    weights = json.dumps({"weight_map": {"embeddings.LayerNorm.weight": named}})
    (copy / "model.safetensors.index.json").write_text(weights)
    with pytest.raises(FormatError, match=r"names no .safetensors files of its folder"):
        TextExtractor(copy)


def test_a_configuration_that_is_no_object(copy: Path) -> None:
    (copy / "config.json").write_text("[1]")
    with pytest.raises(FormatError, match="not a JSON object"):
        TextExtractor(copy)


def test_damaged_weights(copy: Path) -> None:
    (copy / "model.safetensors").write_bytes(b"\xff" * 100)
    with pytest.raises(FormatError, match=r"model.safetensors cannot be read"):
        TextExtractor(copy)


@pytest.mark.parametrize("layers", [10_000, 1])
def test_a_compressor_of_more_layers_than_weights(
    saved: Callable[..., Path], tmp_path: Path, layers: int
) -> None:
    from embedpress.autoencoder.pretrained import load_compressor

    folder = Path(shutil.copytree(saved(), tmp_path / "copy"))
    config = json.loads((folder / "config.json").read_text())
    config["parameters"]["hidden_sizes"] = [2**40] * layers
    config["fingerprint"] = fingerprint(config, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(FormatError, match="does not hold the compressor it describes"):
        load_compressor(folder)


def test_a_tensor_of_one_number_named_often(tmp_path: Path) -> None:
    torch.save({"x": torch.zeros(1).expand(2**45)}, tmp_path / "x.pth")
    assert (tmp_path / "x.pth").stat().st_size < 4000
    with pytest.raises(FormatError, match="tensors of 140737488355328 bytes are more than it"):
        load_weights("resnet18", tmp_path / "x.pth")
    torch.save({"x": torch.eye(3).to_sparse()}, tmp_path / "x.pth")
    with pytest.raises(FormatError, match=r"x.pth: "):
        load_weights("resnet18", tmp_path / "x.pth")


def test_packed_weights_that_would_grow(tmp_path: Path) -> None:
    torch.save({"x": torch.zeros(2**20)}, tmp_path / "plain.pth")
    with (
        zipfile.ZipFile(tmp_path / "plain.pth") as plain,
        zipfile.ZipFile(tmp_path / "x.pth", "w", zipfile.ZIP_DEFLATED) as packed,
    ):
        for name in plain.namelist():
            packed.writestr(name, plain.read(name))
    with pytest.raises(FormatError, match=r"would grow to 4[0-9]+ bytes"):
        load_weights("resnet18", tmp_path / "x.pth")


class Bomb:
    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (Path("boom"),)


def test_pickled_weights_of_a_model_are_not_read(
    copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(copy)
    (copy / "model.safetensors").unlink()
    (copy / "pytorch_model.bin").write_bytes(pickle.dumps(Bomb()))
    with pytest.raises(FormatError, match=r"pickled ones \(\.bin\) are not read"):
        TextExtractor(copy)
    assert not (copy / "boom").exists()


def test_an_old_torch_does_not_read_pickled_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.save({"x": torch.ones(2)}, tmp_path / "x.pth")
    monkeypatch.setattr(torch, "__version__", "2.5.1")
    with pytest.raises(FormatError, match=r"torch 2\.5\.1 cannot read \.pth files safely"):
        load_weights("resnet18", tmp_path / "x.pth")
