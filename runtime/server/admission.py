"""What every request passes on its way in and out: who may ask, how long a body may be, errors in OpenAI's words."""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import Awaitable, Callable, Mapping
from functools import lru_cache
from http import HTTPStatus
from typing import Any

from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from ...models.errors import ContextError, DataError, EdgestillError, UsageError
from .counters import Counters
from .responses import encoded
from .validation import BODY_BYTES, Refusal

BODY_SECONDS, HEADER_BYTES = 10.0, 16 * 2**10
LINGER = 2**26
"""Most bytes of a body that is too long which are read all the same: a client that is cut off while it sends does not
see the refusal."""
LOG = logging.getLogger("edgestill.server")
_LOCAL = ("127.0.0.1", "localhost", "[::1]")
_TEXTS = {"/v1/chat/completions": "messages", "/v1/completions": "prompt", "/v1/embeddings": "input",
          "/classify": "text"}
Handler = Callable[[Request], Awaitable[Response]]


class Gate:
    """The ASGI application: a table of handlers, the checks before them, and what becomes of their errors."""

    def __init__(self, key: str, local_only: bool, counters: Counters,
                 full: Callable[[], tuple[str, Refusal] | None]) -> None:
        """`key` is what clients must bring; `local_only` refuses requests that were sent to another host's name, which
        is how web pages reach servers of this machine; `full` says which model refuses work where all of them do."""
        self._key, self._local_only, self._counters, self._full = key, local_only, counters, full
        self._handlers: dict[str, dict[str, Handler]] = {}

    def open(self, method: str, path: str, handler: Handler) -> None:
        """Let `method` at `path` be answered, for anyone and uncounted. A path that ends in /* stands for all names
        of one part there."""
        self._handlers.setdefault(path, {})[method] = handler

    def guard(self, method: str, path: str, handler: Handler) -> None:
        """As `open`, behind the checks, and counted; errors become OpenAI's."""
        async def guarded(request: Request) -> Response:
            try:
                self._check(request.method, request.headers)
                response = await handler(request)
            except ClientDisconnect:
                response = Response(status_code=499)
            except Refusal as refusal:
                response = refused(refusal)
            except EdgestillError as error:
                response = refused(refusal_of(error, _TEXTS.get(path)))
            except RecursionError:  # lists in lists in lists, where something else was expected
                response = refused(Refusal("the request is nested too deeply"))
            except Exception:
                LOG.exception("%s failed", request.url.path)
                response = refused(Refusal("the server failed on this request; its log says why", status=500))
            self._counters.add("requests", path=path, model=getattr(request.state, "model", ""),
                               status=str(response.status_code))
            return response

        self.open(method, path, guarded)

    def turned_away(self, data: bytes) -> tuple[bytes, bool] | None:
        """The answer to a request that came whole while there is no room for its work, and whether the connection ends
        with it; None where there is room or the request is another."""
        full = self._full()
        if full is None:
            return None
        head, _, body = data.partition(b"\r\n\r\n")
        asked, *lines = head.decode("latin-1").split("\r\n")
        method, path, version = [*asked.split(" "), "", ""][:3]
        if version != "HTTP/1.1" or method != "POST" or method not in self._handlers.get(path, ()):
            return None
        headers = {name.lower(): value.strip() for name, _, value in [line.partition(":") for line in lines]}
        if headers.get("content-length") != str(len(body)) or len(headers) < len(lines) \
                or "transfer-encoding" in headers:
            return None
        try:
            self._check(method, headers)
        except Refusal:  # which is the handler's to give
            return None
        model, refusal = full
        self._counters.add("requests", path=path, model=model, status=str(refusal.status))
        closing = headers.get("connection", "").lower() == "close"
        return _written(refusal.message, refusal.status, refusal.code, tuple(refusal.headers.items()), closing), closing

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request. No layer more than this stands between a token and its client: each costs time a token."""
        path, method = scope["path"], scope["method"]
        methods = self._handlers.get(path) or self._handlers.get(path.rpartition("/")[0] + "/*")
        handler = methods.get("GET" if method == "HEAD" else method) if methods else None
        if handler is not None:
            response = await handler(Request(scope, receive, send))
        elif methods is None:
            more = f"; it is at /v1{path}" if f"/v1{path}" in self._handlers else ""
            response = refused(Refusal(f"there is nothing at {path[:200]}{more}", status=404))
        else:
            response = refused(Refusal(f"{method} is not taken at {path[:200]}", status=405,
                                       headers={"Allow": ", ".join(methods)}))
        await response(scope, receive, send)

    def _check(self, method: str, headers: Mapping[str, str]) -> None:
        if sum(len(name) + len(value) for name, value in headers.items()) > HEADER_BYTES:
            raise Refusal(f"the headers have more than {HEADER_BYTES} bytes", status=431)
        host = headers.get("host", "").rpartition(":")
        name = host[0] if host[1] and not host[2].endswith("]") else headers.get("host", "")
        if self._local_only and name not in _LOCAL:
            raise Refusal(f"host: {name[:100]!r}, this server answers on this machine only", status=403)
        given = headers.get("authorization", "").removeprefix("Bearer ").strip()
        if self._key and not secrets.compare_digest(given.encode(), self._key.encode()):
            raise Refusal("the API key is missing or wrong: send it as Authorization: Bearer KEY", status=401,
                          code="invalid_api_key", headers={"WWW-Authenticate": "Bearer"})
        kind = headers.get("content-type", "").partition(";")[0].strip().lower()
        if method == "POST" and kind != "application/json":
            # Web pages may send other types to any server without asking it.
            raise Refusal(f"content-type: {kind[:100]!r}, application/json was expected", status=415)
        coding = headers.get("content-encoding", "").strip().lower()
        if coding not in ("", "identity"):
            raise Refusal(f"content-encoding: {coding[:100]!r}, send the JSON as it is", status=415)


@lru_cache(maxsize=64)
def _written(message: str, status: int, code: str | None, headers: tuple[tuple[str, str], ...], closing: bool) -> bytes:
    """A refusal as a whole response. A full server says few different ones, a thousand times a second."""
    content = encoded(Refusal(message, status=status, code=code).body())
    given = (*headers, ("Content-Type", "application/json"), ("Content-Length", len(content)),
             ("Connection", "close" if closing else "keep-alive"))
    head = [f"HTTP/1.1 {status} {HTTPStatus(status).phrase}", *(f"{name}: {value}" for name, value in given), "", ""]
    return "\r\n".join(head).encode() + content


async def body_of(request: Request) -> bytes:
    """A request's body; Refusal when it is too long or too slow."""
    chunks, size = [], 0
    try:
        async with asyncio.timeout(BODY_SECONDS):
            async for chunk in request.stream():
                size += len(chunk)
                if size <= BODY_BYTES:
                    chunks.append(chunk)
                elif size > LINGER:
                    break
    except TimeoutError:
        raise Refusal(f"the body did not come within {BODY_SECONDS:g} s", status=408,
                      headers={"Connection": "close"}) from None
    if size > BODY_BYTES:
        raise Refusal(f"the body has more than {BODY_BYTES} bytes", status=413, headers={"Connection": "close"})
    return b"".join(chunks)


def refusal_of(error: EdgestillError, texts: str | None = None) -> Refusal:
    """What the client may do something about is its error, the rest the server's; `texts` is the field with what is
    read."""
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
    return Refusal(str(error), param, 400 if isinstance(error, (UsageError, DataError)) else 500)


def refused(refusal: Refusal) -> Response:
    """An error as a response."""
    return as_json(refusal.body(), refusal.status, refusal.headers)


def as_json(table: dict[str, Any], status: int = 200, headers: dict[str, str] | None = None) -> Response:
    """A table as a response."""
    return Response(encoded(table), status, headers, "application/json")
