"""Opens one hostile folder after the other; run by `test_door_fuzz.py`, and expected to live.

A line in, such as ``graph FOLDER latent_encoder.onnx``; a line out: what became of it.
"""

from __future__ import annotations

import resource
import sys
import traceback
from pathlib import Path

import numpy as np
from samples import curved

from embedpress import load
from embedpress.errors import EmbedpressError
from embedpress.extract.texts import open_texts
from embedpress.index.search import open_index
from embedpress.vectors import open_vectors

MEMORY = 4 << 30


def run_graph(folder: Path, name: str) -> None:
    """Whatever the file is good for."""
    compressor = load(folder, num_threads=1)
    embeddings = curved(2)
    if name == "latent_encoder.onnx":
        compressor.transform(embeddings)
    elif name == "code_encoder.onnx":
        compressor.encode(embeddings)
    elif name == "query_encoder.onnx":
        compressor.transform_queries(embeddings)
        compressor.encode_queries(embeddings)
    elif name == "decoder.onnx":
        compressor.inverse_transform(np.ones((2, compressor.n_components), np.float32))
    else:
        compressor.decode(np.ones((2, compressor.code_size), np.uint8))


def search_index(folder: Path, model: str) -> None:
    """Near vectors, and a few more of them."""
    index = open_index(folder, Path(model), num_threads=1)
    for k in (1, 5, 60):
        index.records(index.search(curved(3), k))


def read_vectors(folder: Path, name: str) -> None:
    """All rows, and the texts of a table."""
    for batch in open_vectors(folder / name).iter_batches(7):
        batch.metadata.to_pylist()
    if name.endswith((".parquet", ".arrow")):
        for _ in open_texts(folder / name).chunks(7):
            pass


READERS = {"graph": run_graph, "index": search_index, "vectors": read_vectors}


def answer(kind: str, folder: str, name: str) -> str:
    try:
        READERS[kind](Path(folder), name)
    except EmbedpressError as error:
        return "refused" if str(error).isprintable() else f"finding: {str(error)!r}"
    except BaseException:
        return f"finding: {traceback.format_exc()!r}"
    return "read"


if __name__ == "__main__":
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    for line in sys.stdin:
        sys.stdout.write(answer(*line.rstrip("\n").split("\t")) + "\n")
        sys.stdout.flush()
