"""What a request passes before its handler, as ASGI middleware: who may ask, what is sent, how long it may be."""

from __future__ import annotations

import asyncio
import re
import secrets
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from .measures import Measures
from .validation import BODY_BYTES, Refusal

BODY_SECONDS, HEADER_BYTES = 10.0, 16 * 2**10
LINGER = 2**26
"""Most bytes of a body that is too long which are read all the same: a client that is cut off while it sends does not
see the refusal."""
ROOM_BYTES, SMALL_BYTES = 64 * 2**20, 2**16
"""Most bytes that the bodies of all requests hold together, from their first chunk to their answer's end; one of few
bytes is let in all the same."""
LOOPBACK = ("127.0.0.1", "localhost", "[::1]")
ID_HEADER = "x-request-id"
_SANE_ID = re.compile(r"[A-Za-z0-9._:-]{1,128}")


class RequestIds:
    """Names each request: as its client does, or anew."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer, and say the name in a header."""
        given = Headers(scope=scope).get(ID_HEADER, "")
        name = given if _SANE_ID.fullmatch(given) else f"req_{secrets.token_hex(16)}"
        scope["state"]["request_id"] = name

        async def naming(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message)[ID_HEADER] = name
            await send(message)

        await self._app(scope, receive, naming)


class Counted:
    """Counts the requests that came to a handler behind `Admission`, refused or not."""

    def __init__(self, app: ASGIApp, measures: Measures) -> None:
        self._app, self._measures = app, measures

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer, and count by path, model and status."""
        status = 500  # what a failure ends as, beyond this layer

        async def noting(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, noting)
        finally:
            if (model := scope.get("state", {}).get("model")) is not None:
                self._measures.add("requests", path=scope["route"].path, model=model, status=str(status))


class Admission:
    """Refuses a request by its head: nothing of its body has been read then."""

    def __init__(self, app: ASGIApp, key: str, hosts: Sequence[str],
                 full: Callable[[], tuple[str, Refusal] | None]) -> None:
        """`key` is what clients must bring; `hosts` are the names that this server has, `*.name` for all below one and
        `*` for any: web pages reach servers of this machine by names of their own; `full` says which model refuses work
        where all of them do."""
        self._app, self._key, self._hosts, self._full = app, key, hosts, full

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let it in, or raise Refusal."""
        scope["state"]["model"] = ""
        self._check(scope["method"], Headers(scope=scope))
        if scope["method"] == "POST" and (full := self._full()) is not None:
            scope["state"]["model"] = full[0]
            raise full[1]
        await self._app(scope, receive, send)

    def _check(self, method: str, headers: Headers) -> None:
        if sum(len(name) + len(value) for name, value in headers.items()) > HEADER_BYTES:
            raise Refusal(f"the headers have more than {HEADER_BYTES} bytes", status=431)
        host = headers.get("host", "").rpartition(":")
        name = host[0] if host[1] and not host[2].endswith("]") else headers.get("host", "")
        if not any(_named(name.lower().removesuffix("."), host) for host in self._hosts):
            raise Refusal(f"host: {name[:100]!r} is not this server's; edgestill serve --allowed-host names another",
                          status=403)
        scheme, _, given = headers.get("authorization", "").partition(" ")
        fits = secrets.compare_digest(given.strip().encode(), self._key.encode())
        if self._key and not (fits and scheme.lower() == "bearer"):
            raise Refusal("the API key is missing or wrong: send it as Authorization: Bearer KEY", status=401,
                          code="invalid_api_key", headers={"WWW-Authenticate": "Bearer"})
        kind = headers.get("content-type", "").partition(";")[0].strip().lower()
        if method == "POST" and kind != "application/json":
            # Web pages may send other types to any server without asking it.
            raise Refusal(f"content-type: {kind[:100]!r}, application/json was expected", status=415)
        coding = headers.get("content-encoding", "").strip().lower()
        if coding not in ("", "identity"):
            raise Refusal(f"content-encoding: {coding[:100]!r}, send the JSON as it is", status=415)


def _named(name: str, host: str) -> bool:
    return host in (name, "*") or (host.startswith("*.") and name.endswith(host[1:]))


class Room:
    """Memory for the bodies of all requests."""

    def __init__(self) -> None:
        self._held = 0

    @contextmanager
    def place(self) -> Iterator[Callable[[int], None]]:
        """A body's share, given back at the end: called with the body's size as it grows, raises Refusal 429 where the
        room is full."""
        own = 0

        def grow(size: int) -> None:
            nonlocal own
            if size > SMALL_BYTES and self._held + size - own > ROOM_BYTES:
                raise Refusal(f"the bodies of other requests hold {self._held - own} bytes, the limit is {ROOM_BYTES}",
                              status=429, code="bodies_full", headers={"Retry-After": "1", "Connection": "close"})
            self._held, own = self._held + size - own, size

        try:
            yield grow
        finally:
            self._held -= own


class WholeBody:
    """Hands a body on once it is whole; raises Refusal when it is too long or too slow, or there is no room for it."""

    def __init__(self, app: ASGIApp, room: Room) -> None:
        self._app, self._room = app, room

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Read it first."""
        with self._room.place() as grow:
            body = await _body(Request(scope, receive), grow)
            messages: list[dict[str, Any]] = [{"type": "http.request", "body": body}]

            async def again() -> Message:
                return messages.pop() if messages else await receive()

            await self._app(scope, again, send)


async def _body(request: Request, grow: Callable[[int], None]) -> bytes:
    chunks, size = [], 0
    try:
        async with asyncio.timeout(BODY_SECONDS):
            async for chunk in request.stream():
                size += len(chunk)
                if size <= BODY_BYTES:
                    grow(size)
                    chunks.append(chunk)
                elif size > LINGER:
                    break
    except TimeoutError:
        raise Refusal(f"the body did not come within {BODY_SECONDS:g} s", status=408,
                      headers={"Connection": "close"}) from None
    if size > BODY_BYTES:
        raise Refusal(f"the body has more than {BODY_BYTES} bytes", status=413, headers={"Connection": "close"})
    return b"".join(chunks)
