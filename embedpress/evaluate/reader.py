"""Dataclasses from JSON, every field checked."""

from __future__ import annotations

import math
import types
import typing
from dataclasses import fields, is_dataclass
from typing import Any

from embedpress.errors import FormatError


def build(kind: Any, value: Any, where: str) -> Any:
    """A value of a type from what JSON holds.

    Parameters
    ----------
    kind : type
        A dataclass, or what its fields are made of.
    value : object
        Dicts, lists, numbers, text; nobody vouches for it.
    where : str
        What to call it in a message.

    Raises
    ------
    FormatError
        Naming the first field that is missing, unknown or of another type.
    """
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin in (types.UnionType, typing.Union):
        if value is None and type(None) in arguments:
            return None
        return build(next(a for a in arguments if a is not type(None)), value, where)
    if is_dataclass(kind):
        return _dataclass(kind, value, where)
    if origin is list:
        _need(isinstance(value, list), where, "a list", value)
        return [build(arguments[0], v, f"{where}[{i}]") for i, v in enumerate(value)]
    if origin is dict:
        _need(isinstance(value, dict), where, "an object", value)
        _need(all(isinstance(key, str) for key in value), where, "an object with names", value)
        return {key: build(arguments[1], v, f"{where}.{key}") for key, v in value.items()}
    if kind is float:
        number = isinstance(value, int | float) and not isinstance(value, bool)
        _need(number and math.isfinite(value), where, "a finite number", value)
        return float(value)
    names = {int: "a whole number", str: "text", bool: "true or false"}
    _need(type(value) is kind, where, names[kind], value)
    return value


def _dataclass(kind: Any, value: Any, where: str) -> Any:
    _need(isinstance(value, dict), where, "an object", value)
    types_of = typing.get_type_hints(kind)
    known = {f.name for f in fields(kind)}
    for name in value:
        if name not in known:
            raise FormatError(f"{where} has an unknown field {name!r}")
    out = {name: build(types_of[name], v, f"{where}.{name}") for name, v in value.items()}
    try:
        return kind(**out)
    except TypeError:
        missing = sorted(known - set(out))
        raise FormatError(f"{where} lacks fields, among {', '.join(missing)}") from None


def _need(holds: bool, where: str, what: str, value: Any) -> None:
    if not holds:
        raise FormatError(f"{where} must be {what}, not {str(value)[:40]!r}")
