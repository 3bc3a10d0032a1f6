"""A question (a text, a photo, a file of vectors) as query embeddings."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from embedpress.errors import MismatchError, UsageError
from embedpress.vectors import open_vectors


def embed_question(
    *,
    text: str | None = None,
    image: str | Path | None = None,
    vectors: str | Path | None = None,
    extractor: str | None,
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
    extractor : str or None
        Model that embeds a text or a photo: the one that made the index's embeddings.
    weights : str or None
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
        The embeddings have another dimension.
    """
    if sum(asked is not None for asked in (text, image, vectors)) != 1:
        raise UsageError("ask with exactly one of --text, --image and --vectors")
    if vectors is not None:
        found = open_vectors(vectors, metric=None if Path(vectors).is_dir() else metric)
        embeddings = found.read(columns=()).vectors
    elif extractor is None:
        raise UsageError("the index does not say what made its embeddings: name --extractor")
    elif text is not None:
        from embedpress.extract.text import TextExtractor

        embeddings = TextExtractor(extractor, num_threads=num_threads).encode([text])
    else:
        from embedpress.extract.image import ImageExtractor
        from embedpress.extract.images import load_image

        resnet = ImageExtractor(extractor, weights=weights, num_threads=num_threads)
        embeddings = resnet.encode([load_image(Path(str(image)))])
    if embeddings.shape[1] != dim:
        raise MismatchError(
            f"the question has {embeddings.shape[1]} dimensions, the compressor takes {dim}: "
            "ask with the extractor that made the index's embeddings"
        )
    return np.ascontiguousarray(embeddings, dtype=np.float32)
