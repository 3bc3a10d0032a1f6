"""Figures and tables of the benchmarks from made-up measurements that are counted by hand."""

from __future__ import annotations

import asyncio
import io
import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("torch")

ROOT = Path(__file__).parents[2]


def test_a_table_of_clusters_tells_of_every_seed() -> None:
    from insight_tables import cluster_lines

    def row(seed: int, latents: float) -> dict[str, Any]:
        forms = {
            "embeddings": {"nmi": [0.75, 0.85], "seconds": [1.0, 3.0]},
            "latents": {"nmi": [latents], "seconds": [0.5]},
            "pca": {"nmi": [0.6], "seconds": [0.1]},
        }
        return {"dataset": "bank", "seed": seed, "rows": 1234, "dim": 8, "clusters": 7, **forms}

    *_, line = cluster_lines([row(0, 0.78), row(1, 0.82)])
    cells = [cell.strip() for cell in line.strip("|").split("|")]
    assert cells[:3] == ["bank", "1,234 x 8", "7"]
    assert cells[3:] == [
        "0.800", "0.800", "+0.020, -0.020", "0.600", "4.0 to 4.0 times as fast",
    ]  # fmt: skip


def test_tables_of_drift_and_of_the_report() -> None:
    from insight_tables import drift_lines, report_lines

    kind = {"name": "noise", "draws": 20, "alarms": 0.95, "shift": 0.25, "recall": 0.5}
    head, _, line = drift_lines({"rows": 1000, "kinds": [kind]})
    assert head.startswith("| 1,000 vectors that are |")
    assert line == "| noise | 20 | 95.0% | 0.250 | 0.500 |"
    one = {"name": "codes", "bytes": 1532}
    point = {"name": "nprobe 8", "recall": 0.7, "difference": -0.05, "microseconds": 99.6}
    lines = report_lines(
        {
            "depths": [{**one, "k": 10, "recall": 0.75}, {**one, "k": 1, "recall": 0.5}],
            "relevance": [{**one, "ndcg": 0.25, "mrr": 0.125}],
            "index": {"form": "codes", "scan": 0.75, "factory": "IVF8", "points": [point]},
        }
    )
    assert lines[0] == "| stored as | bytes | recall@1 | recall@10 | nDCG@10 | MRR@10 |"
    assert lines[2] == "| codes | 1,532 | 0.500 | 0.750 | 0.250 | 0.125 |"
    assert lines[-1] == "IVF8, nprobe 8: recall@10 0.700 (-0.050), 100 µs"


def test_a_table_of_scale_counts_the_processor_apart() -> None:
    from tables import scale_lines

    job = {
        "seconds": 4.0, "rows_per_second": 250.0, "cpu_seconds": 2.0, "outside_encoder_cpu": 0.125,
        "peak_bytes": 3 * 2**20, "bytes_per_vector": 33.14,
    }  # fmt: skip
    size = {"rows": 1000, "encoder_alone_per_second": 300.0, "compress": job}
    *_, line = scale_lines({"sizes": [size]})
    assert line == "| 1,000 | 4 | 250 | 300 | 500 | 12 % | 3 MiB | 33.1 |"


def test_latencies_are_of_answers_alone() -> None:
    from load import Load, table

    load = Load([0.01 * n for n in range(1, 101)], Counter({"200": 100, "429": 50}), elapsed=2.0)
    figures = load.figures()
    assert figures["requests"] == 150
    assert figures["per_second"] == 50
    assert figures["p50_ms"] == pytest.approx(505)
    assert figures["p99_ms"] == pytest.approx(990, abs=1)
    level = {"path": "/v1/search", "clients": 8, **figures}
    assert table({"levels": [level]}).splitlines()[-1].startswith("| `/v1/search` | 8 | 50 | 505")


def test_a_load_counts_answers_refusals_and_broken_connections() -> None:
    import load

    answers = ["200 OK", "429 Busy", "200 OK", None]
    asked = []

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            try:
                head = await reader.readuntil(b"\r\n\r\n")
            except asyncio.IncompleteReadError:
                break
            size = int(head.lower().split(b"content-length:")[1].split()[0])
            asked.append(json.loads(await reader.readexactly(size)))
            status = answers[(len(asked) - 1) % len(answers)]
            if status is None:
                break
            writer.write(f"HTTP/1.1 {status}\r\nContent-Length: 2\r\n\r\n{{}}".encode())
        writer.close()

    async def run() -> load.Load:
        server = await asyncio.start_server(answer, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        async with server:
            return await load.drive(f"http://127.0.0.1:{port}", "/v1/search", 1, 0.6, 0.0)

    load._TEXTS[:] = ["a", "b", "c"]
    try:
        seen = asyncio.run(run())
    finally:
        load._TEXTS.clear()
    # The first text is drawn before the clock starts; after that they come round and round.
    texts = [one["text"] for one in asked]
    assert texts[:4] == ["b", "c", "a", "b"]
    assert seen.statuses["200"] == pytest.approx(len(seen.seconds), abs=1)
    assert seen.statuses["429"] >= 2
    assert seen.without_retry_after == seen.statuses["429"]
    assert seen.statuses["no answer"] >= 2


def test_turns_are_timed_side_by_side() -> None:
    import serving

    order = []
    calls = {name: (lambda name=name: order.append(name)) for name in ("ours", "theirs")}
    seconds = serving.in_turns(calls, rounds=3)
    assert order == ["ours", "theirs"] * 4  # the first turn does not count
    assert [len(each) for each in seconds.values()] == [3, 3]
    times = {"ours": [1.0, 2.0, 4.0], "theirs": [3.0, 4.0, 4.0]}
    assert serving.ratio(times, "ours", "theirs") == 2


def test_the_smallest_setting_that_is_near_the_largest() -> None:
    from scale_index import smallest

    truth = np.arange(100).reshape(1, 100)
    tried = []

    def ask(setting: int) -> Any:
        tried.append(setting)
        found = np.where(truth < min(100, 10 * setting), truth, -1)
        return lambda queries: found

    # 10 of the 100 a step: from 10 on all are found.
    assert smallest(ask, np.zeros((1, 4), np.float32), truth, 64) == 10
    assert max(tried) == 64


def test_rerank_is_measured_by_the_hits_it_gives() -> None:
    import rerank

    class Index:
        def search(self, queries: np.ndarray, k: int, **options: Any) -> Any:
            rows = np.arange(k)[None].repeat(len(queries), axis=0) + options["shift"]
            return type("Hits", (), {"rows": rows})

    truth = np.arange(10)[None].repeat(20, axis=0)
    found = rerank.measure(Index(), np.zeros((20, 4), np.float32), truth, shift=4)  # type: ignore[arg-type]
    assert found["recall"] == pytest.approx(0.6)
    assert 0 < found["p50_ms"] <= found["p99_ms"]


def test_the_picture_of_the_map_is_made_smaller(tmp_path: Path) -> None:
    drawing = pytest.importorskip("map")
    Image.new("RGB", (300, 150), "white").save(tmp_path / "a.png")
    with Image.open(io.BytesIO(drawing.smaller(tmp_path / "a.png"))) as small:
        assert small.size == (200, 100)


@pytest.mark.parametrize("text", ["README.md", "CONTRIBUTING.md"])
def test_every_benchmark_is_told_of(text: str) -> None:
    told = (ROOT / text).read_text()
    programs = [
        path.name
        for path in (ROOT / "benchmarks").glob("*.py")
        if "Run: python benchmarks/" in path.read_text()
    ]
    assert len(programs) > 10
    assert [name for name in programs if name not in told] == []


def test_tables_of_nested_latents_and_of_indexes() -> None:
    from insight_tables import index_lines, nested_lines

    rows = [
        {"method": "nested", "seed": 0, "n_components": 16, "seen": 0.2, "unseen": 0.1},
        {"method": "nested", "seed": 1, "n_components": 16, "seen": 0.4, "unseen": 0.3},
        {"method": "pca", "n_components": 16, "seen": 0.05, "unseen": 0.04},
    ]
    assert nested_lines(rows)[2:] == ["| 16 | 64 | 0.300 / 0.200 | – | 0.050 / 0.040 |"]
    figures = {
        "factory": "Flat",
        "recall": 0.5,
        "build_seconds": 61.4,
        "memory_bytes": 3 << 20,
        "queries_per_second": 1234.0,
        "p50_ms": 0.5,
        "p99_ms": 1.25,
    }
    assert index_lines({"1000000": {"embedpress": figures}})[2:] == [
        "| 1,000,000 | **embedpress**, Flat | 0.500 | 61 s | 3 MiB | 1,234 | 0.50 / 1.25 ms |"
    ]


def test_indexes_of_both_benchmarks_stand_in_one_table() -> None:
    from tables import with_ours

    indexes = {"10": {"embedpress": 1, "peer": 2}, "30": {"peer": 3}, "90": {"peer": 4}}
    scale = {"sizes": [{"rows": 10, "index": 5}, {"rows": 30, "index": 6}, {"rows": 90}]}
    assert with_ours(indexes, scale) == {
        "10": {"embedpress": 1, "peer": 2},
        "30": {"embedpress": 6, "peer": 3},
        "90": {"peer": 4},
    }
    assert list(with_ours(indexes, scale)["30"]) == ["embedpress", "peer"]
