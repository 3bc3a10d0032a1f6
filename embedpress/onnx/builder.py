"""An ONNX graph under construction: nodes, weights, ports."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

OPSET = 17
IR_VERSION = 8
"""Both old on purpose: any ONNX Runtime since 1.12 reads them."""
MICROSOFT = "com.microsoft"
"""Domain of the operators that ONNX Runtime adds to ONNX's own."""

Port = tuple[str, int, tuple[int | str, ...]]
"""Name, element type and dimensions behind the batch's."""


@dataclass
class GraphBuilder:
    """Nodes and weights of a graph under construction; names are counted, never random.

    A branch of another graph names its `scope`, since the names of both meet.
    """

    scope: str = ""
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    weights: dict[str, onnx.TensorProto] = field(default_factory=dict)

    def add(self, op: str, *inputs: str, name: str | None = None, **attributes: Any) -> str:
        """Append one node with one output and return that output's name."""
        output = name or f"{self.scope}{op.lower()}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(op, list(inputs), [output], output, **attributes))
        return output

    def weight(self, name: str, value: NDArray[np.generic]) -> str:
        """A named constant, stored once."""
        if name not in self.weights:
            self.weights[name] = numpy_helper.from_array(np.asarray(value, order="C"), name)
        return name

    def branch(self, output: str) -> onnx.GraphProto:
        """Close what a node of another graph may run; its weights are that graph's."""
        port = helper.make_tensor_value_info(output, onnx.TensorProto.FLOAT, None)
        return helper.make_graph(self.nodes, self.scope, [], [port])

    def model(
        self, inputs: Sequence[Port], outputs: Sequence[Port], metadata: dict[str, str]
    ) -> onnx.ModelProto:
        """Close the graph."""

        def described(ports: Sequence[Port]) -> list[onnx.ValueInfoProto]:
            return [
                helper.make_tensor_value_info(name, kind, ["batch", *dims])
                for name, kind, dims in ports
            ]

        graph = helper.make_graph(
            self.nodes,
            "embedpress",
            described(inputs),
            described(outputs),
            list(self.weights.values()),
        )
        opsets = [helper.make_opsetid("", OPSET)]
        if any(node.domain == MICROSOFT for node in self.nodes):
            opsets.append(helper.make_opsetid(MICROSOFT, 1))
        model = helper.make_model(
            graph, opset_imports=opsets, ir_version=IR_VERSION, producer_name="embedpress"
        )
        helper.set_model_props(model, metadata)
        onnx.checker.check_model(model, full_check=True)
        return model
