"""``embedpress serve``: one process, or several that share a port and are started again."""

from __future__ import annotations

import logging
import os
import signal
import socket
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from embedpress.errors import MissingDependencyError, StorageError, UsageError
from embedpress.serve.settings import API_KEY, SETTINGS, Settings, read_api_key

BACKLOG = 2048
HUNG_SECONDS, LOADING_SECONDS = 10, 600

_log = logging.getLogger("uvicorn.error")


def serve(
    settings: Settings,
    *,
    api_key_file: str | Path | None = None,
    tell: Callable[[dict[str, Any]], None] | None = None,
) -> None:
    """Serve an index until SIGTERM or Ctrl-C, and end what was accepted.

    Parameters
    ----------
    settings : Settings
    api_key_file : str or Path, optional
        A file whose one line is the key that requests must carry; the environment's
        ``EMBEDPRESS_API_KEY`` by default.
    tell : callable, optional
        Called with ``url`` and ``pid`` once the port is taken.

    Raises
    ------
    UsageError
        Folders that are not there, a port that is taken.
    MismatchError, FormatError
        An index and a compressor that do not belong together, damaged files.
    MissingDependencyError
        Without ``embedpress[serve]``.
    """
    try:
        import uvicorn

        from embedpress.serve.app import create_app
    except ImportError as error:
        if (error.name or "").startswith("embedpress"):
            raise
        raise MissingDependencyError(
            f"serving needs {error.name}: pip install 'embedpress[serve]'"
        ) from error
    api_key = read_api_key(api_key_file)
    _check_pair(settings)
    options: dict[str, Any] = {
        "log_level": "warning",
        "access_log": False,
        "server_header": False,
        "backlog": BACKLOG,
        "timeout_graceful_shutdown": settings.stop_timeout,
    }
    with listening(settings) as listener:
        if not settings.is_loopback and api_key is None:
            _log.warning("anyone who reaches this port may search: set %s", API_KEY)
        if tell is not None:
            tell({"url": _url(settings.host, listener), "pid": os.getpid()})
        if settings.workers > 1:
            _run_workers(settings, api_key, options, listener)
            return
        failures: list[Exception] = []

        def stop(error: Exception) -> None:
            failures.append(error)
            server.should_exit = True

        app = create_app(settings, api_key=api_key, on_failure=stop)
        server = uvicorn.Server(uvicorn.Config(app, **options))
        with _quiet_end():
            server.run(sockets=[listener])
        if failures:
            raise failures[0]


def _run_workers(
    settings: Settings, api_key: str | None, options: dict[str, Any], listener: socket.socket
) -> None:
    """Uvicorn's supervisor: it starts a worker again when one dies or hangs."""
    import uvicorn
    from uvicorn.supervisors import Multiprocess

    class Supervisor(Multiprocess):
        def keep_subprocess_alive(self) -> None:
            for process in self.processes:
                # Only the worker's own end is then open, and its death ends the wait for an answer.
                process.child_conn.close()
            super().keep_subprocess_alive()

        def restart_all(self) -> None:
            # The new worker loads its index first, which takes longer than an answer.
            self.config.timeout_worker_healthcheck = LOADING_SECONDS
            super().restart_all()
            self.config.timeout_worker_healthcheck = HUNG_SECONDS

        def terminate_all(self) -> None:
            # Whoever connects from now on is refused at once, rather than kept waiting in vain.
            for listening in self.sockets:
                listening.close()
            super().terminate_all()

    with tempfile.TemporaryDirectory(prefix="embedpress-metrics-") as folder:
        # The workers are new processes, which find in the environment what they need.
        os.environ[SETTINGS] = settings.to_json()
        os.environ["PROMETHEUS_MULTIPROC_DIR"] = folder
        if api_key is not None:
            os.environ[API_KEY] = api_key
        config = uvicorn.Config(
            "embedpress.serve.app:worker_app",
            factory=True,
            workers=settings.workers,
            timeout_worker_healthcheck=HUNG_SECONDS,
            **options,
        )
        Supervisor(config, sockets=[listener]).run()


def _check_pair(settings: Settings) -> None:
    """Tell at once, in one line, what the workers would only log."""
    from embedpress.index.manifest import read_index_manifest
    from embedpress.onnx.compressor import read_config

    manifest = read_index_manifest(Path(settings.index))
    config = read_config(settings.model)
    manifest.check_compressor(settings.index, settings.model, config["fingerprint"])


@contextmanager
def listening(settings: Settings) -> Iterator[socket.socket]:
    """A socket on the address and port of `settings`; closed with the block."""
    try:
        family = socket.getaddrinfo(settings.host, settings.port, type=socket.SOCK_STREAM)[0][0]
        # Only of a socket that says it is TCP does asyncio send a small answer without delay.
        listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    except OSError as error:
        raise UsageError(f"no address {settings.host!r} on this machine: {error}") from None
    with listener:
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind((settings.host, settings.port))
        except OSError as error:
            reason = error.strerror or str(error)
            raise StorageError(
                f"cannot listen on {settings.host} port {settings.port}: {reason}; "
                "choose another with --port"
            ) from None
        yield listener


def _url(host: str, listener: socket.socket) -> str:
    port = listener.getsockname()[1]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


@contextmanager
def _quiet_end() -> Iterator[None]:
    """SIGTERM and Ctrl-C end a server as they should: with exit code 0."""

    def end(number: int, frame: object) -> None:
        raise SystemExit(0)

    before = {number: signal.signal(number, end) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
