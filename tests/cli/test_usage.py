"""Help, exit codes, and one line for what goes wrong."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from commands import Cli

COMMANDS = [
    ("extract", "text"), ("extract", "image"), ("fit",), ("export",), ("compress",), ("index",),
    ("search",), ("cluster",), ("outliers",), ("evaluate",), ("map",), ("run",), ("info",),
]  # fmt: skip


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_every_command_has_help_with_an_example(cli: Cli, command: tuple[str, ...]) -> None:
    ended = cli(*command, "--help")
    assert ended.code == 0
    assert f"embedpress {' '.join(command)}" in ended.out
    assert "Example" in ended.out
    assert "--json" in ended.out


def one_line(text: str) -> str:
    lines = text.strip().splitlines()
    assert len(lines) == 1, text
    return lines[0]


def test_a_missing_input_is_bad_usage(cli: Cli, tmp_path: Path) -> None:
    ended = cli("fit", tmp_path / "none.npy", "-o", tmp_path / "m")
    assert ended.code == 2
    assert "none.npy" in one_line(ended.err)


def test_an_unknown_option_is_bad_usage(cli: Cli, tmp_path: Path) -> None:
    assert cli("fit", tmp_path, "-o", tmp_path / "m", "--colour", "red").code == 2


def test_bad_data_fails_and_names_the_row(cli: Cli, tmp_path: Path) -> None:
    x = np.random.default_rng(0).normal(size=(300, 16)).astype(np.float32)
    x[123, 4] = np.nan
    np.save(tmp_path / "x.npy", x)
    ended = cli("fit", tmp_path / "x.npy", "-o", tmp_path / "m")
    assert ended.code == 1
    assert "123" in one_line(ended.err)
    assert not (tmp_path / "m" / "config.json").exists()


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (("--n-components", 16), "n_components=16"),
        (("--n-components", 0, "--code-size", 0), "nothing to train"),
        (("--hidden-sizes", "many"), "many"),
        (("--n-components", 4, "--code-size", 4, "--dropout", "1.5"), "dropout"),
        (("--n-components", 4, "--code-size", 999), "code_size=999"),
        (("--n-components", 4, "--code-size", "big"), "--code-size 'big' must be a whole number"),
        (("--code-size", 8, "--n-components", 4, "--mixup", 1), "mixup=1"),
        (
            ("--code-size", 8, "--n-components", 4, "--reconstruction-weight", -1),
            "reconstruction_weight=-1",
        ),
        (("--n-components", 4, "--code-size", 8, "--target-recall", 0.9), "code_size='auto'"),
        (("--n-components", 4, "--target-recall", 90), "target_recall=90"),
    ],
)
def test_options_that_cannot_be(
    cli: Cli, tmp_path: Path, options: tuple[object, ...], named: str
) -> None:
    x = np.random.default_rng(0).normal(size=(300, 16)).astype(np.float32)
    np.save(tmp_path / "x.npy", x)
    ended = cli("fit", tmp_path / "x.npy", "-o", tmp_path / "m", *options)
    assert ended.code == 2
    assert named in one_line(ended.err)


def test_not_a_folder_of_ours(cli: Cli, tmp_path: Path) -> None:
    ended = cli("info", tmp_path)
    assert ended.code == 2
    assert "not a folder of vectors" in one_line(ended.err)
