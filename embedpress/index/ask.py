"""A question (a text, a photo, a file of vectors) as query embeddings."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from embedpress.errors import MismatchError, UsageError
from embedpress.onnx.extractor import FILE
from embedpress.vectors import metric_for, open_vectors


def embed_question(
    *,
    text: str | None = None,
    image: str | Path | None = None,
    vectors: str | Path | None = None,
    made_by: Mapping[str, Any],
    extractor: str | None = None,
    weights: str | None = None,
    dim: int,
    metric: str,
    num_threads: int | None = None,
) -> NDArray[np.float32]:
    """Query embeddings of exactly one of `text`, `image` and `vectors`.

    Parameters
    ----------
    text, image, vectors
        What is asked.
    made_by : mapping
        What the index says of the extractor of its embeddings: model, pooling and settings.
    extractor : str, optional
        Where that model is now, if not where it was; or a folder of
        ``embedpress export --with-extractor``, which needs no torch.
    weights : str, optional
        Weights of a ResNet.
    dim : int
        Dimensions the compressor takes.
    metric : {"cosine", "ip", "l2"}
        Of the compressor, for a plain file of vectors.
    num_threads : int, optional

    Returns
    -------
    ndarray of shape (n, dim), float32

    Raises
    ------
    UsageError
        None or several are given, or no extractor is known.
    MismatchError
        The extractor or its embeddings are of another kind than the index's.
    """
    if sum(asked is not None for asked in (text, image, vectors)) != 1:
        raise UsageError("ask with exactly one of --text, --image and --vectors")
    if vectors is not None:
        found = open_vectors(vectors, metric=metric_for(vectors, metric))
        embeddings = found.read(columns=()).vectors
    else:
        model = extractor or made_by.get("model")
        if not isinstance(model, str):
            raise UsageError("the index does not say what made its embeddings: name --extractor")
        if text is not None:
            embeddings = _embed_text(text, model, made_by, num_threads)
        else:
            embeddings = _embed_image(Path(str(image)), model, weights, made_by, num_threads)
    if embeddings.shape[1] != dim:
        raise MismatchError(
            f"the question has {embeddings.shape[1]} dimensions, the compressor takes {dim}: "
            "ask with the extractor that made the index's embeddings"
        )
    return np.ascontiguousarray(embeddings, dtype=np.float32)


def has_encoder(folder: str | Path) -> bool:
    """Whether a compressor was exported with its extractor, which then asks without torch."""
    return (Path(folder) / FILE).is_file()


def _embed_text(
    text: str, model: str, made_by: Mapping[str, Any], num_threads: int | None
) -> NDArray[np.float32]:
    if has_encoder(model):
        from embedpress.onnx.runtime import TextEncoder

        encoder = TextEncoder(model, num_threads=num_threads)
        _check_same(encoder.config.fingerprint, made_by, model)
        return encoder.embed([text])
    from embedpress.extract.text import TextExtractor

    bert = TextExtractor(
        model,
        pooling=made_by.get("pooling"),
        normalize=made_by.get("normalized"),
        max_length=made_by.get("max_length"),
        num_threads=num_threads,
    )
    _check_same(bert.fingerprint, made_by, model)
    return bert.encode([text])


def _embed_image(
    image: Path,
    model: str,
    weights: str | None,
    made_by: Mapping[str, Any],
    num_threads: int | None,
) -> NDArray[np.float32]:
    if has_encoder(model):
        from embedpress.onnx.runtime import ImageEncoder

        encoder = ImageEncoder(model, num_threads=num_threads)
        _check_same(encoder.config.fingerprint, made_by, model)
        return encoder.embed([image])
    from embedpress.extract.image import ImageExtractor
    from embedpress.extract.images import load_image

    resnet = ImageExtractor(model, weights=weights, num_threads=num_threads)
    _check_same(resnet.fingerprint, made_by, f"{model} with {weights or 'its default weights'}")
    return resnet.encode([load_image(image)])


def _check_same(fingerprint: str, made_by: Mapping[str, Any], model: str) -> None:
    known = made_by.get("fingerprint")
    if known is not None and known != fingerprint:
        raise MismatchError(
            f"{model} is not the extractor that made the index's embeddings (fingerprint "
            f"{fingerprint[:12]}, the index's is {str(known)[:12]}): name that one"
        )
