"""Sphinx's roles in docstrings, :func:`name` and the like, as links: an extension of griffe."""

from __future__ import annotations

import re
from typing import Any

import griffe

ROLE = re.compile(r":(?:func|class|meth|mod|data|attr|exc):`(~?)([^`]+)`")


def linked(text: str, obj: griffe.Object) -> str:
    """Each role as a link to what it names where the site has it, else as plain code."""

    def link(match: re.Match[str]) -> str:
        short, name = match.groups()
        shown = name.rsplit(".", 1)[-1] if short else name
        path = name
        if not name.startswith("embedpress"):
            # A name within the same class or module.
            first, *rest = name.split(".")
            try:
                owner = obj if isinstance(obj, griffe.Class | griffe.Module) else obj.parent or obj
                path = ".".join([owner.resolve(first), *rest])
            except griffe.NameResolutionError:
                return f"`{shown}`"
        return f'<autoref optional identifier="{path}"><code>{shown}</code></autoref>'

    return ROLE.sub(link, text)


class Roles(griffe.Extension):
    """Rewrites each docstring as it is read."""

    def on_object(self, *, obj: griffe.Object, **kwargs: Any) -> None:
        """Called for each module, class, function and attribute."""
        if obj.docstring is not None:
            obj.docstring.value = linked(obj.docstring.value, obj)
