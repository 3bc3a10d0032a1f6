"""The reference: every public name is in it, and says what it takes, gives and raises."""

from __future__ import annotations

import importlib
import inspect
import re
from pathlib import Path
from typing import Any

import pytest

import embedpress

for optional in ("torch", "sklearn", "fastapi"):
    pytest.importorskip(optional)

PAGES = Path(__file__).parents[1] / "docs" / "api"
if not PAGES.is_dir():
    pytest.skip("the pages are not part of an installed package", allow_module_level=True)
NAMES = [
    name
    for page in sorted(PAGES.glob("*.md"))
    for name in re.findall(r"^::: (\S+)", page.read_text(), re.MULTILINE)
    if name != "embedpress.errors"
]
HEADING = re.compile(r"^([A-Z][A-Za-z ]+)\n-{3,}$", re.MULTILINE)


def found(name: str) -> Any:
    module, _, attribute = name.rpartition(".")
    return getattr(importlib.import_module(module), attribute)


def documented(doc: str, section: str) -> list[str]:
    """Names of a section's entries: ``a, b : int`` gives both."""
    parts = HEADING.split(doc)
    bodies = dict(zip(parts[1::2], parts[2::2], strict=True))
    lines = [line for line in bodies.get(section, "").splitlines() if re.match(r"\S", line)]
    return [name.strip(" *") for line in lines for name in line.split(":")[0].split(",")]


def taken(call: Any) -> list[str]:
    """Parameters that a caller gives."""
    parameters = inspect.signature(call).parameters
    return [name for name in parameters if name not in ("self", "cls")]


def calls() -> list[tuple[str, Any]]:
    """Functions and classes of the reference, and the public methods of these classes."""
    listed = []
    for name in NAMES:
        member = found(name)
        listed.append((name, member))
        if inspect.isclass(member):
            listed += [
                (f"{name}.{method}", function)
                for method, function in inspect.getmembers(member, inspect.isfunction)
                if not method.startswith("_") and function.__module__.startswith("embedpress")
            ]
    return listed


def test_every_public_name_has_a_place() -> None:
    homes = {id(found(name)) for name in NAMES}
    for name in embedpress.__all__:
        if name != "EmbedpressError":
            assert id(getattr(embedpress, name)) in homes, f"{name} is on no page of docs/api"
    assert "::: embedpress.errors" in (PAGES / "errors.md").read_text()
    assert len(set(NAMES)) == len(NAMES)


@pytest.mark.parametrize(("name", "call"), [pytest.param(*one, id=one[0]) for one in calls()])
def test_each_tells_of_what_it_takes(name: str, call: Any) -> None:
    doc = inspect.getdoc(call) or ""
    assert doc.splitlines()[0].endswith((".", ";", ":")), f"{name}: no sentence at the top"
    told = documented(doc, "Parameters")
    given = taken(call)
    if inspect.isclass(call) and not told:
        # Of a plain record, the attributes are what it takes.
        told = documented(doc, "Attributes")
        given = [one for one in given if one in told]
    if told:
        assert set(given) <= set(told), f"{name}: {sorted(set(given) - set(told))} is not told of"
        strange = set(told) - set(given) - set(documented(doc, "Attributes"))
        assert not strange, f"{name}: takes no {sorted(strange)}"


@pytest.mark.parametrize("name", NAMES)
def test_each_function_tells_of_all(name: str) -> None:
    call = found(name)
    if inspect.isclass(call):
        return
    doc = inspect.getdoc(call) or ""
    refers = "; see :" in doc  # a second name of something that tells of all
    if taken(call) and not refers:
        assert sorted(documented(doc, "Parameters")) == sorted(taken(call)), name
    if inspect.signature(call).return_annotation not in (None, "None") and not refers:
        assert {"Returns", "Yields"} & set(HEADING.findall(doc)), f"{name}: what does it give?"
    if re.search(r"^\s+raise \w+\(", inspect.getsource(call), re.MULTILINE):
        assert documented(doc, "Raises"), f"{name}: what does it raise?"
