"""What the README tells a user to type is there."""

from __future__ import annotations

import ast
import importlib
import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import typer

from embedpress.cli import app

README = Path(__file__).parents[2] / "README.md"
if not README.is_file():
    pytest.skip("the README is not part of an installed package", allow_module_level=True)


def blocks(language: str) -> list[str]:
    """Blocks of code of a language."""
    return re.findall(rf"```{language}\n(.*?)```", README.read_text("utf-8"), re.DOTALL)


COMMANDS = [
    line.split("  #")[0].strip()
    for block in blocks("sh")
    for line in block.replace("\\\n", " ").splitlines()
    if line.startswith("embedpress ")
]


def parsed(words: list[str]) -> Any:
    """The command that the words call, with their options read and nothing run."""
    command: Any = typer.main.get_command(app)
    context = command.make_context("embedpress", [], resilient_parsing=True)
    while hasattr(command, "commands"):
        name = words.pop(0)
        assert name in command.commands, f"no command {name}"
        command = command.commands[name]
        context = command.context_class(command, info_name=name, parent=context)
    # Folders that the README names are not there: only the options are read.
    _, rest, _ = command.make_parser(context).parse_args(words)
    return rest


@pytest.mark.parametrize("line", COMMANDS)
def test_every_command_is_one(line: str) -> None:
    assert parsed(shlex.split(line)[1:]) == []


def test_an_option_that_is_gone_would_be_found() -> None:
    assert len(COMMANDS) > 30
    with pytest.raises(Exception, match="--no-such-option"):
        parsed(["fit", "embeddings", "-o", "model", "--no-such-option"])
    with pytest.raises(AssertionError, match="no command fitt"):
        parsed(["fitt", "embeddings"])


@pytest.mark.parametrize("block", blocks("python"))
def test_every_python_block_names_what_is_there(block: str) -> None:
    named = []
    for node in ast.walk(ast.parse(block)):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("embedpress"):
            named += [(node.module or "", alias.name) for alias in node.names]
        elif isinstance(node, ast.Attribute) and ast.unparse(node.value) == "embedpress":
            named.append(("embedpress", node.attr))
    if named:
        pytest.importorskip("torch")
    for module, name in named:
        assert hasattr(importlib.import_module(module), name), f"{module} has no {name}"
