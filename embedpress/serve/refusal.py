"""What a request is refused with: OpenAI's JSON of an error, and its status."""

from __future__ import annotations

import json
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import Response

from embedpress.errors import EmbedpressError

TYPES = {
    401: "authentication_error",
    404: "not_found_error",
    408: "timeout_error",
    429: "rate_limit_error",
    503: "unavailable_error",
}


class RequestError(Exception):
    """A request that cannot be served, and why.

    Parameters
    ----------
    status : int
        Of HTTP.
    message : str
        One line that says what to do.
    param : str, optional
        The field that is at fault.
    code : str, optional
        A word for programs.
    retry_after : int, optional
        Seconds after which it may be tried again.
    """

    def __init__(
        self,
        status: int,
        message: str,
        *,
        param: str | None = None,
        code: str | None = None,
        retry_after: int | None = None,
    ) -> None:
        super().__init__(message)
        self.status, self.message = status, message
        self.param, self.code = param, code
        self.retry_after = retry_after

    def response(self) -> Response:
        """As it is sent."""
        kind = "server_error" if self.status == 500 else "invalid_request_error"
        error = {
            "message": self.message,
            "type": TYPES.get(self.status, kind),
            "param": self.param,
            "code": self.code,
        }
        headers = {} if self.retry_after is None else {"Retry-After": str(self.retry_after)}
        if self.status == 401:
            headers["WWW-Authenticate"] = "Bearer"
        return answer({"error": error}, status=self.status, headers=headers)


def answer(
    value: dict[str, Any], *, status: int = 200, headers: dict[str, str] | None = None
) -> Response:
    """A JSON response; ASCII, so that no text of a client can fail to be encoded."""
    body = json.dumps(value, allow_nan=False, separators=(",", ":"))
    return Response(body, status, headers, media_type="application/json")


def install(app: FastAPI) -> None:
    """Let every error leave in this one shape."""

    @app.exception_handler(RequestError)
    async def problem(request: Request, error: RequestError) -> Response:
        return error.response()

    @app.exception_handler(EmbedpressError)
    async def refused(request: Request, error: EmbedpressError) -> Response:
        return RequestError(422, str(error)).response()

    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, error: RequestValidationError) -> Response:
        # What the client sent is not echoed: it may be huge, or no JSON at all.
        given = request.headers.get("content-type", "none")
        if request.method == "POST" and "json" not in given:
            return RequestError(
                415, "the body must be JSON: send Content-Type: application/json"
            ).response()
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"] if part != "body")[:100]
        if first["type"] == "json_invalid":
            return RequestError(400, "the body is not valid JSON").response()
        message = f"{place}: {first['msg']}" if place else f"the body: {first['msg']}"
        return RequestError(422, message[:500], param=place or None).response()

    @app.exception_handler(HTTPException)
    async def http(request: Request, error: HTTPException) -> Response:
        response = RequestError(error.status_code, str(error.detail)).response()
        response.headers.update(error.headers or {})
        return response
