"""The graphs of a compressor, node by node, from the trained weights."""

from __future__ import annotations

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import TensorProto
from torch import nn

from embedpress.autoencoder.network import SHORTEST, InputScale, ResidualMap, Tower
from embedpress.autoencoder.quantizer import CODEBOOK_SIZE, AdditiveQuantizer
from embedpress.autoencoder.reranker import Reranker
from embedpress.onnx.builder import GraphBuilder, Port

RUN = 16
"""Scores that are compared at once; see :func:`assign`."""


def scaled(graph: GraphBuilder, x: str, scale: InputScale) -> str:
    """Bring the input to unit scale, as :class:`InputScale` does."""
    if scale.metric != "cosine":
        return graph.add("Div", x, graph.weight("scale", _numpy(scale.scale)))
    norm = graph.add("ReduceL2", x, axes=[1], keepdims=1)
    safe = graph.add("Max", norm, graph.weight("shortest", np.float32(SHORTEST)))
    return graph.add("Div", x, safe)


def residual_map(
    graph: GraphBuilder, x: str, network: ResidualMap, prefix: str, output: str | None = None
) -> str:
    """``linear(x) + mlp(x)`` with batch normalisation folded into the layer before it."""

    def dense(value: str, weight: NDArray[np.float32], bias: NDArray[np.float32], key: str) -> str:
        # Stored transposed: ONNX Runtime packs a constant right operand once, at load.
        return graph.add(
            "Gemm",
            value,
            graph.weight(f"{prefix}.{key}.weight", weight.T),
            graph.weight(f"{prefix}.{key}.bias", bias),
        )

    y = dense(x, _numpy(network.linear.weight), _numpy(network.linear.bias), "linear")
    if network.residual:
        hidden = x
        for key, layer in enumerate(folded_layers(network.mlp)):
            if layer is None:
                hidden = graph.add("Relu", hidden)
            else:
                hidden = dense(hidden, *layer, f"mlp.{key}")
        y = graph.add("Add", y, hidden)
    return y if output is None else graph.add("Identity", y, name=output)


def folded_layers(
    mlp: nn.Sequential,
) -> list[tuple[NDArray[np.float32], NDArray[np.float32]] | None]:
    """(weight, bias) of each dense layer and None for each ReLU; dropout is gone."""
    layers: list[tuple[NDArray[np.float32], NDArray[np.float32]] | None] = []
    for module in mlp:
        if isinstance(module, nn.Linear):
            layers.append((_numpy(module.weight), _numpy(module.bias)))
        elif isinstance(module, nn.BatchNorm1d):
            dense = layers.pop()
            if dense is None or module.running_mean is None or module.running_var is None:
                raise TypeError("batch normalisation must follow a dense layer")
            weight, bias = dense
            gain = _numpy(module.weight) / np.sqrt(_numpy(module.running_var) + module.eps)
            shift = _numpy(module.bias) - _numpy(module.running_mean) * gain
            layers.append((weight * gain[:, None], bias * gain + shift))
        elif isinstance(module, nn.ReLU):
            layers.append(None)
    return layers


def assign(graph: GraphBuilder, z: str, quantizer: AdditiveQuantizer, output: str) -> str:
    """Greedy nearest codewords, stage after stage, as :meth:`AdditiveQuantizer.assign`.

    The largest of 256 scores is looked for in two steps, the best run of 16 and then the best of
    that run: ONNX Runtime's maximum is vectorised and its ArgMax is not, so that this takes half
    the time.
    """
    books = _numpy(quantizer.codebooks)
    stages, groups, size, width = books.shape
    slices = graph.weight("slices", np.array([-1, groups, width], np.int64))
    # (batch, groups * width) -> (groups, batch, width)
    residual = graph.add("Transpose", graph.add("Reshape", z, slices), perm=[1, 0, 2])
    run = graph.weight("run", np.array(RUN, np.int64))
    runs_shape = graph.weight("runs", np.array([groups, -1, size // RUN, RUN], np.int64))
    last = graph.weight("last_axis", np.array([2], np.int64))
    behind = graph.weight("behind", np.array([0, 0, 0, 0, 0, 1], np.int64))
    one = graph.weight("one", np.float32(1))
    chosen = []
    for stage in range(stages):
        # |r - c|^2 is least where r.c - |c|^2 / 2 is largest. A one behind each slice brings the
        # second term into the same product.
        half_norms = np.square(books[stage]).sum(-1)[:, None, :] / 2
        words = np.concatenate([books[stage].transpose(0, 2, 1), -half_norms], axis=1)
        widened = graph.add("Pad", residual, behind, one)
        scores = graph.add("MatMul", widened, graph.weight(f"books.{stage}", words))
        runs = graph.add("Reshape", scores, runs_shape)
        tops = graph.add("ReduceMax", runs, axes=[3], keepdims=0)
        best = graph.add("ArgMax", tops, axis=2, keepdims=1)
        within = graph.add(
            "ArgMax", graph.add("GatherND", runs, best, batch_dims=2), axis=2, keepdims=1
        )
        place = graph.add("Add", graph.add("Mul", best, run), within)
        index = graph.add("Squeeze", place, last)
        chosen.append(graph.add("Cast", index, to=TensorProto.UINT8))
        if stage + 1 < stages:
            offsets = (np.arange(groups, dtype=np.int64) * size)[:, None]
            rows = graph.add("Add", index, graph.weight("book_rows", offsets))
            table = graph.weight(f"words.{stage}", books[stage].reshape(-1, width))
            residual = graph.add("Sub", residual, graph.add("Gather", table, rows, axis=0))
    joined = chosen[0] if stages == 1 else graph.add("Concat", *chosen, axis=0)
    return graph.add("Transpose", joined, name=output, perm=[1, 0])


def lookup(graph: GraphBuilder, codes: str, quantizer: AdditiveQuantizer) -> str:
    """Sum of the codewords that codes name, as :meth:`AdditiveQuantizer.lookup`."""
    books = _numpy(quantizer.codebooks)
    stages, groups, _, width = books.shape
    offsets = np.arange(stages * groups, dtype=np.int64) * CODEBOOK_SIZE
    rows = graph.add("Cast", codes, to=TensorProto.INT64)
    rows = graph.add("Add", rows, graph.weight("code_rows", offsets))
    words = graph.add("Gather", graph.weight("codebooks", books.reshape(-1, width)), rows, axis=0)
    shape = graph.weight("word_shape", np.array([-1, stages, groups * width], np.int64))
    stacked = graph.add("Reshape", words, shape)
    axes = graph.weight("stage_axis", np.array([1], np.int64))
    return graph.add("ReduceSum", stacked, axes, keepdims=0)


def add_towers(
    graph: GraphBuilder,
    embeddings: str,
    scale: InputScale,
    latents: Tower | None,
    codes: Tower | None,
    *,
    queries: bool = False,
) -> list[Port]:
    """Lead `embeddings` through the encoders of the towers given.

    Returns
    -------
    list of Port
        ``latents`` and ``codes``; with `queries`, of the query encoders, ``latents`` and
        ``code_queries``.
    """
    x = scaled(graph, embeddings, scale)
    outputs: list[Port] = []
    if latents is not None:
        network = latents.query_encoder if queries else latents.encoder
        residual_map(graph, x, network, "latents", "latents")
        outputs.append(("latents", TensorProto.FLOAT, (latents.width,)))
    if codes is not None and codes.quantizer is not None:
        network = codes.query_encoder if queries else codes.encoder
        z = residual_map(graph, x, network, "codes")
        if queries:
            stages = codes.quantizer.codebooks.shape[0]
            repeats = graph.weight("stages", np.array([1, stages], np.int64))
            graph.add("Tile", z, repeats, name="code_queries")
            outputs.append(("code_queries", TensorProto.FLOAT, (codes.width * stages,)))
        else:
            assign(graph, z, codes.quantizer, "codes")
            outputs.append(("codes", TensorProto.UINT8, (codes.quantizer.code_size,)))
    return outputs


def encoder_graph(
    scale: InputScale,
    dim: int,
    latents: Tower | None,
    codes: Tower | None,
    metadata: dict[str, str],
    *,
    queries: bool = False,
) -> onnx.ModelProto:
    """``embeddings`` -> what :func:`add_towers` gives."""
    graph = GraphBuilder()
    outputs = add_towers(graph, "embeddings", scale, latents, codes, queries=queries)
    return graph.model([("embeddings", TensorProto.FLOAT, (dim,))], outputs, metadata)


def decoder_graph(
    scale: InputScale, dim: int, tower: Tower, metadata: dict[str, str]
) -> onnx.ModelProto:
    """``latents`` (or ``codes``, for a tower with a quantizer) -> ``embeddings``."""
    graph = GraphBuilder()
    port: Port
    if tower.quantizer is None:
        z, port = "latents", ("latents", TensorProto.FLOAT, (tower.width,))
    else:
        z = lookup(graph, "codes", tower.quantizer)
        port = ("codes", TensorProto.UINT8, (tower.quantizer.code_size,))
    y = residual_map(graph, z, tower.decoder, "decoder")
    factor = np.float32(1) if scale.metric == "cosine" else _numpy(scale.scale)
    graph.add("Mul", y, graph.weight("scale", factor), name="embeddings")
    return graph.model([port], [("embeddings", TensorProto.FLOAT, (dim,))], metadata)


def rerank_documents_graph(
    reranker: Reranker, quantizer: AdditiveQuantizer, metadata: dict[str, str]
) -> onnx.ModelProto:
    """``codes`` -> ``documents``, which a reranker scores."""
    graph = GraphBuilder()
    words = lookup(graph, "codes", quantizer)
    residual_map(graph, words, reranker.documents, "documents", "documents")
    width = reranker.documents.linear.out_features
    codes: Port = ("codes", TensorProto.UINT8, (quantizer.code_size,))
    return graph.model([codes], [("documents", TensorProto.FLOAT, (width,))], metadata)


def rerank_queries_graph(
    scale: InputScale, dim: int, reranker: Reranker, metadata: dict[str, str]
) -> onnx.ModelProto:
    """``embeddings`` -> ``queries``, which a reranker scores against its documents."""
    graph = GraphBuilder()
    x = scaled(graph, "embeddings", scale)
    residual_map(graph, x, reranker.queries, "queries", "queries")
    width = reranker.queries.linear.out_features
    embeddings: Port = ("embeddings", TensorProto.FLOAT, (dim,))
    return graph.model([embeddings], [("queries", TensorProto.FLOAT, (width,))], metadata)


def _numpy(tensor: torch.Tensor) -> NDArray[np.float32]:
    value: NDArray[np.float32] = tensor.detach().cpu().numpy().astype(np.float32)
    return value
