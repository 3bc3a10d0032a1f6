"""What is written in blocks stays within its budget, measured in a process of its own."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

COMMON = """
import json, re, sys
from pathlib import Path
import faiss
import numpy as np
from embedpress.index.faiss_file import write_inverted
from embedpress.index.lists import ListsOfFile
from embedpress.index.parts import assigned_parts
from embedpress.index.rerank import RerankTier, stored_form, write_tier
from embedpress.index.unfinished import Unfinished

def peak():
    return 1024 * int(re.search(r"VmHWM:\\s+(\\d+)", open("/proc/self/status").read())[1])

home, budget = Path(sys.argv[1]), int(sys.argv[2])
rows, size, n_lists, block = 1_500_000, 64, 200, 50_000
lists = faiss.IndexFlat(size, faiss.METRIC_L2)
lists.add(np.zeros((n_lists, size), np.float32))
index = faiss.IndexIVFPQ(lists, size, n_lists, size, 8)
index.by_residual = False
rng = np.random.default_rng(0)
work = Unfinished(home, {})
"""
INVERTED = """
before = peak()
def blocks(done):
    for low in range(done, rows, block):
        yield rng.integers(0, 256, (block, size), dtype=np.uint8)
def parts():
    assign = lambda codes: rng.integers(0, n_lists, len(codes))
    return assigned_parts(
        work, n_lists, size, blocks, assign, rows=rows, budget=budget
    )
frame, sizes = write_inverted(work, home / "index", index, parts, budget)
kept = np.tile([False, True, True], rows // 3)
keep = np.cumsum(kept)
keep -= 1
keep[~kept] = -1
old = ListsOfFile(home / "index", frame.start, sizes, size, keep)
(home / "other").mkdir()
other = Unfinished(home / "other", {})
write_inverted(other, home / "compacted", index, lambda: [old], budget)
written = (home / "compacted").stat().st_size + frame.size
"""
TIER = """
before = peak()
paths = home / "rerank", home / "scales"
def blocks(done):
    for low in range(0, rows // 10, 5_000):
        yield stored_form(rng.normal(size=(5_000, 384)).astype(np.float32), "float32")
with work.growing("rerank", *paths) as growth:
    write_tier(growth, "float32", rows // 10, 384, blocks)
tier = RerankTier(*paths, "float32", rows // 10, 384)
queries = rng.normal(size=(500, 384)).astype(np.float32)
tier.scores(queries, rng.integers(0, 1_000, (500, 200)), "ip")
written = paths[0].stat().st_size
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("body", [INVERTED, TIER], ids=["inverted file", "tier"])
def test_the_peak_of_memory(tmp_path: Path, body: str) -> None:
    budget = 16 << 20
    script = COMMON + body + "print(json.dumps([before, peak(), written]))"
    done = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path), str(budget)],
        check=True,
        capture_output=True,
        text=True,
    )
    before, after, written = json.loads(done.stdout.splitlines()[-1])
    assert written > 170 << 20
    # Rows of a block, a number a row, and 64 MiB of candidates at once, but never the whole.
    assert after - before < 150 << 20, (before, after)
