from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from push_samples import GONE, IDS, METADATA, N
from samples import curved, write_embeddings

from embedpress.index.build import build_index
from embedpress.index.change import delete_from_index
from embedpress.onnx.compress import compress


@pytest.fixture(scope="session")
def pushed_from(
    saved: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory
) -> Callable[..., Path]:
    """Indexes with string ids, metadata and a few deleted rows, by how they are built."""
    made: dict[tuple[str, str, str], Path] = {}

    def folder(what: str = "codes", factory: str = "Flat", metric: str = "cosine") -> Path:
        key = (what, factory, metric)
        if key not in made:
            home = tmp_path_factory.mktemp("pushed")
            model = saved(metric=metric, groups=2) if metric == "ip" else saved()
            write_embeddings(
                home / "x", curved(N, seed=2), ids=IDS, metadata=METADATA, metric=metric
            )
            compress(home / "x", model, home / "stored", what=what, num_threads=1)
            build_index(home / "stored", model, home / "index", factory=factory, num_threads=1)
            delete_from_index(home / "index", ids=GONE)
            made[key] = home / "index"
        return made[key]

    return folder
