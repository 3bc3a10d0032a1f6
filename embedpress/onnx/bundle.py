"""An extractor and a compressor as one graph: from token ids or pixels to codes."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto
from PIL import Image

from embedpress.errors import ExportError, MismatchError, UsageError
from embedpress.extract.batches import padded
from embedpress.onnx import bert
from embedpress.onnx.builder import GraphBuilder
from embedpress.onnx.canary import INPUTS, Arrays, pack
from embedpress.onnx.extractor import GRAPHS, TOKENIZER, ExtractorConfig
from embedpress.onnx.graph import add_towers
from embedpress.onnx.resnet import add_resnet
from embedpress.onnx.sample import sample_texts
from embedpress.vectors.files import write_atomic

if TYPE_CHECKING:
    from embedpress.autoencoder.estimator import Compressor
    from embedpress.extract.image import ImageExtractor
    from embedpress.extract.text import TextExtractor

TOLERANCE = 1e-4
"""Largest difference of a float from torch's, relative to the largest value of its kind."""
CODE_TOLERANCE = 1e-2
"""Share of bytes of codes that may differ: distances to two codewords equal within rounding."""
N_CANARIES = 8
PROTOBUF_LIMIT = (1 << 31) - 1

Floats = NDArray[np.float32]
Feed = dict[str, NDArray[Any]]
Run = Callable[[Feed], Arrays]


@dataclass(frozen=True)
class Bundle:
    """What goes into the folder beside the compressor: files by name."""

    config: ExtractorConfig
    files: dict[str, bytes]

    def write(self, folder: Path) -> dict[str, str]:
        """Write the files and extractor.json; returns the sha256 of each file."""
        for name, content in self.files.items():
            write_atomic(folder / name, content)
        self.config.write(folder)
        return {name: hashlib.sha256(content).hexdigest() for name, content in self.files.items()}


def check_dim(compressor: Compressor, dim: int, model: str) -> None:
    """Refuse an extractor of another dimension.

    Raises
    ------
    MismatchError
    """
    if dim != compressor.n_features_in_:
        raise MismatchError(
            f"{model} gives {dim} dimensions, the compressor takes "
            f"{compressor.n_features_in_}: name the extractor that it was fitted for"
        )


def text_graph(
    compressor: Compressor,
    extractor: TextExtractor,
    stamps: dict[str, str],
    dense: bert.Dense = bert.dense,
) -> onnx.ModelProto:
    """``input_ids``, ``attention_mask`` -> ``embeddings``, ``latents``, ``codes``."""
    graph = GraphBuilder()
    tokens = bert.add_bert(graph, bert.read_bert(extractor.model), dense)
    bert.add_pooling(graph, tokens, extractor.pooling, extractor.normalized, "embeddings")
    ports = [(name, TensorProto.INT64, ("sequence",)) for name in ("input_ids", "attention_mask")]
    return _closed(graph, compressor, ports, stamps)


def image_graph(
    compressor: Compressor, extractor: ImageExtractor, stamps: dict[str, str]
) -> onnx.ModelProto:
    """``pixels`` -> ``embeddings``, ``latents``, ``codes``."""
    graph = GraphBuilder()
    add_resnet(graph, extractor.model, "embeddings")
    side = extractor.transform.crop
    return _closed(graph, compressor, [("pixels", TensorProto.FLOAT, (3, side, side))], stamps)


def _closed(
    graph: GraphBuilder, compressor: Compressor, ports: Sequence[Any], stamps: dict[str, str]
) -> onnx.ModelProto:
    outputs = [
        ("embeddings", TensorProto.FLOAT, (compressor.n_features_in_,)),
        *add_towers(
            graph,
            "embeddings",
            compressor.scale_,
            compressor.latent_tower_,
            compressor.code_tower_,
        ),
    ]
    model = graph.model(ports, outputs, stamps)
    if model.ByteSize() > PROTOBUF_LIMIT:
        raise UsageError("the network is larger than the 2 GiB that one ONNX file can hold")
    return model


def session_run(content: bytes, num_threads: int | None) -> Run:
    """A graph's bytes as a function from inputs to all outputs by name."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    if num_threads is not None:
        options.intra_op_num_threads = num_threads
    session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return lambda feed: dict(zip(names, session.run(names, feed), strict=True))


def text_bundle(
    compressor: Compressor,
    extractor: TextExtractor,
    stamps: dict[str, str],
    num_threads: int | None,
) -> Bundle:
    """The text graph with its tokenizer and canaries, checked against torch.

    Raises
    ------
    UsageError
        A network or a tokenizer that cannot be exported.
    ExportError
        The graph gives other results than torch.
    """
    check_dim(compressor, extractor.dim, extractor.model_id)
    tokenizer = tokenizer_of(extractor)
    content = text_graph(compressor, extractor, stamps).SerializeToString(deterministic=True)
    run = session_run(content, num_threads)
    for feed in parity_feeds(extractor):
        expected = _expected(compressor, extractor.encode_tokens(**feed))
        compare(run(feed), expected, "x".join(map(str, feed["input_ids"].shape)) + " tokens")
    texts = sample_texts()[:N_CANARIES]
    expected = _expected(compressor, extractor.encode(texts))
    return Bundle(
        config=text_config(extractor, "float32"),
        files={
            GRAPHS["text"]: content,
            TOKENIZER: tokenizer,
            INPUTS: pack(expected, texts),
        },
    )


def text_config(extractor: TextExtractor, precision: str) -> ExtractorConfig:
    """What extractor.json says of a text extractor."""
    return ExtractorConfig(
        kind="text",
        model=extractor.model_id,
        revision=extractor.revision,
        fingerprint=extractor.fingerprint,
        precision=precision,
        pooling=extractor.pooling,
        normalize=extractor.normalized,
        max_length=extractor.max_length,
        lower_case=extractor.recipe.lower_case,
        prompt=extractor.recipe.prompt,
        padding=extractor.padding,
    )


def image_bundle(
    compressor: Compressor,
    extractor: ImageExtractor,
    stamps: dict[str, str],
    num_threads: int | None,
) -> Bundle:
    """The image graph with its transform and canaries, checked against torch.

    Raises
    ------
    ExportError
        The graph gives other results than torch.
    """
    check_dim(compressor, extractor.dim, extractor.model_id)
    content = image_graph(compressor, extractor, stamps).SerializeToString(deterministic=True)
    run = session_run(content, num_threads)
    images = drawn_images(extractor.transform.resize)
    for batch in (1, 7):
        pixels = np.stack([extractor.transform(images[i % len(images)]) for i in range(batch)])
        expected = _expected(compressor, extractor.encode_pixels(pixels))
        compare(run({"pixels": pixels}), expected, f"{batch} images")
    expected = _expected(compressor, extractor.encode(images))
    stored = {**expected, "images": np.stack([np.asarray(image) for image in images])}
    config = ExtractorConfig(
        kind="image",
        model=extractor.model_id,
        revision=extractor.revision,
        fingerprint=extractor.fingerprint,
        transform=extractor.transform.to_dict(),
    )
    return Bundle(config, {GRAPHS["image"]: content, INPUTS: pack(stored)})


def drawn_images(side: int) -> list[Image.Image]:
    """Two pictures that every machine draws alike: waves of colour, and edges on them."""
    y, x = np.mgrid[0:side, 0:side] / side
    waves = [
        127.5 + 127.5 * np.sin(2 * np.pi * (a * x + b * y)) for a, b in ((1, 2), (3, 1), (2, 5))
    ]
    smooth = np.stack(waves, axis=-1).astype(np.uint8)
    edged = np.where((np.hypot(x - 0.5, y - 0.5) < 0.3)[..., None], 255 - smooth, smooth)
    return [Image.fromarray(smooth), Image.fromarray(edged.astype(np.uint8))]


def tokenizer_of(extractor: TextExtractor) -> bytes:
    """The extractor's tokenizer.json, which must give the same tokens without transformers.

    Raises
    ------
    UsageError
        A tokenizer that has no such form.
    ExportError
        One whose tokens differ.
    """
    from tokenizers import Tokenizer

    backend = getattr(extractor.tokenizer, "backend_tokenizer", None)
    if backend is None:
        raise UsageError(
            f"the tokenizer of {extractor.model_id} is a slow one, without a tokenizer.json: "
            "convert it with transformers first"
        )
    text: str = backend.to_str()
    alone = Tokenizer.from_str(text)
    alone.no_padding()
    alone.enable_truncation(extractor.max_length)
    words = " ".join(sample_texts()[:60])
    hard = ["", " ", "\t\n", "É日本語 😀 naïve", "a" * 300, "[MASK] <s> </s>", words, words[:999]]
    texts = [*hard, *sample_texts()[:300]]
    found = [one.ids for one in alone.encode_batch([extractor.recipe.prepared(t) for t in texts])]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that some are cut is meant
        expected = extractor.tokenize(texts)
    for ours, theirs, given in zip(found, expected, texts, strict=True):
        if ours != theirs:
            raise ExportError(f"tokenizer.json alone gives other tokens for {given!r:.60}")
    return text.encode()


def parity_feeds(extractor: TextExtractor) -> list[Feed]:
    """Real tokens in batches of 1, 7 and 256 texts, of 1 token to as many as are kept."""
    longest = min(extractor.max_length, 512)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that some are cut is meant
        stream = [ids for tokens in extractor.tokenize(sample_texts()) for ids in tokens[1:-1]]
    rng = np.random.default_rng(0)
    batches = [[1], [2], [longest // 3], [longest]]
    batches += [[1, 2, 5, 17, longest // 4, longest // 2, longest]]
    # As many as would fit with long texts, too, were it not for the time.
    batches += [list(rng.integers(1, min(48, longest), 256))]
    feeds = []
    for lengths in batches:
        starts = rng.integers(0, len(stream) - longest, len(lengths))
        tokens = [stream[at : at + max(1, n)] for at, n in zip(starts, lengths, strict=True)]
        ids, mask = padded(tokens, extractor.padding)
        feeds.append({"input_ids": ids, "attention_mask": mask})
    return feeds


def _expected(compressor: Compressor, embeddings: Floats) -> Arrays:
    """What torch makes of embeddings, under the names of the graph's outputs."""
    found: Arrays = {"embeddings": embeddings}
    if compressor.latent_tower_ is not None:
        found["latents"] = np.asarray(compressor.transform(embeddings))
    if compressor.code_tower_ is not None:
        found["codes"] = compressor.encode(embeddings)
    return found


def compare(got: Arrays, expected: Arrays, batch: str) -> None:
    """Compare a graph's outputs with torch's.

    Raises
    ------
    ExportError
        Naming the output, the batch and the difference.
    """
    for name, wanted in expected.items():
        found = got[name]
        if found.shape != wanted.shape or found.dtype != wanted.dtype:
            raise ExportError(f"{name} of {batch} have shape {found.shape}, not {wanted.shape}")
        if name == "codes":
            differing = float((found != wanted).mean())
            if differing > CODE_TOLERANCE:
                raise ExportError(
                    f"codes of {batch} differ from torch's in {differing:.1%} of bytes"
                )
            continue
        difference = float(np.abs(found - wanted).max())
        if not difference <= TOLERANCE * float(np.abs(wanted).max()):
            raise ExportError(f"{name} of {batch} differ from torch's by up to {difference:.2e}")
