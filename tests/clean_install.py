"""A virtual environment of the package alone, as production installs it."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
TRAINING = ("torch", "torchvision", "sklearn", "transformers", "onnx", "onnxscript", "matplotlib")


def clean_python(folder: Path, what: str, same: tuple[str, ...]) -> tuple[Path, dict[str, str]]:
    """Its Python, with `what` installed, and an environment that leads to no other.

    The packages `same` have the versions of the tests' own environment, so that the same bits
    can be asked for. Skips where no package registry can be reached.
    """
    subprocess.run([sys.executable, "-m", "venv", str(folder / "venv")], check=True)
    python = folder / "venv" / ("Scripts" if os.name == "nt" else "bin") / "python"
    (folder / "same.txt").write_text("".join(f"{name}=={version(name)}\n" for name in same))
    pip = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    installed = subprocess.run(
        [*pip, "-c", str(folder / "same.txt"), what], capture_output=True, text=True, cwd=folder
    )
    if installed.returncode and "No matching distribution found" in installed.stderr:
        pytest.skip("no package registry can be reached")
    assert installed.returncode == 0, installed.stderr
    for name in TRAINING:
        missing = subprocess.run([str(python), "-c", f"import {name}"], capture_output=True)
        assert missing.returncode == 1, f"{name} came with {what}"
    clean = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    return python, clean
