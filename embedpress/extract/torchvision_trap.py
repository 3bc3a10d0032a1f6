"""The one module that knows of the torchvision trap.

PyPI's torchvision is compiled against the CUDA build of torch. Beside a CPU-only torch its
operators cannot be loaded, and then ``import torchvision`` ends with "operator torchvision::nms
does not exist", and so does ``import transformers``, which imports torchvision when it is
installed. Both only need two operator *schemas* to be known at import time; neither operator is
ever called by an extractor.
"""

from __future__ import annotations

import importlib.machinery
import importlib.util
import sys
from typing import Any

_SCHEMAS = (
    "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
)

# torch.library forgets a definition when the Library object that made it is collected.
_library: Any = None


def prepare() -> None:
    """Make ``import torchvision`` and ``import transformers`` safe; call it before either.

    Nothing is done where torch or torchvision is missing, where torchvision is already
    imported, or where its own operators load. Calling it again does nothing.
    """
    global _library
    if _library is not None or "torchvision" in sys.modules:
        return
    if importlib.util.find_spec("torch") is None:
        return
    spec = importlib.util.find_spec("torchvision")
    if spec is None or not spec.submodule_search_locations:
        return
    import torch

    if _own_operators_load(list(spec.submodule_search_locations)):
        return
    make: Any = torch.library.Library
    library = make("torchvision", "FRAGMENT")
    for schema in _SCHEMAS:
        if not hasattr(torch.ops.torchvision, schema.split("(")[0]):
            library.define(schema)
    _library = library


def _own_operators_load(folders: list[str]) -> bool:
    """Whether torchvision's compiled operators can be loaded, the way torchvision does it."""
    import torch

    ops: Any = torch.ops
    loader = (
        importlib.machinery.ExtensionFileLoader,
        importlib.machinery.EXTENSION_SUFFIXES,
    )
    for folder in folders:
        found = importlib.machinery.FileFinder(folder, loader).find_spec("_C")
        if found is None or found.origin is None:
            continue
        try:
            ops.load_library(found.origin)
        except (ImportError, OSError):
            continue
        return hasattr(torch.ops.torchvision, "nms")
    return False
