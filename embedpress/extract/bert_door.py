"""The door to a text model's folder: config.json is held against the weights before a network is.

The configuration says how many layers, words and labels there are, and transformers makes as many.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from embedpress.errors import FormatError, first_line
from embedpress.vectors.document import read_json

INDEX = "model.safetensors.index.json"
_LAYERS = re.compile(r"(^|_)layers?$")
_SIZE = re.compile(
    r"(^|_)(sizes?|dim|d_model|d_ff|heads?|labels|experts|embeddings|positions|buckets|groups"
    r"|blocks|depth|width|channels)$"
)
_SMALL = 2**20
"""Sizes that are let in whatever the weights are, as of positions that have none."""
_FEW = 2**24
"""Weights that may be missing, as those of a pooler that is not used."""


def check_model(folder: Path) -> None:
    """Refuse a configuration that asks for more than the folder's weights.

    Raises
    ------
    FormatError
        Absurd sizes, pickled or damaged weights, shards that lie elsewhere.
    """
    shapes = _shapes(folder)
    file = folder / "config.json"
    config = read_json(file)
    if not isinstance(config, dict):
        raise FormatError(f"{file}: not a JSON object")
    largest = max([_SMALL, *(side for shape in shapes for side in shape)])
    for name, value in _numbers(config):
        most = len(shapes) if _LAYERS.search(name) else largest
        if value > most and (_LAYERS.search(name) or _SIZE.search(name)):
            raise FormatError(
                f"{file}: {name} is {value}, too large for the {len(shapes)} tensors of its"
                f" weights, none longer than {largest}"
            )
    asked, held = _weights_of(folder), sum(map(math.prod, shapes))
    if asked > 2 * held + _FEW:
        raise FormatError(f"{file} describes a network of {asked} weights, but there are {held}")


def _shapes(folder: Path) -> list[tuple[int, ...]]:
    from safetensors import safe_open

    files = sorted(folder.glob("*.safetensors"))
    if not files:
        raise FormatError(
            f"{folder}: no .safetensors weights in it; pickled ones (.bin) are not read: load them"
            " where you trust them and save_pretrained again"
        )
    if (folder / INDEX).is_file():
        index = read_json(folder / INDEX)
        named = index.get("weight_map") if isinstance(index, dict) else None
        known = {file.name for file in files}
        if not isinstance(named, dict) or not all(
            isinstance(name, str) and name in known for name in named.values()
        ):
            raise FormatError(f"{folder / INDEX} names no .safetensors files of its folder")
    shapes = []
    for file in files:
        try:
            with safe_open(file, framework="numpy") as tensors:
                for name in tensors.keys():  # noqa: SIM118
                    shapes.append(tuple(tensors.get_slice(name).get_shape()))
        except Exception as error:  # safetensors raises its own and OSError alike
            raise FormatError(f"{file} cannot be read: {first_line(error)}") from None
    return shapes


def _numbers(config: Any, name: str = "") -> Iterator[tuple[str, float]]:
    """Numbers of a configuration, within others and lists too, by their nearest name."""
    if isinstance(config, dict):
        for key, value in config.items():
            yield from _numbers(value, key)
    elif isinstance(config, list):
        for value in config:
            yield from _numbers(value, name)
    elif isinstance(config, int | float):
        yield name, config


def _weights_of(folder: Path) -> int:
    """How many the network of the configuration has."""
    import torch
    import transformers

    config = transformers.AutoConfig.from_pretrained(
        str(folder), local_files_only=True, trust_remote_code=False
    )
    # On "meta" nothing is allocated.
    with torch.device("meta"):
        maker: Any = transformers.AutoModel
        network = maker.from_config(config, trust_remote_code=False)
    return sum(weight.numel() for weight in network.parameters())
