"""Dense layers in int8, with scales that are fixed once and for all on real texts.

Scales that are found anew for each batch (dynamic quantization) would let a text's result depend
on the texts beside it; fixed ones do not, and need no pass over the batch to find them. Channels
that are much larger than others, as transformers have them, are first brought nearer to the rest
and the weights' rows made larger by as much (SmoothQuant: Xiao et al. 2023). Weights have a scale
an output.
"""

from __future__ import annotations

import platform
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper

from embedpress.errors import PrecisionWarning
from embedpress.onnx import bert
from embedpress.onnx.builder import MICROSOFT, GraphBuilder

Floats = NDArray[np.float32]

SMOOTHING = 0.6
"""Share of a channel's size, on a logarithmic scale, that goes into the weights."""
MARGIN = 1.1
"""Texts to come may give values that are so much larger than the sample's."""
SMALLEST = 1e-6
LEVELS = 255
FLAGS = ("avx512_vnni", "avx_vnni", "amx_int8", "asimddp", "i8mm")


@dataclass
class Range:
    """Smallest and largest value of each channel of a layer's input."""

    low: Floats
    high: Floats

    def widen(self, values: Floats) -> None:
        """Take in values of shape (n, channels)."""
        self.low = np.minimum(self.low, values.min(axis=0))
        self.high = np.maximum(self.high, values.max(axis=0))


@dataclass
class Recorder:
    """Adds float32 layers, and notes what each of them reads."""

    inputs: dict[str, str] = field(default_factory=dict)

    def __call__(self, graph: GraphBuilder, x: str, weight: Floats, bias: Floats, name: str) -> str:
        """As :func:`embedpress.onnx.bert.dense`."""
        self.inputs[name] = x
        return bert.dense(graph, x, weight, bias, name)

    def observed(self, model: onnx.ModelProto) -> onnx.ModelProto:
        """The model with what the layers read as further outputs."""
        watched = onnx.ModelProto()
        watched.CopyFrom(model)
        for name in sorted(set(self.inputs.values())):
            watched.graph.output.append(
                helper.make_tensor_value_info(name, TensorProto.FLOAT, None)
            )
        return watched

    def by_layer(self, ranges: Mapping[str, Range]) -> dict[str, Range]:
        """Ranges under the layers' names instead of their inputs'."""
        return {layer: ranges[name] for layer, name in self.inputs.items()}


class Int8Dense:
    """Adds dense layers in int8: unsigned activations, signed weights, sums in int32.

    Parameters
    ----------
    ranges : mapping of str to Range
        What each layer reads, by the layer's name.
    """

    def __init__(self, ranges: Mapping[str, Range]) -> None:
        self._ranges = ranges
        self._quantized: dict[str, tuple[str, str, str, Floats]] = {}

    def __call__(self, graph: GraphBuilder, x: str, weight: Floats, bias: Floats, name: str) -> str:
        """As :func:`embedpress.onnx.bert.dense`."""
        if x not in self._quantized:
            # The query, key and value of one layer read the same.
            self._quantized[x] = self._quantize(graph, x, name)
        values, scale, zero, smooth = self._quantized[x]
        if name.endswith(".value"):
            # Attention only averages values: its reader's smoothing is a scale of their columns.
            smoothed = self._smoothing(_reader(name))
            weight, bias = weight / smoothed, bias / smoothed
        whole, scales = quantized_weight(weight * smooth[:, None])
        return graph.add(
            "MatMulIntegerToFloat",
            values,
            graph.weight(f"{name}.weight", whole),
            scale,
            graph.weight(f"{name}.scales", scales),
            zero,
            "",
            graph.weight(f"{name}.bias", bias),
            domain=MICROSOFT,
        )

    def _smoothing(self, name: str) -> Floats:
        found = self._ranges[name]
        peaks = np.maximum(np.maximum(-found.low, found.high), SMALLEST)
        smooth: Floats = ((peaks / np.median(peaks)) ** SMOOTHING).astype(np.float32)
        return smooth

    def _quantize(self, graph: GraphBuilder, x: str, name: str) -> tuple[str, str, str, Floats]:
        found, smooth = self._ranges[name], self._smoothing(name)
        low = min(0.0, MARGIN * float((found.low / smooth).min()))
        high = max(SMALLEST, MARGIN * float((found.high / smooth).max()))
        step = (high - low) / LEVELS
        scale = graph.weight(f"{name}.input_scale", np.float32(step))
        zero = graph.weight(f"{name}.input_zero", np.uint8(round(-low / step)))
        if not name.endswith(".output"):
            x = graph.add("Mul", x, graph.weight(f"{name}.smoothing", 1 / smooth))
        return graph.add("QuantizeLinear", x, scale, zero), scale, zero, smooth


def _reader(value: str) -> str:
    """Name of the layer that reads the averages of a layer of values."""
    return value.removesuffix("value") + "output"


def quantized_weight(weight: Floats) -> tuple[NDArray[np.int8], Floats]:
    """Weights (in, out) as int8, symmetric, and the scale of each output."""
    scales = np.maximum(np.abs(weight).max(axis=0), SMALLEST) / 127
    whole = np.clip(np.round(weight / scales), -127, 127).astype(np.int8)
    return whole, scales.astype(np.float32)


def warn_where_it_is_slow() -> None:
    """Warn with `PrecisionWarning` where int8 does not pay."""
    if instructions_missing():
        warnings.warn(
            "this processor lacks the instructions that make int8 pay (VNNI on x86, dot products "
            "on ARM): here it is hardly faster than float32",
            PrecisionWarning,
            stacklevel=3,
        )


def instructions_missing(cpuinfo: Path = Path("/proc/cpuinfo")) -> bool | None:
    """Whether this processor lacks the dot products of bytes that make int8 pay.

    Without them int8 is hardly faster than float32, and on x86 before VNNI sums of two products
    can saturate. None where the processor does not say.
    """
    try:
        text = cpuinfo.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return False if platform.machine() == "arm64" else None
    lines = [line for line in text.splitlines() if line.startswith(("flags", "Features"))]
    if not lines:
        return None
    present: Any = lines[0].split(":", 1)[-1].split()
    return not any(flag in present for flag in FLAGS)
