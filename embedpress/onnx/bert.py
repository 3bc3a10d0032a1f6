"""A BERT-like network as ONNX nodes: from token ids to one vector a text.

Written node by node rather than traced, since what is fast on a CPU is known: every dense layer
is one matrix product over all tokens of a batch with its bias inside, GELU is ONNX Runtime's
``Gelu``. Layer normalisation stays ONNX's own operator behind a ``Sum``: the fusion of the two,
``SkipLayerNormalization``, takes six times as long on a CPU.

Tokens lie position by position, the texts of a batch beside each other: so the heads of all texts
are strided matrices that ``FusedMatMul`` multiplies where they are, while ``MultiHeadAttention``
would first copy queries, keys and values. On texts of 25 tokens it takes twice as long.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import TensorProto

from embedpress.errors import UsageError
from embedpress.onnx.builder import MICROSOFT, GraphBuilder

Floats = NDArray[np.float32]
Dense = Callable[[GraphBuilder, str, Floats, Floats, str], str]
"""Adds ``x @ weight + bias`` to a graph: (graph, x, weight, bias, name) -> output."""

NETWORKS = ("bert", "roberta", "xlm-roberta", "camembert", "distilbert")
_ACTIVATIONS = {
    "gelu": ("Gelu", MICROSOFT),
    "gelu_new": ("FastGelu", MICROSOFT),
    "gelu_pytorch_tanh": ("FastGelu", MICROSOFT),
    "relu": ("Relu", ""),
}
SHORTEST = 1e-12
"""Norms are at least this, as in torch.nn.functional.normalize."""


@dataclass(frozen=True)
class Layer:
    """Weights (in, out) and biases of one transformer layer; a norm is (gain, shift)."""

    query: tuple[Floats, Floats]
    key: tuple[Floats, Floats]
    value: tuple[Floats, Floats]
    output: tuple[Floats, Floats]
    attention_norm: tuple[Floats, Floats]
    up: tuple[Floats, Floats]
    down: tuple[Floats, Floats]
    norm: tuple[Floats, Floats]


@dataclass(frozen=True)
class Bert:
    """Weights of a network, whatever its library calls them."""

    words: Floats
    positions: Floats
    norm: tuple[Floats, Floats]
    layers: tuple[Layer, ...]
    heads: int
    epsilon: float
    activation: str


def read_bert(model: Any) -> Bert:
    """Take the weights out of a transformers module.

    Parameters
    ----------
    model : transformers.PreTrainedModel
        A BERT, RoBERTa, XLM-RoBERTa, CamemBERT or DistilBERT.

    Returns
    -------
    Bert

    Raises
    ------
    UsageError
        For another network.
    """
    config, table = model.config, model.embeddings
    if config.model_type not in NETWORKS:
        raise UsageError(
            f"a {config.model_type} cannot be exported with its extractor, only "
            f"{', '.join(NETWORKS)}: export the compressor alone"
        )
    kind = getattr(config, "position_embedding_type", "absolute")
    activation = getattr(config, "hidden_act", None) or config.activation
    if kind != "absolute" or activation not in _ACTIVATIONS:
        raise UsageError(
            f"this {config.model_type} has {kind} positions and the activation {activation}: "
            "only absolute positions, gelu and relu can be exported"
        )
    positions = _array(table.position_embeddings.weight)
    if table.position_embeddings.padding_idx is not None:
        # RoBERTa's first token is at the position behind its padding index.
        positions = positions[table.position_embeddings.padding_idx + 1 :]
    if hasattr(table, "token_type_embeddings"):
        # All tokens of one text are of type 0.
        positions = positions + _array(table.token_type_embeddings.weight)[0]
    distil = config.model_type == "distilbert"
    layers = model.transformer.layer if distil else model.encoder.layer
    return Bert(
        words=_array(table.word_embeddings.weight),
        positions=positions,
        norm=_norm(table.LayerNorm),
        layers=tuple(_distil_layer(one) if distil else _bert_layer(one) for one in layers),
        heads=config.num_attention_heads,
        epsilon=table.LayerNorm.eps,
        activation=activation,
    )


def _bert_layer(layer: Any) -> Layer:
    attention, output = layer.attention.self, layer.attention.output
    return Layer(
        query=_dense(attention.query),
        key=_dense(attention.key),
        value=_dense(attention.value),
        output=_dense(output.dense),
        attention_norm=_norm(output.LayerNorm),
        up=_dense(layer.intermediate.dense),
        down=_dense(layer.output.dense),
        norm=_norm(layer.output.LayerNorm),
    )


def _distil_layer(layer: Any) -> Layer:
    attention = layer.attention
    return Layer(
        query=_dense(attention.q_lin),
        key=_dense(attention.k_lin),
        value=_dense(attention.v_lin),
        output=_dense(attention.out_lin),
        attention_norm=_norm(layer.sa_layer_norm),
        up=_dense(layer.ffn.lin1),
        down=_dense(layer.ffn.lin2),
        norm=_norm(layer.output_layer_norm),
    )


def dense(graph: GraphBuilder, x: str, weight: Floats, bias: Floats, name: str) -> str:
    """Add a dense layer in float32."""
    return graph.add(
        "Gemm", x, graph.weight(f"{name}.weight", weight), graph.weight(f"{name}.bias", bias)
    )


def add_bert(graph: GraphBuilder, bert: Bert, dense: Dense = dense) -> str:
    """Add the network; ``input_ids`` and ``attention_mask`` (batch, sequence) are its ports.

    Parameters
    ----------
    graph : GraphBuilder
    bert : Bert
    dense : callable
        How a dense layer is added: :func:`dense`, or a quantized one.

    Returns
    -------
    str
        Name of the token vectors, (sequence, batch, width).
    """
    width = bert.words.shape[1]
    ids = graph.add("Transpose", "input_ids", perm=[1, 0])
    length = graph.add("Shape", ids, end=1)
    flat = graph.weight("flat", np.array([-1, width]))
    first = graph.weight("first", np.array([0]))
    words = graph.add("Gather", graph.weight("words", bert.words), ids, axis=0)
    places = graph.add("Slice", graph.weight("positions", bert.positions), first, length, first)
    places = graph.add("Unsqueeze", places, graph.weight("middle", np.array([1])))
    x = graph.add("Reshape", graph.add("Sum", words, places), flat)
    padding = _padding(graph, bert.heads)
    by_head = graph.weight("head", np.array([-1, width // bert.heads]))
    by_head = graph.add("Concat", length, by_head, axis=0)

    def norm(value: str, gain_shift: tuple[Floats, Floats], name: str) -> str:
        gain, shift = gain_shift
        return graph.add(
            "LayerNormalization",
            value,
            graph.weight(f"{name}.gain", gain),
            graph.weight(f"{name}.shift", shift),
            axis=-1,
            epsilon=bert.epsilon,
        )

    x = norm(x, bert.norm, "embedding_norm")
    op, domain = _ACTIVATIONS[bert.activation]
    for number, layer in enumerate(bert.layers):
        prefix = f"layer.{number}"
        query, key, value = (
            graph.add("Reshape", dense(graph, x, *weights, f"{prefix}.{name}"), by_head)
            for name, weights in (
                ("query", layer.query),
                ("key", layer.key),
                ("value", layer.value),
            )
        )
        scores = graph.add(
            "FusedMatMul", query, key, transBatchA=1, transBatchB=1, transB=1,
            alpha=(width // bert.heads) ** -0.5, domain=MICROSOFT,
        )  # fmt: skip
        shares = _softmax(graph, scores, padding)
        context = graph.add("FusedMatMul", shares, value, transBatchB=1, domain=MICROSOFT)
        context = graph.add("Transpose", context, perm=[1, 0, 2])
        context = graph.add("Reshape", context, flat)
        attended = dense(graph, context, *layer.output, f"{prefix}.output")
        x = norm(graph.add("Sum", attended, x), layer.attention_norm, f"{prefix}.attention_norm")
        hidden = dense(graph, x, *layer.up, f"{prefix}.up")
        hidden = graph.add(op, hidden, domain=domain)
        x = norm(
            graph.add("Sum", dense(graph, hidden, *layer.down, f"{prefix}.down"), x),
            layer.norm,
            f"{prefix}.norm",
        )
    return graph.add("Reshape", x, graph.add("Concat", length, flat, axis=0))


def _padding(graph: GraphBuilder, heads: int) -> tuple[str, str]:
    """Whether a batch has padding, and what it adds to the scores of each (text, head)."""
    none = graph.weight("none", np.array(0))
    padding = graph.add("Equal", "attention_mask", none)
    some = graph.add("ReduceMax", graph.add("Cast", padding, to=TensorProto.INT32), keepdims=0)
    lowest = graph.weight("least_score", np.float32(np.finfo(np.float32).min / 2))
    added = graph.add("Where", padding, lowest, graph.weight("nothing", np.float32(0)))
    added = graph.add("Unsqueeze", added, graph.weight("middle", np.array([1])))
    alike = graph.weight("heads", np.zeros((1, heads, 1), np.float32))
    added = graph.add("Flatten", graph.add("Add", added, alike), axis=2)
    added = graph.add("Unsqueeze", added, graph.weight("middle", np.array([1])))
    return graph.add("Cast", some, to=TensorProto.BOOL), added


def _softmax(graph: GraphBuilder, scores: str, padding: tuple[str, str]) -> str:
    """Each position's shares of the others, none of padding.

    Sorted batches seldom have any, and looking at all scores once more takes as long as softmax.
    """
    some, added = padding
    masked = GraphBuilder(scope=f"{scores}.masked")
    shares = masked.add("Softmax", masked.add("Add", scores, added), axis=-1)
    plain = GraphBuilder(scope=f"{scores}.plain")
    return graph.add(
        "If", some, then_branch=masked.branch(shares),
        else_branch=plain.branch(plain.add("Softmax", scores, axis=-1)),
    )  # fmt: skip


def add_pooling(
    graph: GraphBuilder, tokens: str, pooling: str, normalize: bool, output: str
) -> None:
    """Add the way from token vectors (sequence, batch, width) to ``output`` (batch, width)."""
    if pooling == "cls":
        pooled = graph.add("Gather", tokens, graph.weight("cls", np.array(0)), axis=0)
    elif pooling == "max":
        padding = graph.add("Equal", "attention_mask", graph.weight("none", np.array(0)))
        padding = graph.add(
            "Unsqueeze",
            graph.add("Transpose", padding, perm=[1, 0]),
            graph.weight("behind_all", np.array([2])),
        )
        lowest = graph.weight("lowest", np.float32(-np.inf))
        kept = graph.add("Where", padding, lowest, tokens)
        pooled = graph.add("ReduceMax", kept, axes=[0], keepdims=0)
    else:
        middle = graph.weight("middle", np.array([1]))
        mask = graph.add("Cast", "attention_mask", to=TensorProto.FLOAT)
        total = graph.add(
            "FusedMatMul", graph.add("Unsqueeze", mask, middle), tokens, transBatchB=1,
            domain=MICROSOFT,
        )  # fmt: skip
        count = graph.add("ReduceSum", mask, middle, keepdims=1)
        pooled = graph.add("Div", graph.add("Squeeze", total, middle), count)
    if normalize:
        norm = graph.add("ReduceL2", pooled, axes=[1], keepdims=1)
        shortest = graph.weight("shortest_text", np.float32(SHORTEST))
        graph.add("Div", pooled, graph.add("Max", norm, shortest), name=output)
    else:
        graph.add("Identity", pooled, name=output)


def _dense(layer: Any) -> tuple[Floats, Floats]:
    return np.ascontiguousarray(_array(layer.weight).T), _array(layer.bias)


def _norm(layer: Any) -> tuple[Floats, Floats]:
    return _array(layer.weight), _array(layer.bias)


def _array(tensor: Any) -> Floats:
    value: Floats = tensor.detach().cpu().float().numpy()
    return value
