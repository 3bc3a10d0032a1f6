"""Recall and cost of a compressor and of its peers at equal bytes, and the report on them.

``embedpress.evaluate`` is this package and also the verb of that name: importing any module of
it binds the package to the name, so the package can be called like the function.
"""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any


class _Verb(ModuleType):
    def __call__(self, *args: Any, **options: Any) -> Any:
        """Call :func:`embedpress.evaluate.evaluation.evaluate`."""
        from embedpress.evaluate.evaluation import evaluate

        return evaluate(*args, **options)


sys.modules[__name__].__class__ = _Verb
