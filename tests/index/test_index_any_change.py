"""Any sequence of changes: a search is brute force over what is live."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test
from samples import curved, write_embeddings

from embedpress.index.build import build_index
from embedpress.index.change import add_to_index, compact_index, delete_from_index
from embedpress.index.scan import Scan
from embedpress.index.search import open_index
from embedpress.onnx.compress import compress
from embedpress.onnx.compressor import load

POOL = 40
X = curved(2 * POOL, seed=8)
QUERIES = curved(4, seed=10)


class Changes(RuleBasedStateMachine):
    """Two vectors an id: the second one takes the place of the first by "replace"."""

    model: Path
    factory: str
    what: str

    def __init__(self) -> None:
        super().__init__()
        self.home = Path(tempfile.mkdtemp())
        self.compressor = load(self.model, num_threads=1)
        self.scan = Scan(self.compressor, self.what)
        self.made = 0
        source = self.source([(i, i) for i in range(12)])
        build_index(source, self.model, self.index, factory=self.factory, num_threads=1)
        self.live = {i: i for i in range(12)}

    @property
    def index(self) -> Path:
        return self.home / "index"

    def source(self, rows: list[tuple[int, int]]) -> Path:
        """A folder of codes of (id, vector) pairs."""
        self.made += 1
        x, out = self.home / f"x{self.made}", self.home / f"codes{self.made}"
        ids, at = [i for i, _ in rows], [v for _, v in rows]
        write_embeddings(x, X[at], ids=ids, metadata={"third": [i % 3 for i in ids]})
        compress(x, self.model, out, what=self.what, num_threads=1)
        return out

    @rule(
        ids=st.sets(st.integers(0, POOL - 1), min_size=1, max_size=8),
        second=st.booleans(),
        existing=st.sampled_from(["replace", "skip"]),
    )
    def add(self, ids: set[int], second: bool, existing: str) -> None:
        rows = [(i, i + POOL * second) for i in sorted(ids)]
        known = self.live.keys() & ids
        changed = add_to_index(
            self.source(rows), self.model, self.index, existing=existing, num_threads=1
        )
        replaced = len(known) if existing == "replace" else 0
        skipped = len(known) if existing == "skip" else 0
        assert (changed.replaced, changed.skipped) == (replaced, skipped)
        assert changed.added == len(ids) - skipped
        self.live |= {i: v for i, v in rows if existing == "replace" or i not in known}

    @rule(ids=st.sets(st.integers(0, POOL), max_size=8))
    def delete(self, ids: set[int]) -> None:
        changed = delete_from_index(self.index, ids=sorted(ids))
        gone = self.live.keys() & ids
        assert (changed.deleted, changed.not_found) == (len(gone), len(ids) - len(gone))
        self.live = {i: v for i, v in self.live.items() if i not in ids}

    @rule(third=st.integers(0, 3))
    def delete_by_filter(self, third: int) -> None:
        delete_from_index(self.index, filter=f"third == {third}")
        self.live = {i: v for i, v in self.live.items() if i % 3 != third}

    @rule()
    def compact(self) -> None:
        compact_index(self.index, memory_budget=3_000)

    @invariant()
    def searches_are_brute_force(self) -> None:
        index = open_index(self.index, self.compressor)
        assert len(index) == len(self.live)
        for third in (None, 1):
            ids = [i for i in sorted(self.live) if third is None or i % 3 == third]
            filter = None if third is None else f"third == {third}"
            hits = index.search(QUERIES, 7, filter=filter, nprobe=99)
            found = index.ids(hits.rows)
            if not ids:
                assert all(set(line) == {None} for line in found)
                continue
            x = X[[self.live[i] for i in ids]]
            stored = (
                self.compressor.encode(x)
                if self.what == "codes"
                else (self.compressor.transform(x))
            )
            scores = self.scan.queries(QUERIES) @ self.scan.latents(stored).T
            best = -np.sort(-scores, axis=1)[:, :7]
            n = best.shape[1]
            np.testing.assert_allclose(hits.scores[:, :n], best, atol=1e-4)
            own = [[scores[q, ids.index(i)] for i in line[:n]] for q, line in enumerate(found)]
            np.testing.assert_allclose(own, best, atol=1e-4)
            assert all(len(set(line[:n])) == n for line in found)
            assert all(i is None for line in found for i in line[n:])

    def teardown(self) -> None:
        shutil.rmtree(self.home)


@pytest.mark.parametrize(("what", "factory"), [("codes", "Flat"), ("codes", "IVF3")])
def test_any_sequence_of_changes(saved: Callable[..., Path], what: str, factory: str) -> None:
    machine: Any = type("Machine", (Changes,), {"model": saved(), "what": what, "factory": factory})
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=6,
            stateful_step_count=8,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
