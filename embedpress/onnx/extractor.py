"""extractor.json: what lies around the network of an exported extractor."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from embedpress.errors import FormatError
from embedpress.vectors import write_atomic
from embedpress.vectors.document import read_document

FILE = "extractor.json"
GRAPHS = {"text": "text_encoder.onnx", "image": "image_encoder.onnx"}
TOKENIZER = "tokenizer.json"
PRECISIONS = ("float32", "int8")
FORMAT_VERSION = 1
_LONGEST = 1 << 20


@dataclass(frozen=True)
class ExtractorConfig:
    """How texts or images become the numbers that the exported graph takes.

    Attributes
    ----------
    kind : {"text", "image"}
    model, revision : str or None
        The extractor as it was named to the export.
    fingerprint : str
        The extractor's; an index knows its own by it.
    precision : {"float32", "int8"}
    pooling : str
    normalize : bool
    max_length : int
        Tokens kept of a text, special tokens counted. 0 for images.
    lower_case : bool
    prompt : str
        Put before every text.
    padding : int
        Id of the padding token.
    transform : dict
        Of an :class:`~embedpress.extract.transform.ImageTransform`; empty for texts.
    measured : dict
        What int8 keeps, as it was judged by; empty for float32.
    """

    kind: str
    model: str
    revision: str | None
    fingerprint: str
    precision: str = "float32"
    pooling: str = "mean"
    normalize: bool = False
    max_length: int = 0
    lower_case: bool = False
    prompt: str = ""
    padding: int = 0
    transform: dict[str, Any] = field(default_factory=dict)
    measured: dict[str, float] = field(default_factory=dict)

    def write(self, folder: Path) -> None:
        """Write extractor.json."""
        document = {"kind": "extractor", "format_version": FORMAT_VERSION, "input": self.kind}
        fields = asdict(self)
        del fields["kind"]
        write_atomic(folder / FILE, json.dumps({**document, **fields}, indent=2) + "\n")


def read_extractor(folder: Path) -> ExtractorConfig:
    """Read and check extractor.json.

    Raises
    ------
    UsageError, FormatError
        No such folder, no such file in it, or fields that cannot be.
    """
    file = folder / FILE
    data = read_document(folder, FILE, kind="extractor", version=FORMAT_VERSION)
    fields = {name: value for name, value in data.items() if name not in ("kind", "format_version")}
    fields["kind"] = fields.pop("input", None)
    if set(fields) != set(ExtractorConfig.__dataclass_fields__):
        raise FormatError(f"{file} lacks or adds fields: export again")
    kinds: dict[str, tuple[type, ...]] = {
        "kind": (str,),
        "precision": (str,),
        "model": (str,),
        "revision": (str, type(None)),
        "fingerprint": (str,),
        "pooling": (str,),
        "normalize": (bool,),
        "max_length": (int,),
        "lower_case": (bool,),
        "prompt": (str,),
        "padding": (int,),
        "transform": (dict,),
        "measured": (dict,),
    }
    for name, types in kinds.items():
        if type(fields[name]) not in types:
            raise FormatError(f"{file}: {name} is {fields[name]!r:.80}")
    if fields["kind"] not in GRAPHS or fields["precision"] not in PRECISIONS:
        raise FormatError(f"{file}: input or precision is of an unknown kind")
    least = 1 if fields["kind"] == "text" else 0
    if not least <= fields["max_length"] <= _LONGEST or not 0 <= fields["padding"] <= 1 << 31:
        raise FormatError(f"{file}: max_length or padding cannot be")
    return ExtractorConfig(**fields)
