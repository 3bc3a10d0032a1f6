"""A server under load, on the loopback: rates, latencies, refusals, memory, a killed worker.

Serves 117,791 WordNet glosses as 32-byte codes with MiniLM in front (trained for a minute: how well
does not change the speed), and asks it with their texts, in clients that each wait for their
answer before they ask again. Clients and server share the processors, so that a dedicated server
is faster. Writes ``benchmarks/results/load.json`` and prints the README's table.

Run: python benchmarks/load.py [--minutes 10]
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import urlsplit

import numpy as np
import typer
from split import ROOT
from wordnet import embeddings_folder

from embedpress.threads import available_threads
from embedpress.vectors import open_vectors

RESULTS = Path(__file__).parent / "results"
WORK = ROOT / "data" / "load"
CLIENTS = (1, 8, 64, 256)
PATHS = ("/v1/search", "/v1/embeddings")
NAME = "model"
WARM_UP = 2.0
SMALL_QUEUE = 32


@dataclass
class Load:
    """What clients saw: seconds of each answer in time, and how many of each status."""

    seconds: list[float] = field(default_factory=list)
    statuses: Counter[str] = field(default_factory=Counter)
    elapsed: float = 0.0
    without_retry_after: int = 0

    def figures(self) -> dict[str, Any]:
        """Rates and latencies in milliseconds of the answers that were not refusals."""
        p50, p95, p99 = 1000 * np.percentile(self.seconds, (50, 95, 99))
        return {
            "requests": sum(self.statuses.values()),
            "statuses": dict(self.statuses),
            "per_second": round(len(self.seconds) / self.elapsed, 1),
            "p50_ms": round(float(p50), 1),
            "p95_ms": round(float(p95), 1),
            "p99_ms": round(float(p99), 1),
        }


def command(*arguments: object) -> None:
    """Run a command of embedpress to its end."""
    subprocess.run([sys.executable, "-c", MAIN, *map(str, arguments)], check=True)


MAIN = "if __name__ == '__main__':\n    from embedpress.cli import main\n    main()"


def prepare() -> tuple[Path, Path]:
    """The index and the compressor with its extractor, made once."""
    from demo import minilm_folder

    embeddings, model, index = embeddings_folder(), WORK / NAME, WORK / "index"
    if not (index / "manifest.json").is_file():
        command("fit", embeddings, "-o", WORK / "trained", "--no-reranker", "--time-budget", 60)
        command("export", WORK / "trained", "-o", model, "--with-extractor", minilm_folder())
        command("compress", embeddings, "-m", model, "-o", WORK / "codes")
        command("index", WORK / "codes", "-m", model, "-o", index)
    return index, model


@contextmanager
def served(*options: object) -> Iterator[tuple[str, int]]:
    """A server in a process of its own: its address and process id."""
    index, model = prepare()
    arguments = ["serve", index, "-m", model, "--port", 0, "--json", *options]
    process = subprocess.Popen(
        [sys.executable, "-c", MAIN, *map(str, arguments)], stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None
        url = json.loads(process.stdout.readline())["url"]
        wait_until(lambda: asyncio.run(get(url, "/ready"))[0] == 200)
        yield url, process.pid
        process.send_signal(signal.SIGTERM)
        if process.wait(60):
            raise SystemExit("the server did not end as it should")
    finally:
        process.kill()
        process.wait()


def wait_until(true: Callable[[], bool], seconds: float = 120) -> float:
    """Seconds until a condition came true."""
    started = time.monotonic()
    while True:
        try:
            if true():
                return time.monotonic() - started
        except OSError:
            pass
        if time.monotonic() - started > seconds:
            raise SystemExit("it did not happen in time")
        time.sleep(0.05)


async def exchange(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, head: str, body: bytes
) -> tuple[int, dict[str, str], bytes]:
    """One request and its answer on a connection that stays open."""
    writer.write(f"{head}\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body)
    answer = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
    headers = {
        name.lower(): value.strip()
        for name, _, value in (line.partition(":") for line in answer[1:] if line)
    }
    return (
        int(answer[0].split()[1]),
        headers,
        await reader.readexactly(int(headers["content-length"])),
    )


async def get(url: str, path: str) -> tuple[int, bytes]:
    """One GET on a connection of its own."""
    place = urlsplit(url)
    reader, writer = await asyncio.open_connection(place.hostname, place.port)
    try:
        head = f"GET {path} HTTP/1.1\r\nHost: {place.netloc}"
        status, _, body = await exchange(reader, writer, head, b"")
        return status, body
    finally:
        writer.close()


def body_of(path: str, text: str) -> bytes:
    """A request's body."""
    asked = {"text": text} if path == "/v1/search" else {"model": NAME, "input": text}
    return json.dumps(asked).encode()


async def client(
    url: str, path: str, texts: Iterator[str], begin: float, end: float, load: Load
) -> None:
    """Ask, wait for the answer, and ask again; a broken connection is counted and opened anew."""
    place = urlsplit(url)
    head = f"POST {path} HTTP/1.1\r\nHost: {place.netloc}\r\nContent-Type: application/json"
    writer: asyncio.StreamWriter | None = None
    while (started := time.perf_counter()) < end:
        try:
            if writer is None:
                reader, writer = await asyncio.open_connection(place.hostname, place.port)
            status, headers, _ = await exchange(reader, writer, head, body_of(path, next(texts)))
        except (OSError, asyncio.IncompleteReadError):
            load.statuses["no answer"] += 1
            writer = None
            await asyncio.sleep(0.05)
            continue
        if (now := time.perf_counter()) < begin:
            continue
        load.statuses[str(status)] += 1
        if status == 200 and now <= end:
            load.seconds.append(now - started)
        elif status == 429:
            load.without_retry_after += "retry-after" not in headers
            await asyncio.sleep(0.02)  # rather than a busy loop of refusals
    if writer is not None:
        writer.close()


async def drive(url: str, path: str, clients: int, seconds: float, warm_up: float) -> Load:
    """Let several clients ask for some seconds."""
    load, texts = Load(elapsed=seconds), questions()
    next(texts)  # reads them
    begin = time.perf_counter() + warm_up
    await asyncio.gather(
        *(client(url, path, texts, begin, begin + seconds, load) for _ in range(clients))
    )
    return load


def questions() -> Iterator[str]:
    """Glosses without end, in an order of their own."""
    if not _TEXTS:
        column = open_vectors(embeddings_folder()).read(20_000, seed=1).metadata["text"]
        _TEXTS.extend(column.to_pylist())
    place = 0
    while True:
        yield _TEXTS[place % len(_TEXTS)]
        place += 1


_TEXTS: list[str] = []


def resident(pid: int) -> float:
    """Resident memory of a process, MiB."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS"):
            return int(line.split()[1]) / 1024
    raise SystemExit("the system does not tell a process's memory")


def workers_of(pid: int) -> set[int]:
    """The worker processes of a supervisor."""
    listed = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return {
        int(one) for one in listed if b"spawn_main" in Path(f"/proc/{one}/cmdline").read_bytes()
    }


def measure_levels(seconds: float) -> list[dict[str, Any]]:
    """Rates and latencies at each number of clients, on one process."""
    rows = []
    with served() as (url, pid):
        for path in PATHS:
            for clients in CLIENTS:
                load = asyncio.run(drive(url, path, clients, seconds, WARM_UP))
                row = {"path": path, "clients": clients, **load.figures()}
                print(json.dumps(row), flush=True)
                if set(load.statuses) != {"200"}:
                    raise SystemExit("below the queue's limit every request must be answered")
                rows.append(row)
        rows[-1]["resident_mib"] = round(resident(pid), 1)
    return rows


def measure_refusals(seconds: float) -> dict[str, Any]:
    """256 clients against a queue of 32: nothing but answers and 429 with Retry-After."""
    limits = ("--max-queue", SMALL_QUEUE, "--max-inputs", SMALL_QUEUE)
    with served(*limits) as (url, _):
        load = asyncio.run(drive(url, "/v1/search", max(CLIENTS), seconds, 0.0))
    if set(load.statuses) != {"200", "429"} or load.without_retry_after:
        raise SystemExit(f"above the queue's limit: {load.statuses}")
    return {"clients": max(CLIENTS), "max_queue": SMALL_QUEUE, **load.figures()}


def measure_killed_worker(seconds: float) -> dict[str, Any]:
    """Two workers, one killed under load: what the clients lose, and when it is back."""

    async def loads(url: str) -> int:
        text = (await get(url, "/metrics"))[1].decode()
        found = [line for line in text.splitlines() if "index_loads_total{" in line]
        return int(float(found[0].split()[-1])) if found else 0

    with served("--workers", 2) as (url, pid):
        wait_until(lambda: asyncio.run(loads(url)) == 2)
        victim = min(workers_of(pid))

        async def kill() -> float:
            await asyncio.sleep(seconds / 4)
            os.kill(victim, signal.SIGKILL)
            killed = time.monotonic()
            while True:
                try:
                    if await loads(url) == 3:
                        return time.monotonic() - killed
                except (OSError, asyncio.IncompleteReadError):
                    pass  # asked of the one that was killed
                await asyncio.sleep(0.1)

        async def both() -> tuple[Load, float]:
            load, back = await asyncio.gather(
                drive(url, "/v1/search", 8, seconds, 0.0), asyncio.wait_for(kill(), 120)
            )
            return load, back

        load, back = asyncio.run(both())
        if len(workers_of(pid)) != 2 or not set(load.statuses) <= {"200", "no answer"}:
            raise SystemExit(f"a killed worker: {load.statuses}")
    return {"clients": 8, "workers": 2, "back_within_seconds": round(back, 1), **load.figures()}


def measure_memory(minutes: float) -> dict[str, Any]:
    """Resident memory of one process while 16 clients search and embed."""
    samples: list[tuple[float, float]] = []
    with served() as (url, pid):
        started = time.monotonic()

        async def watch() -> None:
            while (since := time.monotonic() - started) < 60 * minutes:
                samples.append((round(since, 1), round(resident(pid), 1)))
                await asyncio.sleep(5)

        async def all_of_it() -> list[Any]:
            return await asyncio.gather(
                watch(), *(drive(url, path, 8, 60 * minutes, 0.0) for path in PATHS)
            )

        loads: list[Load] = asyncio.run(all_of_it())[1:]
    settled = [(at, mib) for at, mib in samples if at >= 12 * minutes]
    slope = float(np.polyfit(*np.array(settled).T, 1)[0])
    result = {
        "minutes": minutes,
        "requests": sum(sum(load.statuses.values()) for load in loads),
        "statuses": dict(sum((load.statuses for load in loads), Counter())),
        "first_mib": settled[0][1],
        "last_mib": settled[-1][1],
        "largest_mib": max(mib for _, mib in samples),
        "mib_a_minute": round(60 * slope, 3),
        "samples": samples[:: max(1, len(samples) // 60)],
    }
    if set(result["statuses"]) != {"200"} or result["last_mib"] > 1.05 * result["first_mib"]:
        raise SystemExit(f"memory is not flat, or not every request was answered: {result}")
    return result


def table(result: dict[str, Any]) -> str:
    """The README's table."""
    lines = ["| path | clients | requests / s | p50 | p95 | p99 |", "| --- " * 6 + "|"]
    for row in result["levels"]:
        latencies = (f"{row[f'p{share}_ms']:,.0f} ms" for share in (50, 95, 99))
        rate = f"{row['per_second']:,.0f}"
        lines.append(
            f"| `{row['path']}` | {row['clients']} | {rate} | " + " | ".join(latencies) + " |"
        )
    return "\n".join(lines)


def main(
    minutes: Annotated[float, typer.Option(help="Of the watch over memory; 0 skips it.")] = 10.0,
    seconds: Annotated[float, typer.Option(help="Of each number of clients.")] = 15.0,
    only_memory: Annotated[
        bool, typer.Option("--only-memory", help="Keep the other figures as they are.")
    ] = False,
) -> None:
    """Measure and write results/load.json."""
    result: dict[str, Any] = {}
    if not only_memory:
        result = {
            "threads": available_threads(),
            "vectors": open_vectors(embeddings_folder()).count,
            "levels": measure_levels(seconds),
            "refusals": measure_refusals(seconds),
            "killed_worker": measure_killed_worker(2 * seconds),
        }
    if minutes:
        result["memory"] = measure_memory(minutes)
    RESULTS.mkdir(exist_ok=True)
    file = RESULTS / "load.json"
    result = (json.loads(file.read_text()) if file.is_file() else {}) | result
    file.write_text(json.dumps(result, indent=1) + "\n")
    if "levels" in result:
        print(table(result))
    kept = ("refusals", "killed_worker", "memory")
    print(
        {
            name: {k: v for k, v in result[name].items() if k != "samples"}
            for name in kept
            if name in result
        }
    )


if __name__ == "__main__":
    typer.run(main)
