"""What production does with a compressor: compress, index, search. Run as a program."""

from __future__ import annotations

import json
import sys
from pathlib import Path


def main(model: str, embeddings: str, queries: str, out: str) -> None:
    import numpy as np

    import embedpress

    compressor = embedpress.load(model, num_threads=1)
    work = Path(out)
    results = {}
    asked = np.load(queries)
    for what in ("codes", "latents"):
        embedpress.compress(embeddings, model, work / what, what=what, num_threads=1)
        embedpress.build_index(
            work / what,
            model,
            work / f"{what}.index",
            factory="IVF4" if what == "latents" else "Flat",
            rerank="float16" if what == "codes" else "none",
            vectors=embeddings,
            num_threads=1,
        )
        index = embedpress.open_index(work / f"{what}.index", model, num_threads=1)
        hits = index.search(asked, k=5)
        kept = index.search(asked, k=5, filter="id < 100", rerank=False)
        results[what] = embedpress.open_vectors(work / what).read().vectors
        for name, found in (("hits", hits), ("kept", kept)):
            results[f"{what}_{name}_rows"] = found.rows
            results[f"{what}_{name}_scores"] = found.scores
    results["decoded"] = compressor.decode(results["codes"])
    np.savez(work / "results.npz", **results)
    names = ("torch", "sklearn", "transformers", "onnx", "matplotlib", "embedpress.autoencoder")
    print(json.dumps([name for name in names if sys.modules.get(name) is not None]))  # noqa: T201


if __name__ == "__main__":
    main(*sys.argv[1:])
