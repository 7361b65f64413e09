"""Errors as responses, in OpenAI's words."""

from __future__ import annotations

import logging
from collections.abc import Callable, Coroutine
from typing import Any

from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from ...models.errors import ContextError, DataError, EdgestillError, UsageError
from .admission import ID_HEADER
from .responses import encoded
from .validation import Refusal

LOG = logging.getLogger("edgestill.server")
_TEXTS = {"/v1/chat/completions": "messages", "/v1/completions": "prompt", "/v1/embeddings": "input",
          "/v1/responses": "input", "/classify": "text"}
"""The field with what is read, by path."""


def refusal_of(error: EdgestillError, path: str = "") -> Refusal:
    """What the client may do something about is its error, the rest the server's."""
    texts = _TEXTS.get(path)
    field = error.message.partition(":")[0].removeprefix("generate.")
    param = field if field.isidentifier() else None
    if isinstance(error, ContextError):  # in words that clients look for
        return Refusal(f"This model's maximum context length is {error.limit} tokens: {error}", texts,
                       code="context_length_exceeded")
    if field.startswith("template_options"):  # as requests call them
        param = field.replace("template_options", "chat_template_kwargs", 1)
        return Refusal(str(error).replace("template_options", "chat_template_kwargs", 1), param)
    if isinstance(error, DataError):  # of what is read
        param = param or texts
    said = str(error).removeprefix("generate.")
    return Refusal(said, param, 400 if isinstance(error, (UsageError, DataError)) else 500)


def as_json(table: dict[str, Any], status: int = 200, headers: dict[str, str] | None = None) -> Response:
    """A table as a response."""
    return Response(encoded(table), status, headers, "application/json")


def refused(refusal: Refusal) -> Response:
    """An error as a response."""
    return as_json(refusal.body(), refusal.status, refusal.headers)


async def _refusal(request: Request, error: Refusal) -> Response:
    names, name = getattr(request.state, "names", {}), error.param or ""
    return refused(error.renamed({name: names[name]}) if name in names else error)


async def _own(request: Request, error: EdgestillError) -> Response:
    return await _refusal(request, refusal_of(error, request.url.path))


async def _http(request: Request, error: HTTPException) -> Response:
    path, headers = request.url.path, dict(error.headers or {})
    if error.status_code == 405:
        return refused(Refusal(f"{request.method} is not taken at {path[:200]}", status=405, headers=headers))
    known = any(getattr(route, "path", "") == f"/v1{path}" for route in request.app.routes)
    more = f"; it is at /v1{path}" if known else ""
    return refused(Refusal(f"there is nothing at {path[:200]}{more}", status=404))


async def _nested(request: Request, error: RecursionError) -> Response:
    """Lists in lists in lists, where something else was expected."""
    return refused(Refusal("the request is nested too deeply"))


async def _left(request: Request, error: ClientDisconnect) -> Response:
    return Response(status_code=499)


async def _failed(request: Request, error: Exception) -> Response:
    name = request.state.request_id
    LOG.error("%s: request %s failed", request.url.path, name)
    return refused(Refusal("the server failed on this request; its log says why", status=500,
                           headers={ID_HEADER: name}))  # which is beyond the layer that names others


HANDLERS: dict[Any, Callable[[Request, Any], Coroutine[Any, Any, Response]]] = {
    Refusal: _refusal, EdgestillError: _own, HTTPException: _http, RecursionError: _nested, ClientDisconnect: _left,
    Exception: _failed}
"""What Starlette makes of an exception; one of the last kind it raises again, so that it is logged."""
