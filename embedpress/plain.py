"""Metadata as JSON can carry it."""

from __future__ import annotations

import base64
import math
from typing import Any


def plain(value: Any) -> Any:
    """The same value, of JSON's types: dates in ISO 8601, bytes in base64, NaN as null."""
    if value is None or isinstance(value, bool | str):
        return value
    if isinstance(value, int):
        return int(value)
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    if isinstance(value, dict):
        return {str(name): plain(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return value.isoformat() if hasattr(value, "isoformat") else str(value)
