from __future__ import annotations

import sys
from pathlib import Path

import pytest
import tiny_bert
from commands import Cli, Ended

from embedpress.cli import main


@pytest.fixture
def cli(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Cli:
    """Run a command in this process as a shell would."""

    def call(*arguments: object) -> Ended:
        monkeypatch.setattr(sys, "argv", ["embedpress", *map(str, arguments)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main()
        out, err = capsys.readouterr()
        code = ended.value.code
        return Ended(0 if code is None else int(code), out, err)

    return call


@pytest.fixture(scope="session")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A BERT of two layers with random weights."""
    return tiny_bert.build(tmp_path_factory.mktemp("models") / "bert")
