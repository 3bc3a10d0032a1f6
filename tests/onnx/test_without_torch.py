"""Production has no torch: what was trained with it runs without it, to the same bit."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import production
import pytest
from clean_install import ROOT, TRAINING, clean_python
from samples import curved

PROGRAM = Path(production.__file__)


@pytest.fixture(scope="module")
def given(
    saved: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory
) -> tuple[list[str], dict[str, np.ndarray]]:
    """Arguments of the program, and what it finds in this very process."""
    work = tmp_path_factory.mktemp("production")
    np.save(work / "x.npy", curved(400, seed=3))
    np.save(work / "queries.npy", curved(20, seed=4))
    arguments = [str(saved(groups=2)), str(work / "x.npy"), str(work / "queries.npy")]
    production.main(*arguments, str(work / "here"))
    with np.load(work / "here" / "results.npz") as results:
        return arguments, dict(results)


def same(found: Path, expected: dict[str, np.ndarray]) -> None:
    with np.load(found / "results.npz") as results:
        assert set(results) == set(expected)
        for name, value in expected.items():
            assert results[name].dtype == value.dtype
            assert np.array_equal(results[name], value), name


def test_the_program_finds_something(given: tuple[list[str], dict[str, np.ndarray]]) -> None:
    results = given[1]
    assert results["codes"].shape == (400, 4)
    assert (results["codes_hits_rows"] >= 0).all()
    assert results["latents_kept_rows"][:, 0].min() >= 0
    assert results["latents_kept_rows"].max() < 100
    assert len(np.unique(results["codes_hits_rows"])) > 30


def test_with_the_training_packages_blocked(
    given: tuple[list[str], dict[str, np.ndarray]], tmp_path: Path
) -> None:
    arguments, expected = given
    block = (
        f"import sys; sys.modules.update(dict.fromkeys({TRAINING!r}))\n"
        "import runpy; sys.argv[:] = sys.argv[1:]\n"
        "runpy.run_path(sys.argv[0], run_name='__main__')"
    )
    done = subprocess.run(
        [sys.executable, "-c", block, str(PROGRAM), *arguments, str(tmp_path)],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1]) == []
    same(tmp_path, expected)


@pytest.mark.network
@pytest.mark.timeout(900)
def test_in_a_clean_environment_of_the_base_install(
    given: tuple[list[str], dict[str, np.ndarray]], tmp_path: Path
) -> None:
    arguments, expected = given
    same_versions = ("numpy", "onnxruntime", "faiss-cpu", "pyarrow")
    python, clean = clean_python(tmp_path, str(ROOT), same_versions)
    done = subprocess.run(
        [str(python), str(PROGRAM), *arguments, str(tmp_path / "out")],
        capture_output=True,
        text=True,
        env=clean,
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1]) == []
    same(tmp_path / "out", expected)
    told = subprocess.run(
        [str(python.with_name("embedpress")), "info", arguments[0], "--json"],
        capture_output=True,
        text=True,
        env=clean,
        cwd=tmp_path,
    )
    assert told.returncode == 0, told.stderr
    assert json.loads(told.stdout.splitlines()[-1])["kind"] == "compressor"
