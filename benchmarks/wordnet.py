"""WordNet for the benchmarks: 117,791 glosses through all-MiniLM-L6-v2.

60,000 of them, drawn by seed 0, are 58,000 base vectors and 2,000 held-out queries; the others
are a base that no method was trained on. Fetched and embedded once, into ``data/wordnet``.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from split import ROOT, Split, run_script

from embedpress.errors import UsageError
from embedpress.extract.job import extract_text
from embedpress.vectors import open_vectors

DATA = ROOT / "data" / "wordnet"
N_BASE, N_QUERIES = 58_000, 2_000


def embeddings_folder() -> Path:
    """The folder of all glosses' embeddings, made where it is missing."""
    from demo import minilm_folder

    glosses = DATA / "glosses.parquet"
    DATA.mkdir(parents=True, exist_ok=True)
    run_script("fetch_wordnet.py", "-o", glosses)
    folder = DATA / "embeddings"
    extract_text(glosses, folder, model=minilm_folder(), id_column="id")
    return folder


def load_split(n_base: int = N_BASE) -> Split:
    """The benchmark's vectors; a smaller `n_base` for a quick look."""
    if n_base > N_BASE:
        raise UsageError(f"a base of {n_base:,} would hold the queries: give at most {N_BASE:,}")
    vectors = open_vectors(embeddings_folder()).read(columns=()).vectors
    order = np.random.default_rng(0).permutation(len(vectors))
    drawn, others = order[: N_BASE + N_QUERIES], order[N_BASE + N_QUERIES :]
    return Split(
        base=np.ascontiguousarray(vectors[drawn[:n_base]]),
        unseen=np.ascontiguousarray(vectors[others[:n_base]]),
        queries=np.ascontiguousarray(vectors[drawn[N_BASE:]]),
    )
