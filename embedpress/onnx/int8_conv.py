"""Convolutions in int8, with scales that are fixed once and for all on real photos.

Between the layers lie bytes: unsigned values with one scale a tensor, signed weights with a scale
an output, sums in int32 (Jacob et al. 2018). A ReLU costs nothing: zero is the smallest byte.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper

from embedpress.onnx.builder import MICROSOFT, GraphBuilder
from embedpress.onnx.int8 import LEVELS, SMALLEST, Floats, quantized_weight
from embedpress.onnx.resnet import FloatLayers, conv_attributes

ENTRY = "entry"

Limits = tuple[float, float]
"""Smallest and largest value of a tensor."""


@dataclass
class RecordingLayers(FloatLayers):
    """Adds float32 layers, and notes the names of what they give."""

    outputs: dict[str, str] = field(default_factory=dict)

    def enter(self, graph: GraphBuilder, x: str) -> str:
        """As :class:`~embedpress.onnx.resnet.Layers`."""
        self.outputs[ENTRY] = x
        return x

    def conv(
        self, graph: GraphBuilder, x: str, weight: Floats, bias: Floats, name: str, conv: Any
    ) -> str:
        """As :class:`~embedpress.onnx.resnet.Layers`."""
        self.outputs[name] = super().conv(graph, x, weight, bias, name, conv)
        return self.outputs[name]

    def conv_relu(
        self, graph: GraphBuilder, x: str, weight: Floats, bias: Floats, name: str, conv: Any
    ) -> str:
        """As :class:`~embedpress.onnx.resnet.Layers`."""
        self.outputs[name] = super().conv_relu(graph, x, weight, bias, name, conv)
        return self.outputs[name]

    def add_relu(self, graph: GraphBuilder, x: str, y: str, name: str) -> str:
        """As :class:`~embedpress.onnx.resnet.Layers`."""
        self.outputs[name] = super().add_relu(graph, x, y, name)
        return self.outputs[name]

    def observed(self, model: onnx.ModelProto) -> onnx.ModelProto:
        """The model with the smallest and largest value of each as further outputs."""
        watched = onnx.ModelProto()
        watched.CopyFrom(model)
        for layer, name in self.outputs.items():
            for kind in ("Min", "Max"):
                output = f"{layer}.{kind}"
                node = helper.make_node(f"Reduce{kind}", [name], [output], output, keepdims=0)
                watched.graph.node.append(node)
                watched.graph.output.append(
                    helper.make_tensor_value_info(output, TensorProto.FLOAT, [])
                )
        return watched


@dataclass(frozen=True)
class _Form:
    """How the bytes of a tensor stand for floats."""

    step: float
    zero: int
    scale_name: str
    zero_name: str


class Int8Layers:
    """Adds layers in int8.

    Parameters
    ----------
    limits : mapping of str to (float, float)
        Of what each layer gives, and of what enters under `ENTRY`.
    """

    def __init__(self, limits: Mapping[str, Limits]) -> None:
        self._limits = limits
        self._forms: dict[str, _Form] = {}

    def enter(self, graph: GraphBuilder, x: str) -> str:
        """As :class:`~embedpress.onnx.resnet.Layers`."""
        form = self._form(graph, ENTRY)
        y = graph.add("QuantizeLinear", x, form.scale_name, form.zero_name)
        self._forms[y] = form
        return y

    def conv(
        self, graph: GraphBuilder, x: str, weight: Floats, bias: Floats, name: str, conv: Any
    ) -> str:
        """As :class:`~embedpress.onnx.resnet.Layers`."""
        given, form = self._forms[x], self._form(graph, name)
        flat, scales = quantized_weight(weight.reshape(len(weight), -1).T)
        whole = np.ascontiguousarray(flat.T).reshape(weight.shape)
        sums = np.round(bias / (given.step * scales.astype(np.float64)))
        y = graph.add(
            "QLinearConv",
            x,
            given.scale_name,
            given.zero_name,
            graph.weight(f"{name}.weight", whole),
            graph.weight(f"{name}.scales", scales),
            graph.weight(f"{name}.zeros", np.zeros(len(weight), np.int8)),
            form.scale_name,
            form.zero_name,
            graph.weight(f"{name}.bias", np.clip(sums, -(2**31), 2**31 - 1).astype(np.int32)),
            **conv_attributes(conv),
        )
        self._forms[y] = form
        return y

    # What comes out of a ReLU has no values below 0, and bytes have none to stand for them.
    conv_relu = conv

    def add_relu(self, graph: GraphBuilder, x: str, y: str, name: str) -> str:
        """As :class:`~embedpress.onnx.resnet.Layers`."""
        first, second, form = self._forms[x], self._forms[y], self._form(graph, name)
        given = (x, first.scale_name, first.zero_name, y, second.scale_name, second.zero_name)
        z = graph.add("QLinearAdd", *given, form.scale_name, form.zero_name, domain=MICROSOFT)
        self._forms[z] = form
        return z

    def leave(self, graph: GraphBuilder, x: str) -> str:
        """As :class:`~embedpress.onnx.resnet.Layers`."""
        form = self._forms[x]
        return graph.add("DequantizeLinear", x, form.scale_name, form.zero_name)

    def _form(self, graph: GraphBuilder, name: str) -> _Form:
        low, high = self._limits[name]
        low, high = min(0.0, low), max(SMALLEST, high)
        step = float(np.float32((high - low) / LEVELS))
        zero = round(-low / step)
        return _Form(
            step,
            zero,
            graph.weight(f"{name}.output_scale", np.float32(step)),
            graph.weight(f"{name}.output_zero", np.uint8(zero)),
        )
