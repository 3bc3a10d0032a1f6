"""The memory budget holds for the whole process, whatever the input looks like."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from samples import DIM, curved

ROOT = Path(__file__).parents[2]
STATUS = Path("/proc/self/status")
BUDGET, ROWS = 300, 1_000_000
# Not ru_maxrss, which starts with what the parent held.
PROGRAM = """
import re, sys
from embedpress.cli import main
try:
    main()
finally:
    print(re.search(r"VmHWM:\\s+(\\d+)", open("/proc/self/status").read())[1])
"""


@pytest.mark.slow
@pytest.mark.skipif(not STATUS.exists(), reason="only Linux tells the peak of a process")
@pytest.mark.parametrize("form", ["npy", "fortran", "parquet"])
def test_the_peak_stays_within_the_budget(
    saved: Callable[..., Path], tmp_path: Path, form: str
) -> None:
    x = np.tile(curved(1000).astype(np.float64), (ROWS // 1000, 1))
    if form == "parquet":
        # One row group of everything: its pages have to be read one by one.
        path = tmp_path / "x.parquet"
        column = pa.FixedSizeListArray.from_arrays(pa.array(x.reshape(-1)), DIM)
        pq.write_table(pa.table({"vector": column}), path, row_group_size=ROWS)
        assert pq.ParquetFile(path).num_row_groups == 1
    else:
        path = tmp_path / "x.npy"
        np.save(path, np.asfortranarray(x) if form == "fortran" else x)
    del x
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, "compress", str(path), "-m", str(saved()),
         "-o", str(tmp_path / "out"), "--memory-budget", f"{BUDGET}M", "--num-threads", "1",
         "--json"],
        capture_output=True, text=True, env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    result, peak = done.stdout.strip().splitlines()[-2:]
    assert json.loads(result)["count"] == ROWS
    # The file alone is 244 MiB, and an empty process about 100.
    assert int(peak) / 1024 < BUDGET
