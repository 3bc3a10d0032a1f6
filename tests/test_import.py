from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import embedpress

ROOT = Path(__file__).parents[1]
HEAVY = ("torch", "torchvision", "faiss", "onnxruntime", "sklearn", "transformers", "onnx")
HEAVY += ("pyarrow", "numpy", "matplotlib", "typer", "rich", "PIL", "tokenizers", "safetensors")


def run(code: str) -> str:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment, timeout=60
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def loaded_by(statement: str) -> list[str]:
    tell = f"import json, sys\nprint(json.dumps([n for n in {HEAVY} if n in sys.modules]))"
    return json.loads(run(f"{statement}\n{tell}"))


def test_importing_the_package_brings_in_nothing_heavy() -> None:
    assert loaded_by("import embedpress") == []
    assert loaded_by("import embedpress; dir(embedpress)") == []


def test_reading_vectors_needs_no_engine() -> None:
    assert set(loaded_by("from embedpress import open_vectors")) <= {"numpy", "pyarrow"}


def test_production_names_do_not_bring_in_torch() -> None:
    names = "load, compress, build_index, open_index, open_vectors"
    found = loaded_by(f"from embedpress import {names}")
    assert not {"torch", "sklearn", "transformers", "onnx", "matplotlib"} & set(found)
    found = loaded_by("import embedpress.serve, embedpress.serve.run")
    assert not {"torch", "faiss", "onnxruntime"} & set(found)
    found = loaded_by("import embedpress.cli")
    assert not {"torch", "faiss", "onnxruntime", "sklearn", "transformers", "onnx"} & set(found)


def test_the_runtime_brings_in_only_what_it_runs_on() -> None:
    found = loaded_by("from embedpress.onnx.runtime import TextEncoder, load")
    assert set(found) <= {"numpy", "onnxruntime", "tokenizers", "PIL", "safetensors"}


def test_importing_the_package_is_quick() -> None:
    if not hasattr(os, "times") or os.name == "nt":
        pytest.skip("processor time of children is not told here")

    def seconds(code: str) -> float:
        spent = []
        for _ in range(3):
            before = os.times()
            run(code)
            after = os.times()
            spent.append(
                after.children_user
                + after.children_system
                - before.children_user
                - before.children_system
            )
        return min(spent)

    assert seconds("import embedpress") - seconds("pass") < 0.3


def test_every_public_name_is_there() -> None:
    assert len(embedpress.__all__) <= 12
    assert len(set(embedpress.__all__)) == len(embedpress.__all__)
    for name in embedpress.__all__:
        assert getattr(embedpress, name).__doc__
        assert callable(getattr(embedpress, name))
        assert name in dir(embedpress)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = embedpress.nothing


def test_the_version_is_that_of_the_package() -> None:
    major, minor, patch = embedpress.__version__.split(".")
    assert all(part.isdigit() for part in (major, minor, patch))
