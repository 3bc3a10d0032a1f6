"""What every request passes first: its host, its key, its size; and what every response carries."""

from __future__ import annotations

import asyncio
import hmac
import time
from collections.abc import Iterable

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from embedpress.serve.metrics import Metrics
from embedpress.serve.refusal import RequestError

OPEN = ("/", "/health", "/ready", "/openapi.json", "/page.css", "/page.js", "/map.js", "/icon.svg")
BODY_SECONDS = 60
BODIES_HELD = 16
_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; "
        "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
}


class Guard:
    """ASGI middleware around the whole application.

    Parameters
    ----------
    app : ASGI application
    metrics : Metrics
    api_key : str, optional
        Every path but those in `OPEN` wants it as ``Authorization: Bearer KEY``.
    hosts : iterable of str
        Names in Host headers that are answered; empty for all. A page elsewhere cannot then
        reach a server without a key through a name that it points at this machine.
    max_body : int
        Bytes of a body; several bodies in reading may hold 16 times as many.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        metrics: Metrics,
        api_key: str | None,
        hosts: Iterable[str],
        max_body: int,
    ) -> None:
        self.app, self.metrics, self.max_body = app, metrics, max_body
        self._authorization = None if api_key is None else f"Bearer {api_key}".encode()
        self._hosts = frozenset(host.lower() for host in hosts)
        self._held = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        started = time.perf_counter()
        status = 500

        async def send_with_headers(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                MutableHeaders(scope=message).update(_HEADERS)
            await send(message)

        try:
            await self._pass(scope, receive, send_with_headers)
        finally:
            route = scope.get("route")
            path = getattr(route, "path", "other")
            method = scope["method"] if route is not None else "other"
            self.metrics.requests.labels(path, method, status).inc()
            self.metrics.seconds.labels(path).observe(time.perf_counter() - started)

    async def _pass(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = Headers(scope=scope)
        held = 0

        async def body() -> bytes:
            nonlocal held
            parts = []
            while True:
                message = await receive()
                if message["type"] == "http.disconnect":
                    raise RequestError(400, "the client went away")
                part = message.get("body", b"")
                held += len(part)
                self._held += len(part)
                if held > self.max_body:
                    raise self._too_large()
                if self._held > BODIES_HELD * self.max_body:
                    raise RequestError(429, "too many large bodies: try again later", retry_after=1)
                parts.append(part)
                if not message.get("more_body", False):
                    return b"".join(parts)

        try:
            self._check(scope, headers)
            whole = await asyncio.wait_for(body(), BODY_SECONDS)
        except RequestError as problem:
            self._held -= held
            await problem.response()(scope, receive, send)
            return
        except (TimeoutError, asyncio.TimeoutError):
            self._held -= held
            late = RequestError(408, f"the body took longer than {BODY_SECONDS} seconds")
            await late.response()(scope, receive, send)
            return

        given = False

        async def replay() -> Message:
            nonlocal given
            if given:
                return await receive()
            given = True
            return {"type": "http.request", "body": whole, "more_body": False}

        try:
            await self.app(scope, replay, send)
        finally:
            self._held -= held

    def _check(self, scope: Scope, headers: Headers) -> None:
        if self._hosts:
            name = headers.get("host", "").lower()
            name = name if name.endswith("]") else name.rsplit(":", 1)[0]
            if name not in self._hosts:
                raise RequestError(
                    421, "this server does not answer to that Host: start it with --allow-host"
                )
        if self._authorization is not None and scope["path"] not in OPEN:
            given = headers.get("authorization", "").encode("latin-1", "replace")
            if not hmac.compare_digest(given, self._authorization):
                raise RequestError(
                    401,
                    "give the server's API key, as Authorization: Bearer KEY",
                    code="invalid_api_key",
                )
        size = headers.get("content-length", "0")
        if not size.isdecimal() or len(size) > 15:
            raise RequestError(400, "Content-Length is not a number")
        if int(size) > self.max_body:
            raise self._too_large()

    def _too_large(self) -> RequestError:
        return RequestError(
            413, f"the body is larger than {self.max_body:,} bytes: send fewer at a time"
        )
