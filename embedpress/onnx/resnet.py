"""A ResNet as ONNX nodes: from normalised pixels to pooled features.

Batch normalisation is folded into the convolution before it; ONNX Runtime then fuses each
convolution with its addition and its ReLU, and lays channels out in blocks.
"""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from embedpress.onnx.builder import GraphBuilder

Floats = NDArray[np.float32]


class Layers(Protocol):
    """How what lies between the first pooling and the last one is added to a graph."""

    def enter(self, graph: GraphBuilder, x: str) -> str:
        """Take over the pooled output of the stem, which is not negative."""

    def conv(
        self, graph: GraphBuilder, x: str, weight: Floats, bias: Floats, name: str, conv: Any
    ) -> str:
        """A convolution as `conv`, a torch layer, does it, with weights (out, in, h, w)."""

    def conv_relu(
        self, graph: GraphBuilder, x: str, weight: Floats, bias: Floats, name: str, conv: Any
    ) -> str:
        """The same, and a ReLU behind it."""

    def add_relu(self, graph: GraphBuilder, x: str, y: str, name: str) -> str:
        """The sum of two, and a ReLU behind it."""

    def leave(self, graph: GraphBuilder, x: str) -> str:
        """Give back float32."""


class FloatLayers:
    """Layers in float32."""

    def enter(self, graph: GraphBuilder, x: str) -> str:
        """As :class:`Layers`."""
        return x

    def conv(
        self, graph: GraphBuilder, x: str, weight: Floats, bias: Floats, name: str, conv: Any
    ) -> str:
        """As :class:`Layers`."""
        weights = graph.weight(f"{name}.weight", weight), graph.weight(f"{name}.bias", bias)
        return graph.add("Conv", x, *weights, **conv_attributes(conv))

    def conv_relu(
        self, graph: GraphBuilder, x: str, weight: Floats, bias: Floats, name: str, conv: Any
    ) -> str:
        """As :class:`Layers`."""
        return graph.add("Relu", self.conv(graph, x, weight, bias, name, conv))

    def add_relu(self, graph: GraphBuilder, x: str, y: str, name: str) -> str:
        """As :class:`Layers`."""
        return graph.add("Relu", graph.add("Add", x, y))

    def leave(self, graph: GraphBuilder, x: str) -> str:
        """As :class:`Layers`."""
        return x


def conv_attributes(conv: Any) -> dict[str, Any]:
    """ONNX's attributes of a torch convolution."""
    return {
        "kernel_shape": list(conv.kernel_size),
        "strides": list(conv.stride),
        "pads": list(conv.padding) * 2,
        "group": conv.groups,
    }


def add_resnet(
    graph: GraphBuilder, network: Any, output: str, layers: Layers | None = None
) -> None:
    """Add a torchvision ResNet without its last layer; ``pixels`` is its port.

    Parameters
    ----------
    graph : GraphBuilder
    network : torchvision.models.ResNet
        For inference.
    output : str
        Name of the features, (batch, width).
    layers : Layers, optional
        How layers are added; in float32 by default. The stem and the last pooling always are.
    """
    layers = layers or FloatLayers()
    stem = _folded(network.conv1, network.bn1)
    x = FloatLayers().conv_relu(graph, "pixels", *stem, "stem", network.conv1)
    pool = network.maxpool
    x = graph.add(
        "MaxPool",
        x,
        kernel_shape=[pool.kernel_size] * 2,
        strides=[pool.stride] * 2,
        pads=[pool.padding] * 4,
    )
    x = layers.enter(graph, x)
    for stage in ("layer1", "layer2", "layer3", "layer4"):
        for number, block in enumerate(getattr(network, stage)):
            x = _block(graph, x, block, f"{stage}.{number}", layers)
    x = graph.add("GlobalAveragePool", layers.leave(graph, x))
    graph.add("Flatten", x, axis=1, name=output)


def _block(graph: GraphBuilder, x: str, block: Any, name: str, layers: Layers) -> str:
    y = x
    parts = [part for part in ("1", "2", "3") if hasattr(block, f"conv{part}")]
    for part in parts:
        conv = getattr(block, f"conv{part}")
        folded = _folded(conv, getattr(block, f"bn{part}"))
        add = layers.conv if part == parts[-1] else layers.conv_relu
        y = add(graph, y, *folded, f"{name}.{part}", conv)
    if block.downsample is not None:
        conv, norm = block.downsample
        x = layers.conv(graph, x, *_folded(conv, norm), f"{name}.downsample", conv)
    return layers.add_relu(graph, y, x, f"{name}.sum")


def _folded(conv: Any, norm: Any) -> tuple[Floats, Floats]:
    """Weights and biases of a convolution with the batch normalisation behind it."""
    gain = _array(norm.weight) / np.sqrt(_array(norm.running_var) + norm.eps)
    shift = _array(norm.bias) - _array(norm.running_mean) * gain
    weight = _array(conv.weight) * gain[:, None, None, None]
    return weight.astype(np.float32), shift.astype(np.float32)


def _array(tensor: Any) -> NDArray[np.float64]:
    # Folded in double precision, so that rounding happens once.
    value: NDArray[np.float64] = tensor.detach().cpu().double().numpy()
    return value
