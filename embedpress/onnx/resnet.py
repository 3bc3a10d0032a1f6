"""A ResNet as ONNX nodes: from normalised pixels to pooled features.

Batch normalisation is folded into the convolution before it; ONNX Runtime then fuses each
convolution with its addition and its ReLU, and lays channels out in blocks.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from embedpress.onnx.builder import GraphBuilder


def add_resnet(graph: GraphBuilder, network: Any, output: str) -> None:
    """Add a torchvision ResNet without its last layer; ``pixels`` is its port.

    Parameters
    ----------
    graph : GraphBuilder
    network : torchvision.models.ResNet
        For inference.
    output : str
        Name of the features, (batch, width).
    """
    x = _conv(graph, "pixels", network.conv1, network.bn1, "stem")
    x = graph.add("Relu", x)
    pool = network.maxpool
    x = graph.add(
        "MaxPool",
        x,
        kernel_shape=[pool.kernel_size] * 2,
        strides=[pool.stride] * 2,
        pads=[pool.padding] * 4,
    )
    for stage in ("layer1", "layer2", "layer3", "layer4"):
        for number, block in enumerate(getattr(network, stage)):
            x = _block(graph, x, block, f"{stage}.{number}")
    x = graph.add("GlobalAveragePool", x)
    graph.add("Flatten", x, axis=1, name=output)


def _block(graph: GraphBuilder, x: str, block: Any, name: str) -> str:
    y = x
    parts = [part for part in ("1", "2", "3") if hasattr(block, f"conv{part}")]
    for part in parts:
        conv, norm = getattr(block, f"conv{part}"), getattr(block, f"bn{part}")
        y = _conv(graph, y, conv, norm, f"{name}.{part}")
        if part != parts[-1]:
            y = graph.add("Relu", y)
    if block.downsample is not None:
        x = _conv(graph, x, block.downsample[0], block.downsample[1], f"{name}.downsample")
    return graph.add("Relu", graph.add("Add", y, x))


def _conv(graph: GraphBuilder, x: str, conv: Any, norm: Any, name: str) -> str:
    gain = _array(norm.weight) / np.sqrt(_array(norm.running_var) + norm.eps)
    shift = _array(norm.bias) - _array(norm.running_mean) * gain
    weight = _array(conv.weight) * gain[:, None, None, None]
    return graph.add(
        "Conv",
        x,
        graph.weight(f"{name}.weight", weight.astype(np.float32)),
        graph.weight(f"{name}.bias", shift.astype(np.float32)),
        kernel_shape=list(conv.kernel_size),
        strides=list(conv.stride),
        pads=list(conv.padding) * 2,
        group=conv.groups,
    )


def _array(tensor: Any) -> NDArray[np.float64]:
    # Folded in double precision, so that rounding happens once.
    value: NDArray[np.float64] = tensor.detach().cpu().double().numpy()
    return value
