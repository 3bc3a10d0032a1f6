"""pgvector takes the CSV file: PostgreSQL with the extension, built for Node (PGlite)."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from push_samples import GONE, IDS, METADATA
from samples import curved

from embedpress.index.search import open_index
from embedpress.onnx.runtime import load
from embedpress.push.rows import query_vectors
from embedpress.push.verb import push

SCRIPT = """
import { readFileSync } from 'node:fs'
import { PGlite } from '@electric-sql/pglite'
import { vector } from '@electric-sql/pglite/vector'
const { sql, file, query } = JSON.parse(readFileSync(0, 'utf8'))
const database = new PGlite({ extensions: { vector } })
const [extension, table, copy] = sql.split('\\n')
await database.exec(extension + table)
const blob = new Blob([readFileSync(file)])
await database.query(copy.replace('STDIN', "'/dev/blob'"), [], { blob })
const all = await database.query('SELECT * FROM items')
const nearest = 'SELECT id, -(vector <#> $1) AS score FROM items ORDER BY vector <#> $1 LIMIT 5'
const found = await database.query(nearest, [JSON.stringify(query)])
console.log(JSON.stringify({ all: all.rows, found: found.rows }))
"""


@pytest.mark.slow
@pytest.mark.network
def test_pgvector_finds_what_the_index_finds(
    pushed_from: Callable[..., Path], saved: Callable[..., Path], tmp_path: Path
) -> None:
    npm, node = shutil.which("npm"), shutil.which("node")
    if npm is None or node is None:
        pytest.skip("needs Node.js and npm")
    fetched = subprocess.run(
        [npm, "install", "--silent", "@electric-sql/pglite@0.2.17"],
        cwd=tmp_path,
        capture_output=True,
    )
    if fetched.returncode:
        pytest.skip("npm could not fetch @electric-sql/pglite")
    index = pushed_from("codes", "IVF5")
    pushed = push(index, saved(), f"csv:{tmp_path / 'items.csv'}", collection="items")
    query = curved(1, seed=11)
    asked = query_vectors(load(saved()), "codes", "latents", query, pushed.dim)
    (tmp_path / "run.mjs").write_text(SCRIPT)
    given = {"sql": pushed.sql, "file": str(tmp_path / "items.csv"), "query": asked[0].tolist()}
    done = subprocess.run(
        [node, "run.mjs"],
        cwd=tmp_path,
        input=json.dumps(given),
        capture_output=True,
        text=True,
        check=True,
    )
    result = json.loads(done.stdout)
    live = slice(len(GONE), None)
    assert [row["id"] for row in result["all"]] == IDS[live]
    for name in METADATA:
        # A missing value is missing, an empty text is empty, and quotes and lines are kept.
        assert [row[name] for row in result["all"]] == METADATA[name][live]
    opened = open_index(index, saved())
    hits = opened.search(query, 5, nprobe=5)
    scores = [row["score"] for row in result["found"]]
    np.testing.assert_allclose(scores, hits.scores[0], atol=1e-4)
    assert len({row["id"] for row in result["found"]} & set(opened.ids(hits.rows)[0])) >= 3
