from __future__ import annotations

import subprocess
import sys

import pytest

from embedpress.extract import torchvision_trap

pytest.importorskip("torch")
pytest.importorskip("transformers")


def run(code: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=200, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_torchvision_and_transformers_import_after_prepare() -> None:
    code = """
from embedpress.extract.torchvision_trap import prepare
prepare(); prepare()
import torch, torchvision, transformers
from transformers import BertModel
prepare()
torch.ops.torchvision.nms
network = torchvision.models.resnet18(weights=None).eval()
print(tuple(network(torch.zeros(1, 3, 32, 32)).shape))
"""
    assert run(code) == "(1, 1000)"


def test_importing_the_extractors_loads_no_torch() -> None:
    code = """
import sys
import embedpress.extract.job
print([name for name in ("torch", "torchvision", "transformers") if name in sys.modules])
"""
    assert run(code) == "[]"


def test_nothing_is_defined_where_the_operators_load(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torchvision_trap, "_library", None)
    monkeypatch.setattr(torchvision_trap, "_own_operators_load", lambda folders: True)
    monkeypatch.delitem(sys.modules, "torchvision", raising=False)
    torchvision_trap.prepare()
    assert torchvision_trap._library is None


@pytest.mark.parametrize("missing", ["torch", "torchvision"])
def test_nothing_happens_without(missing: str, monkeypatch: pytest.MonkeyPatch) -> None:
    find = torchvision_trap.importlib.util.find_spec
    monkeypatch.setattr(torchvision_trap, "_library", None)
    monkeypatch.delitem(sys.modules, "torchvision", raising=False)
    monkeypatch.setattr(
        torchvision_trap.importlib.util,
        "find_spec",
        lambda name: None if name == missing else find(name),
    )
    torchvision_trap.prepare()
    assert torchvision_trap._library is None
