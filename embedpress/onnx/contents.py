"""What a graph may hold, looked at before ONNX Runtime loads it.

A graph is a program: it can loop for ever, make gigabytes out of a number, and name files to be
loaded as its weights. None of that is needed here, so that a graph which asks for it is none of
ours. The protocol-buffer file is walked by its lengths; nothing is decoded but the names of the
operators.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from pathlib import Path

from embedpress.errors import FormatError
from embedpress.vectors.varint import varint

OPERATORS = frozenset((
    "Add", "ArgMax", "Cast", "Concat", "Conv", "DequantizeLinear", "Div", "Equal", "FastGelu",
    "Flatten", "FusedMatMul", "Gather", "GatherND", "Gelu", "Gemm", "GlobalAveragePool", "Identity",
    "If", "LayerNormalization", "MatMul", "MatMulIntegerToFloat", "Max", "MaxPool", "Mul",
    "MultiHeadAttention", "Pad", "QLinearAdd", "QLinearConv", "QuantizeLinear", "ReduceL2",
    "ReduceMax", "ReduceSum", "Relu", "Reshape", "Shape", "Slice", "Softmax", "Squeeze", "Sub",
    "Sum", "Tile", "Transpose", "Unsqueeze", "Where",
))  # fmt: skip
"""What the exporters write, or wrote; no loops, nothing that fills a tensor from its size."""
_DOMAINS = ("", "ai.onnx", "com.microsoft")
_GRAPH, _FUNCTIONS, _TRAINING = 7, 25, 20
_NODE, _INITIALIZER, _SPARSE = 1, 5, 15
_OPERATOR, _ATTRIBUTE, _DOMAIN = 4, 5, 7
_EXTERNAL, _LOCATION = 13, 14
_BRANCH, _BRANCHES, _SPARSE_TENSORS = 6, 11, (22, 23)
_TENSORS = (5, 10)

Span = tuple[int, int]


def check_contents(path: Path) -> None:
    """Refuse a graph that does more than those of :mod:`embedpress.onnx.export`.

    Raises
    ------
    FormatError
        Not a graph; one with weights in other files, with operators that the exporters do not
        write, or with functions of its own.
    """
    try:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            graphs = 0
            for field, span in _fields(data, (0, len(data))):
                if field in (_FUNCTIONS, _TRAINING):
                    raise FormatError(f"{path} has functions or a training of its own")
                if field == _GRAPH and span is not None:
                    graphs += 1
                    _check_graph(data, span, path)
            if graphs != 1:
                raise FormatError(f"{path} is not a graph")
    except FormatError:
        raise
    except (OSError, ValueError, IndexError) as error:
        raise FormatError(f"{path} is not a graph: {error}") from None


def _check_graph(data: mmap.mmap, graph: Span, path: Path, *, branch: bool = False) -> None:
    for field, span in _fields(data, graph):
        if field == _SPARSE:
            raise FormatError(f"{path} has sparse weights, which embedpress does not write")
        if span is None:
            continue
        if field == _INITIALIZER:
            _check_tensor(data, span, path)
        elif field == _NODE:
            _check_node(data, span, path, in_branch=branch)


def _check_node(data: mmap.mmap, node: Span, path: Path, *, in_branch: bool) -> None:
    name = domain = ""
    branches: list[Span] = []
    for field, span in _fields(data, node):
        if span is None:
            continue
        if field == _OPERATOR:
            name = _text(data, span)
        elif field == _DOMAIN:
            domain = _text(data, span)
        elif field == _ATTRIBUTE:
            for inner, value in _fields(data, span):
                if inner in (_BRANCHES, *_SPARSE_TENSORS):
                    raise FormatError(f"{path} has graphs within its graph: export again")
                if inner == _BRANCH and value is not None:
                    branches.append(value)
                if inner in _TENSORS and value is not None:
                    _check_tensor(data, value, path)
    if name not in OPERATORS or domain not in _DOMAINS:
        raise FormatError(
            f"{path} has an operator that embedpress does not write, {f'{domain} {name}'[:80]!r}:"
            " export again with this version"
        )
    if branches and (name != "If" or in_branch):
        raise FormatError(f"{path} has graphs within its graph: export again")
    for one in branches:
        _check_graph(data, one, path, branch=True)


def _check_tensor(data: mmap.mmap, tensor: Span, path: Path) -> None:
    if any(field in (_EXTERNAL, _LOCATION) for field, _ in _fields(data, tensor)):
        raise FormatError(f"{path} names other files as its weights, which are never read")


def _text(data: mmap.mmap, span: Span) -> str:
    return data[span[0] : min(span[1], span[0] + 200)].decode("utf-8", "replace")


def _fields(data: mmap.mmap, message: Span) -> Iterator[tuple[int, Span | None]]:
    """Numbers of a message's fields, with where those of some length lie."""
    at, end = message
    while at < end:
        key, at = varint(data, at, end)
        kind = key & 7
        if key >> 32:
            raise ValueError("a field of an unknown number")
        if kind == 0:
            _, at = varint(data, at, end)
            yield key >> 3, None
            continue
        if kind == 2:
            size, at = varint(data, at, end)
        elif kind in (1, 5):
            size = 8 if kind == 1 else 4
        else:
            raise ValueError(f"a field of the unknown kind {kind}")
        if size > end - at:
            raise ValueError("it is truncated")
        yield key >> 3, (at, at + size) if kind == 2 else None
        at += size
