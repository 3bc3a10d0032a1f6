"""A server in a thread of the tests, on a free port of the loopback."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import httpx

from embedpress.serve.run import listening
from embedpress.serve.settings import Settings


@dataclass(frozen=True)
class Live:
    """A running server."""

    url: str
    app: Any
    server: Any
    thread: threading.Thread

    def client(self, **options: Any) -> httpx.Client:
        """A client of it alone, whatever proxies the machine has."""
        return httpx.Client(base_url=self.url, trust_env=False, timeout=30, **options)

    def stop(self) -> None:
        """As SIGTERM does: end what was accepted, then return."""
        self.server.should_exit = True
        self.thread.join(30)
        assert not self.thread.is_alive()


@contextmanager
def live(settings: Settings, **options: Any) -> Iterator[Live]:
    """Start a server and wait until it is ready."""
    import uvicorn

    from embedpress.serve.app import create_app

    app = create_app(settings, **options)
    server = uvicorn.Server(uvicorn.Config(app, log_level="critical", backlog=512))
    with listening(replace(settings, port=0)) as listener:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        thread = threading.Thread(target=server.run, args=([listener],))
        running = Live(url, app, server, thread)
        thread.start()
        try:
            wait_until(lambda: server.started)
            yield running
        finally:
            running.stop()


def post(http: httpx.Client, path: str, value: object) -> httpx.Response:
    """Post JSON as Python writes it: with NaN, infinity and half surrogate pairs."""
    return http.post(path, content=json.dumps(value), headers={"Content-Type": "application/json"})


def wait_until(true: Any, seconds: float = 30) -> None:
    """Wait for a condition, and fail where it does not come."""
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.02)
