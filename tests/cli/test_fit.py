"""What `embedpress fit` says of a training: held-out recall, the fallback, the sizes tried."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from commands import Cli
from samples import curved

from embedpress.onnx.compressor import load

QUICK = ("--n-components", 4, "--hidden-sizes", 16, "--epochs", 2)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    np.save(tmp_path / "x.npy", curved(600))
    return tmp_path / "x.npy"


def test_a_target_recall_finds_the_size(cli: Cli, file: Path, tmp_path: Path) -> None:
    out = tmp_path / "model"
    ended = cli("fit", file, "-o", out, *QUICK, "--target-recall", 0.9, "--json")
    assert ended.code == 0, ended.err
    found = ended.json
    assert [size["code_size"] for size in found["sizes"]] == [8, 16, 24, 32]
    trained = {size["code_size"]: size["trained"] for size in found["sizes"]}
    assert trained[found["code_size"]] >= found["target_recall"] == 0.9
    assert found["target_reached"] is True
    assert load(out).code_size == found["code_size"]
    metrics = json.loads((out / "metrics.json").read_text())
    assert metrics["sizes"] == found["sizes"]
    assert metrics["held_out"] == found["held_out"]

    words = cli("fit", file, "-o", out, *QUICK, "--code-size", "auto", "--mixup", 0)
    assert words.code == 0, words.err
    lines = words.out.splitlines()
    table = lines[lines.index("  bytes  start  trained") + 1 :]
    assert [int(line.split()[0]) for line in table] == [8, 16, 24, 32]
    assert sum("<- chosen" in line for line in table) == 1
    assert any(line.split()[2] == "-" for line in table)


def test_a_target_out_of_reach_is_said_in_the_result(cli: Cli, file: Path, tmp_path: Path) -> None:
    command = ("fit", file, "-o", tmp_path / "model", *QUICK, "--target-recall", 1)
    ended = cli(*command, "--json")
    assert (ended.code, ended.err) == (0, "")
    assert (ended.json["code_size"], ended.json["target_reached"]) == (32, False)
    assert "no size reaches recall@10 1: this is the largest" in cli(*command).out


def test_recall_is_told_beside_that_of_opq(cli: Cli, file: Path, tmp_path: Path) -> None:
    # Nothing is trained in no passes: the start is what there is.
    command = ("fit", file, "-o", tmp_path / "model", *QUICK, "--code-size", 8, "--epochs", 0)
    held = cli(*command, "--json").json["held_out"]
    for name, method, stored in (("latents", "PCA", 16), ("codes", "OPQ", 8)):
        recall = held[name]["start"]
        assert held[name] == {
            "trained": recall, "start": recall, "start_method": method, "fell_back": True,
        }  # fmt: skip
        assert (
            f"  {name}: recall@10 {recall:.3f} on held-out queries; "
            f"{method} at the same {stored} bytes: {recall:.3f}\n"
            f"    training did not beat {method}: the start was kept\n"
        ) in cli(*command).out
    assert cli("info", tmp_path / "model", "--json").json["held_out_recall@10"] == held


def test_sample_queries_are_read_and_noted(cli: Cli, file: Path, tmp_path: Path) -> None:
    np.save(tmp_path / "asked.npy", curved(240, seed=3))
    out = tmp_path / "model"
    ended = cli(
        "fit", file, "-o", out, *QUICK, "--code-size", 4, "--queries", tmp_path / "asked.npy"
    )
    assert ended.code == 0, ended.err
    assert json.loads((out / "config.json").read_text())["source"]["sample queries"] == 240

    np.save(tmp_path / "wide.npy", np.ones((9, 40), np.float32))
    wide = cli("fit", file, "-o", out, *QUICK, "--queries", tmp_path / "wide.npy")
    assert wide.code == 1
    assert "sample queries" in wide.err
    assert len(wide.err.splitlines()) == 1


def test_shorter_latents_are_nested_and_compressed_to(cli: Cli, file: Path, tmp_path: Path) -> None:
    out, latents = tmp_path / "model", tmp_path / "latents"
    command = ("fit", file, "-o", out, *QUICK, "--code-size", 0, "--nested", "1,2")
    told = cli(*command, "--json").json["nested"]
    assert [size["n_components"] for size in told] == [1, 2]
    assert f"its first 1 floats: recall@10 {told[0]['trained']:.3f}; PCA" in cli(*command).out
    ended = cli(
        "compress",
        file,
        "-m",
        out,
        "-o",
        latents,
        "--what",
        "latents",
        "--n-components",
        2,
        "--json",
    )
    assert ended.json["dim"] == 2
    wrong = cli("fit", file, "-o", out, *QUICK, "--nested", "2,b")
    assert (wrong.code, wrong.err.count("\n")) == (2, 1)
    assert "--nested '2,b' must be whole numbers" in wrong.err
