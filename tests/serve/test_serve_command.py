"""The command itself, as a process: how it starts, stops, and survives."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from live import post, wait_until

from embedpress.errors import MismatchError, StorageError, UsageError
from embedpress.serve.run import serve
from embedpress.serve.settings import Settings

ROOT = Path(__file__).parents[2]
SECONDS = 120
pytestmark = pytest.mark.skipif(os.name == "nt", reason="signals of POSIX")


@dataclass(frozen=True)
class Started:
    """A server in a process of its own."""

    process: subprocess.Popen[str]
    url: str

    def client(self, **options: Any) -> httpx.Client:
        return httpx.Client(base_url=self.url, trust_env=False, timeout=SECONDS, **options)

    def is_ready(self) -> bool:
        try:
            return httpx.get(f"{self.url}/ready", trust_env=False, timeout=10).status_code == 200
        except httpx.TransportError:
            return False


def command(*arguments: object, block: tuple[str, ...] = ()) -> list[str]:
    code = f"import sys; sys.modules.update(dict.fromkeys({block!r}))\n"
    code += "if __name__ == '__main__':\n    from embedpress.cli import main\n    main()"
    return [sys.executable, "-c", code, "serve", *map(str, arguments)]


@contextmanager
def started(*arguments: object, env: dict[str, str] | None = None, **how: Any) -> Iterator[Started]:
    process = subprocess.Popen(
        command(*arguments, "--port", 0, "--num-threads", 1, "--json", **how),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT), **(env or {})},
    )
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line, process.communicate()[1]
        running = Started(process, json.loads(line)["url"])
        wait_until(running.is_ready, SECONDS)
        yield running
    finally:
        process.kill()
        process.communicate()


def test_sigterm_ends_what_was_accepted_without_any_training_package(
    index: Path, model: Path, texts: list[str]
) -> None:
    block = ("torch", "torchvision", "sklearn", "transformers", "onnx", "matplotlib")
    with started(index, "-m", model, block=block) as server:
        with server.client() as http:
            hits = post(http, "/v1/search", {"text": texts[0]}).json()["hits"][0]
            assert texts[0] in [hit["text"] for hit in hits]
            codes = post(http, "/v1/compress", {"text": texts[:2]}).json()["data"]
            assert len(set(codes)) == 2
        many = {"model": "glosses", "input": texts * 3}
        found: list[httpx.Response] = []

        def ask() -> None:
            with server.client() as http:
                found.append(post(http, "/v1/embeddings", many))

        threads = [threading.Thread(target=ask) for _ in range(2)]
        for thread in threads:
            thread.start()
        with server.client() as http:
            wait_until(lambda: 'queue_depth{kind="text"} 1800.0' in http.get("/metrics").text)
        server.process.send_signal(signal.SIGTERM)
        for thread in threads:
            thread.join(SECONDS)
        assert [len(answer.json()["data"]) for answer in found] == [900, 900]
        assert server.process.wait(SECONDS) == 0
        with pytest.raises(httpx.ConnectError):
            httpx.get(f"{server.url}/health", trust_env=False)


def children(pid: int) -> set[int]:
    listed = Path(f"/proc/{pid}/task/{pid}/children")
    if not listed.exists():
        pytest.skip("the system does not list the children of a process")
    found = {int(child) for child in listed.read_text().split()}
    return {
        child for child in found if b"spawn_main" in Path(f"/proc/{child}/cmdline").read_bytes()
    }


def loads(http: httpx.Client) -> int:
    for line in http.get("/metrics").text.splitlines():
        if line.startswith('embedpress_index_loads_total{result="loaded"}'):
            return int(float(line.split()[-1]))
    return 0


def test_a_killed_worker_comes_back(index: Path, model: Path) -> None:
    secret = {"EMBEDPRESS_API_KEY": "of-the-environment"}
    with started(index, "-m", model, "--workers", 2, env=secret) as server:
        pid = server.process.pid
        headers = {"Authorization": "Bearer of-the-environment", "Connection": "close"}
        with server.client(headers=headers) as http:
            wait_until(lambda: loads(http) == 2, SECONDS)
            workers = children(pid)
            assert len(workers) == 2
            victim = min(workers)
            os.kill(victim, signal.SIGKILL)
            killed = time.monotonic()
            wait_until(lambda: len(children(pid) - {victim}) == 2, SECONDS)
            assert time.monotonic() - killed < 60
            wait_until(lambda: loads(http) == 3, SECONDS)
            for _ in range(10):
                assert post(http, "/v1/search", {"text": "cats"}).status_code == 200
            assert "embedpress_index_vectors 300.0" in http.get("/metrics").text
            assert httpx.get(f"{server.url}/info", trust_env=False).status_code == 401
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(SECONDS) == 0


def refused(*arguments: object, env: dict[str, str] | None = None) -> tuple[int, str]:
    done = subprocess.run(
        command(*arguments),
        capture_output=True,
        text=True,
        timeout=SECONDS,
        env={**os.environ, "PYTHONPATH": str(ROOT), **(env or {})},
    )
    assert len(done.stderr.strip().splitlines()) == 1, done.stderr
    return done.returncode, done.stderr


def test_what_cannot_be_served_is_told_in_one_line(
    index: Path, model: Path, build: Callable[..., Path], tmp_path: Path
) -> None:
    folder = build(tmp_path / "index")
    vectors = folder / "index.faiss"
    vectors.write_bytes(vectors.read_bytes()[:-1])
    code, said = refused(folder, "-m", model, "--port", 0)
    assert (code, "was changed since it was built" in said) == (1, True)
    code, said = refused(tmp_path / "nothing", "-m", model)
    assert (code, "no index folder" in said) == (2, True)


def test_without_the_extra_it_says_what_to_install(index: Path, model: Path) -> None:
    done = subprocess.run(
        command(index, "-m", model, block=("fastapi",)),
        capture_output=True,
        text=True,
        timeout=SECONDS,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert done.returncode == 1
    assert "pip install 'embedpress[serve]'" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


def test_a_pair_or_a_port_that_cannot_be(
    settings: Callable[..., Settings], saved: Callable[..., Path]
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(StorageError, match=f"port {port}: .* choose another with --port"):
            serve(settings(port=port))
    with pytest.raises(MismatchError, match="another compressor"):
        serve(settings(model=str(saved())))
    with pytest.raises(UsageError, match="no address"):
        serve(settings(host="256.1.1.1"))
