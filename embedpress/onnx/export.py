"""ONNX files of a trained compressor, each checked against the network it came from."""

from __future__ import annotations

import hashlib
import json
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
from numpy.typing import NDArray

from embedpress import __version__
from embedpress.errors import ExportError, InputError, MismatchError, UsageError
from embedpress.extract.images import list_images
from embedpress.onnx import graph
from embedpress.onnx.builder import OPSET
from embedpress.onnx.bundle import Bundle
from embedpress.onnx.canary import INPUTS, VECTORS, pack
from embedpress.onnx.compressor import RERANKER_GRAPHS, read_config
from embedpress.onnx.extractor import FILE, TOKENIZER
from embedpress.onnx.extractor import GRAPHS as EXTRACTOR_GRAPHS
from embedpress.onnx.image_bundle import image_bundle
from embedpress.onnx.int8_bundle import int8_bundle
from embedpress.onnx.int8_image_bundle import int8_image_bundle
from embedpress.onnx.parity import difference_beyond, expected_of, vectors_like_those_of
from embedpress.onnx.sample import sample_texts
from embedpress.onnx.text_bundle import text_bundle
from embedpress.vectors.files import check_no_file, remove, storage_errors, write_atomic

if TYPE_CHECKING:
    from embedpress.autoencoder.estimator import Compressor
    from embedpress.extract.text import TextExtractor

PARITY_BATCHES = (1, 7, 256)
N_CANARIES = 16
MOST_TEXTS = 3000
"""Texts of a sample that are read."""
LONGEST_TEXT = 1 << 20
"""Characters of one of them; what goes beyond is the next one."""
GRAPHS = (
    "encoder.onnx",
    "query_encoder.onnx",
    "decoder.onnx",
    "code_decoder.onnx",
    "latent_encoder.onnx",
    "code_encoder.onnx",
    *RERANKER_GRAPHS,
)
"""All that a folder can have; one that an earlier compressor left there is removed."""
COPIED = ("model.safetensors", "metrics.json", "README.md")
TOLERANCE = 1e-4
"""Largest difference of a float output, relative to the largest value of the output."""
CODE_TOLERANCE = 1e-3
"""Share of vectors whose code may differ: distances to two codewords equal within rounding."""


def stamps(compressor: Compressor, config: dict[str, Any]) -> dict[str, str]:
    """What every graph says of itself in its metadata."""
    return {
        "fingerprint": config["fingerprint"],
        "metric": compressor.metric,
        "normalization": "l2" if compressor.metric == "cosine" else "none",
        "opset": str(OPSET),
        "embedpress": __version__,
        "onnx": onnx.__version__,
    }


def write_graphs(compressor: Compressor, config: dict[str, Any], folder: Path) -> dict[str, str]:
    """Write every graph of a compressor to `folder`, after its parity check.

    Parameters
    ----------
    compressor : Compressor
        Fitted.
    config : dict
        Of config.json, with the fingerprint.
    folder : Path

    Returns
    -------
    dict of str to str
        sha256 of each file written, for config.json.

    Raises
    ------
    ExportError
        A graph whose results differ from the network's; no file is written.
    """
    latents, codes = compressor.latent_tower_, compressor.code_tower_
    dim, scale = compressor.n_features_in_, compressor.scale_
    stamp = stamps(compressor, config)
    models = {
        "encoder.onnx": graph.encoder_graph(scale, dim, latents, codes, stamp),
        "query_encoder.onnx": graph.encoder_graph(scale, dim, latents, codes, stamp, queries=True),
    }
    if latents is not None:
        models["decoder.onnx"] = graph.decoder_graph(scale, dim, latents, stamp)
    if codes is not None:
        models["code_decoder.onnx"] = graph.decoder_graph(scale, dim, codes, stamp)
    reranker = compressor.reranker_
    if reranker is not None and codes is not None and codes.quantizer is not None:
        documents, queries = RERANKER_GRAPHS
        models[documents] = graph.rerank_documents_graph(reranker, codes.quantizer, stamp)
        models[queries] = graph.rerank_queries_graph(scale, dim, reranker, stamp)
    if latents is not None and codes is not None:
        # ONNX Runtime computes every output of a graph, wanted or not.
        models["latent_encoder.onnx"] = graph.encoder_graph(scale, dim, latents, None, stamp)
        models["code_encoder.onnx"] = graph.encoder_graph(scale, dim, None, codes, stamp)
    for name, model in models.items():
        check_parity(compressor, name, model)
    contents = {name: model.SerializeToString(deterministic=True) for name, model in models.items()}
    contents[VECTORS] = pack(expected_of(compressor, vectors_like_those_of(compressor, N_CANARIES)))
    sums = {}
    for name, content in sorted(contents.items()):
        write_atomic(folder / name, content)
        sums[name] = hashlib.sha256(content).hexdigest()
    for name in GRAPHS:
        if name not in models:
            remove(folder / name)
    return sums


def check_parity(compressor: Compressor, name: str, model: onnx.ModelProto) -> None:
    """Compare a graph with the network at several batch sizes.

    Raises
    ------
    ExportError
        Naming the graph, the output and the largest difference.
    """
    import onnxruntime

    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    port = session.get_inputs()[0].name
    for batch in PARITY_BATCHES:
        x = vectors_like_those_of(compressor, batch, seed=batch)
        if port == "latents":
            x = np.asarray(compressor.transform(x))
        elif port == "codes":
            x = compressor.encode(x)
        outputs = [output.name for output in session.get_outputs()]
        for output, got in zip(outputs, session.run(outputs, {port: x}), strict=True):
            _compare(
                f"{name}: {output} at batch {batch}", got, _expected(compressor, name, output, x)
            )


def _expected(compressor: Compressor, name: str, output: str, x: NDArray[Any]) -> NDArray[Any]:
    if name == "decoder.onnx":
        return compressor.inverse_transform(x)
    if name == "code_decoder.onnx":
        return compressor.decode(x)
    if output == "codes":
        return compressor.encode(x)
    if output == "code_queries":
        return compressor.encode_queries(x)
    if output == "documents":
        return compressor.rerank_documents(x)
    if output == "queries":
        return compressor.rerank_queries(x)
    if "query" in name:
        return compressor.transform_queries(x)
    # set_output() may have made transform give a table.
    return np.asarray(compressor.transform(x))


def _compare(what: str, got: NDArray[Any], expected: NDArray[Any]) -> None:
    if got.shape != expected.shape:
        raise ExportError(f"{what} has shape {got.shape}, the network gives {expected.shape}")
    if got.dtype == np.uint8:
        differing = float((got != expected).any(axis=1).mean())
        if differing > max(CODE_TOLERANCE, 1 / len(got) if len(got) > 1 else 0):
            raise ExportError(f"{what} differ from the network's in {differing:.1%} of vectors")
        return
    difference = difference_beyond(got, expected, TOLERANCE)
    if difference is not None:
        raise ExportError(f"{what} differ from the network's by up to {difference:.2e}")


def make_bundle(
    compressor: Compressor,
    config: dict[str, Any],
    model: str | Path,
    weights: str | Path | None,
    int8: bool,
    sample: str | Path | None,
    num_threads: int | None,
) -> Bundle:
    """The extractor named `model` with the compressor behind it, checked."""
    from embedpress.extract.image import MODELS, ImageExtractor

    source, marks = config["source"], stamps(compressor, config)
    if str(model) in MODELS:
        photos = _sample_photos(int8, sample)
        images = ImageExtractor(str(model), weights=weights, num_threads=num_threads)
        _check_same(source, images.fingerprint, str(model))
        if photos is not None:
            return int8_image_bundle(compressor, images, marks, photos, num_threads)
        return image_bundle(compressor, images, marks, num_threads)
    if weights is not None:
        raise UsageError("weights are for a ResNet: a text model's lie in its folder")
    texts = _text_extractor(source, model, num_threads)
    if not int8:
        if sample is not None:
            raise UsageError("a sample of texts is for int8: add it, or leave the sample out")
        return text_bundle(compressor, texts, marks, num_threads)
    given = sample_texts() if sample is None else _read_sample(Path(sample))
    return int8_bundle(compressor, texts, marks, given, num_threads)


def _sample_photos(int8: bool, sample: str | Path | None) -> list[Path] | None:
    """The photos that int8 is judged on; None for float32."""
    if not int8:
        if sample is not None:
            raise UsageError("a sample of photos is for int8: add it, or leave the sample out")
        return None
    if sample is None:
        raise UsageError("int8 of a ResNet is judged on photos: give a folder of them as sample")
    return [photo.path for photo in list_images(sample)]


def _read_sample(path: Path) -> list[str]:
    """Texts of a file, a line each; empty lines are passed over."""
    if not path.is_file():
        raise UsageError(f"no such file of texts: {path}")
    try:
        with path.open(encoding="utf-8") as file:
            stripped = (line.strip() for line in iter(lambda: file.readline(LONGEST_TEXT), ""))
            return list(islice((line for line in stripped if line), MOST_TEXTS))
    except UnicodeDecodeError:
        raise InputError(f"{path} is not UTF-8 text, a line each") from None


def _text_extractor(
    source: dict[str, Any], model: str | Path, num_threads: int | None
) -> TextExtractor:
    """The text model as the compressor's embeddings were made with it."""
    from embedpress.extract.text import TextExtractor

    extractor = TextExtractor(
        model,
        pooling=source.get("pooling"),
        normalize=source.get("normalized"),
        max_length=source.get("max_length"),
        num_threads=num_threads,
    )
    _check_same(source, extractor.fingerprint, str(model))
    return extractor


def _check_same(source: dict[str, Any], fingerprint: str, model: str) -> None:
    known = source.get("extractor fingerprint")
    if known is not None and known != fingerprint:
        raise MismatchError(
            f"{model} is not the extractor that the compressor was fitted for (fingerprint "
            f"{fingerprint[:12]}, it was {str(known)[:12]}): name that one"
        )


def export(
    model: str | Path,
    out: str | Path,
    *,
    with_extractor: str | Path | None = None,
    weights: str | Path | None = None,
    int8: bool = False,
    sample: str | Path | None = None,
    format: str = "onnx",
    num_threads: int | None = None,
) -> list[str]:
    """Write what production needs of a compressor: graphs, configuration, codebooks, card.

    Parameters
    ----------
    model : str or Path
        A compressor folder.
    out : str or Path
        The folder to write; :func:`embedpress.load` opens it without torch.
    with_extractor : str or Path, optional
        Folder or hub id of the text model that made the embeddings, or the name of a ResNet: one
        graph from tokens or pixels to codes is written, too, for
        :class:`~embedpress.onnx.text.TextEncoder` or :class:`~embedpress.onnx.image.ImageEncoder`.
    weights : str or Path, optional
        Of a ResNet; see :class:`~embedpress.extract.image.ImageExtractor`.
    int8 : bool
        Quantize the extractor's dense layers or convolutions; see :mod:`embedpress.onnx.int8` and
        :mod:`embedpress.onnx.int8_conv`.
    sample : str or Path, optional
        What int8 is judged on: a file of texts, by default glosses of WordNet, or a folder of
        photos, which a ResNet needs.
    format : {"onnx", "sentence-transformers"}
        The latter writes a folder of that library; see
        :func:`embedpress.autoencoder.dense_stack.write_sentence_transformer`.
    num_threads : int, optional

    Returns
    -------
    list of str
        Names of the files written.

    Raises
    ------
    UsageError, FormatError
        No compressor there, or not a whole one; a network that cannot be exported.
    MismatchError
        Another extractor than the one that made the embeddings.
    ExportError
        A graph whose results differ from the network's, or int8 that loses too much.
    """
    from embedpress.autoencoder.dense_stack import write_sentence_transformer
    from embedpress.autoencoder.pretrained import load_compressor
    from embedpress.extract.image import MODELS as RESNETS

    source, folder = Path(model), Path(out)
    compressor = load_compressor(source)
    check_no_file(folder)
    if folder.resolve() == source.resolve():
        raise UsageError("export to another folder than the compressor's own")
    if with_extractor is None and (int8 or weights is not None or sample is not None):
        raise UsageError("int8, weights and sample belong to an extractor: name it, too")
    config = read_config(source)
    if format == "sentence-transformers":
        if with_extractor is None or int8 or sample is not None or str(with_extractor) in RESNETS:
            raise UsageError("sentence-transformers takes a text model in float32: name it")
        texts = _text_extractor(config["source"], with_extractor, num_threads)
        return write_sentence_transformer(compressor, texts, folder)
    if format != "onnx":
        raise UsageError(f"format={format!r} must be onnx or sentence-transformers")
    bundle: Bundle | None = None
    if with_extractor is not None:
        bundle = make_bundle(compressor, config, with_extractor, weights, int8, sample, num_threads)
    with storage_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
    # config.json goes last: a folder without one is not yet a compressor.
    remove(folder / "config.json")
    config["sha256"] = write_graphs(compressor, config, folder)
    for name in (FILE, TOKENIZER, INPUTS, *EXTRACTOR_GRAPHS.values()):
        if bundle is None or name not in bundle.files:
            remove(folder / name)
    if bundle is not None:
        config["sha256"] |= bundle.write(folder)
    copied = [name for name in COPIED if (source / name).is_file()]
    for name in copied:
        write_atomic(folder / name, (source / name).read_bytes())
    write_atomic(folder / "config.json", json.dumps(config, indent=2) + "\n")
    written = [*config["sha256"], *copied, "config.json"]
    return sorted(written if bundle is None else [*written, FILE])
