"""What each data set of the benchmarks gives: a base to train on, another one, and queries."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from embedpress.evaluate.metrics import Judgements, true_neighbors

ROOT = Path(__file__).resolve().parent.parent
SCRIPTS = ROOT / "scripts"
METRIC = "cosine"
K = 10

Floats = NDArray[np.float32]

# The data sets use some functions of the scripts that fetch them.
sys.path.insert(0, str(SCRIPTS))


@dataclass(frozen=True)
class Split:
    """Embeddings: base (seen in training), unseen base, held-out queries.

    `judgements` holds for each query its relevant rows of base and unseen base, one after the
    other, with their grades; `sample` are queries that may be trained with.
    """

    base: Floats
    unseen: Floats
    queries: Floats
    judgements: Judgements | None = None
    sample: Floats | None = None

    @property
    def dim(self) -> int:
        """Dimensions of an embedding."""
        return self.base.shape[1]

    @property
    def bases(self) -> dict[str, Floats]:
        """What is searched, by the name of its recall."""
        return {"seen": self.base, "unseen": self.unseen}

    @cached_property
    def truths(self) -> dict[str, NDArray[np.int64]]:
        """The exact neighbours of each query, in either base."""
        return {
            name: true_neighbors(self.queries, base, K, metric=METRIC)
            for name, base in self.bases.items()
        }


def run_script(name: str, *options: object) -> None:
    """Run one of ``scripts/`` to its end."""
    subprocess.run([sys.executable, str(SCRIPTS / name), *map(str, options)], check=True)
