"""The application: its paths, its guard, and what starts and ends with it."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

from fastapi import FastAPI, Request
from starlette.responses import FileResponse, Response

from embedpress import __version__
from embedpress.hub import model_name
from embedpress.info import describe
from embedpress.serve import api
from embedpress.serve.guard import Guard
from embedpress.serve.metrics import Metrics
from embedpress.serve.refusal import RequestError, answer, install
from embedpress.serve.service import Service
from embedpress.serve.settings import SETTINGS, Settings, read_api_key
from embedpress.serve.watcher import Watcher

PAGE = Path(__file__).with_name("page")
FILES = ("page.css", "page.js", "map.js", "icon.svg")
LOOPBACK = ("localhost", "127.0.0.1", "[::1]")
PAINTERS = 2


def create_app(
    settings: Settings,
    *,
    api_key: str | None = None,
    on_failure: Callable[[Exception], None] | None = None,
) -> FastAPI:
    """The application of a server.

    Parameters
    ----------
    settings : Settings
    api_key : str, optional
        What requests must carry.
    on_failure : callable, optional
        Called when the first load fails. Without it the application starts only after that load,
        stays up where it failed, is not ready, and tries again.

    Returns
    -------
    FastAPI
    """
    metrics = Metrics()
    watcher = Watcher(settings, metrics, on_failure)

    @contextlib.asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        watching = asyncio.create_task(watcher.watch())
        if on_failure is None:
            # Other workers answer meanwhile; this one takes no connection before it can.
            await watcher.tried.wait()
        yield
        watching.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await watching
        if watcher.service is not None:
            watcher.service.close()

    app = FastAPI(
        title="embedpress",
        version=__version__,
        summary="Compressed embeddings: embed, compress, search.",
        docs_url=None,  # they load scripts from elsewhere
        redoc_url=None,
        lifespan=lifespan,
    )
    app.state.watcher = watcher
    app.state.painting = asyncio.Semaphore(PAINTERS)
    install(app)
    app.include_router(api.router)
    _add_states(app, watcher, metrics)
    _add_page(app)
    hosts = settings.allowed_hosts
    if not hosts and settings.is_loopback and api_key is None:
        hosts = LOOPBACK
    app.add_middleware(
        Guard, metrics=metrics, api_key=api_key, hosts=hosts, max_body=settings.max_body
    )
    return app


def worker_app() -> FastAPI:
    """The application of one of several workers, which finds its settings in the environment."""
    return create_app(Settings.from_json(os.environ[SETTINGS]), api_key=read_api_key())


def _add_states(app: FastAPI, watcher: Watcher, metrics: Metrics) -> None:
    @app.get("/health")
    async def health() -> Response:
        """Whether the process answers at all."""
        return answer({"status": "ok"})

    @app.get("/ready", responses={503: {"description": "Not loaded, or the wrong results."}})
    async def ready() -> Response:
        """Whether it is loaded and its canary inputs gave what they gave at the export."""
        if watcher.service is None:
            reason = "loading" if watcher.failure is None else str(watcher.failure)
            return answer({"status": "not ready", "reason": reason}, status=503)
        return answer({"status": "ready", "canaries": watcher.service.canaries})

    @app.get("/info")
    async def info(request: Request) -> Response:
        """What is served, how large it is, and what a request may ask."""
        return answer(_about(api.service_of(request)))

    @app.get("/metrics", response_class=Response)
    async def metrics_text() -> Response:
        """Counters for Prometheus."""
        text = await asyncio.to_thread(metrics.render)
        return Response(text, media_type="text/plain; version=0.0.4; charset=utf-8")


def _add_page(app: FastAPI) -> None:
    @app.get("/", include_in_schema=False)
    async def page() -> Response:
        return FileResponse(PAGE / "index.html", headers={"Cache-Control": "no-cache"})

    @app.get("/{name}", include_in_schema=False)
    async def file(name: str) -> Response:
        if name not in FILES:
            raise RequestError(404, "there is nothing at this path")
        return FileResponse(PAGE / name, headers={"Cache-Control": "no-cache"})


def _about(service: Service) -> dict[str, Any]:
    opened, settings = service.opened, service.settings
    manifest = opened.index.manifest
    columns = {field.name: str(field.type) for field in opened.index.table.schema}
    return {
        "version": __version__,
        "name": model_name(Path(settings.model)),
        "models": api.model_names(service),
        "compressor": describe(settings.model, verify=False),
        "extractor": service.takes,
        "index": {
            "count": manifest.count,
            "rows": manifest.rows,
            "of": manifest.what,
            "metric": manifest.metric,
            "factory": manifest.factory,
            "rerank": manifest.rerank,
            "bytes_per_vector": manifest.bytes_per_vector,
            "bytes": opened.bytes,
            "embedding_bytes": 4 * service.compressor.dim,
            "columns": columns,
        },
        "map": None if opened.points is None else opened.points.count,
        "pictures": settings.image_root is not None,
        "limits": {
            "inputs": settings.max_inputs,
            "body": settings.max_body,
            "queue": settings.max_queue,
        },
    }
