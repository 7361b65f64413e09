"""A request at a station while its client waits for it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import suppress
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from .work_queue import Station, Work


class Visit:
    """A job whose client is watched: when it leaves, the work ends."""

    def __init__(self, request: Request, station: Station, work: Work) -> None:
        """Raises Refusal 429 when the station's queue is full."""
        self.station, self.job = station, station.submit(work)
        self.left = False
        self._watch = asyncio.create_task(self._watched(request))

    @property
    def seconds(self) -> float:
        """Since the request came."""
        return time.perf_counter() - self.job.asked

    async def items(self) -> AsyncGenerator[Any, None]:
        """What the work yields."""
        try:
            async for item in self.job:
                yield item
        finally:
            await self.end()

    async def end(self) -> None:
        """Watch no longer; the work ends too where it has not."""
        self.station.leave(self.job)
        self._watch.cancel()
        with suppress(asyncio.CancelledError):
            await self._watch

    async def _watched(self, request: Request) -> None:
        while (await request.receive())["type"] != "http.disconnect":
            pass
        self.left = True
        self.station.leave(self.job)


class EventStream(Response):
    """Server-sent events."""

    def __init__(self, events: AsyncIterator[bytes], visit: Visit, headers: Mapping[str, str]) -> None:
        """`visit` ends with the stream, however it ends."""
        super().__init__(media_type="text/event-stream", headers={"Cache-Control": "no-store", **headers})
        del self.headers["content-length"]
        self._events, self._visit = events, visit

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send them as they come."""
        try:
            await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
            async for one in self._events:
                await send({"type": "http.response.body", "body": one, "more_body": True})
            await send({"type": "http.response.body", "body": b""})
        finally:
            await self._visit.end()
