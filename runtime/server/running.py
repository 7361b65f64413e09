"""uvicorn with bounds: on headers, on how long a client may take to send a request, and to read its answer."""

from __future__ import annotations

import asyncio
import socket
import sys
from typing import Any

import h11
import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from .gate import HEADER_BYTES, Gate

HEADER_SECONDS, READ_SECONDS, IDLE_SECONDS, LAST_SECONDS = 10.0, 30.0, 15, 5
"""How long a client may take to send a request's head, to read what was sent to it, and to send the next request; how
long answers may go on once the server is told to stop."""
_SWITCH_SECONDS = 0.001
"""How long a thread that computes may keep Python from the one that talks with clients. Python's own 5 ms are waited
for several times a request where a small model answers many at a time."""


class Protocol(H11Protocol):
    """A connection that ends when its client is too slow."""

    _patience: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """A client came: its request is awaited."""
        super().connection_made(transport)
        self._wait(HEADER_SECONDS)

    def data_received(self, data: bytes) -> None:
        """Something of a request came; the time for its head is not counted anew with every byte."""
        if self.conn.their_state is h11.IDLE and not self.conn.trailing_data[0]:
            found = self.app.turned_away(data)
            if found is not None:
                self._turn_away(*found)
                return
        super().data_received(data)
        if self.conn.their_state is not h11.IDLE:
            self._wait(None)
        elif self._patience is None:
            self._wait(HEADER_SECONDS)

    def _turn_away(self, answer: bytes, closing: bool) -> None:
        self._unset_keepalive_if_required()
        self._wait(IDLE_SECONDS)
        self.transport.write(answer)
        if closing:
            self.transport.close()

    def pause_writing(self) -> None:
        """The client reads slower than it is answered."""
        super().pause_writing()
        self._wait(READ_SECONDS)

    def resume_writing(self) -> None:
        """It has read on."""
        super().resume_writing()
        self._wait(None)

    def connection_lost(self, exc: Exception | None) -> None:
        """It is gone."""
        self._wait(None)
        super().connection_lost(exc)

    def _wait(self, seconds: float | None) -> None:
        if self._patience is not None:
            self._patience.cancel()
        self._patience = None if seconds is None else self.loop.call_later(seconds, self.transport.abort)


class Server(uvicorn.Server):
    """uvicorn on a socket that is bound already, so that a port that is taken is known before models are opened."""

    def __init__(self, application: Gate, bound: socket.socket) -> None:
        """Serve `application` on `bound`."""
        super().__init__(uvicorn.Config(
            application, http=Protocol, ws="none", lifespan="off", log_config=None, access_log=False,
            server_header=False, proxy_headers=False, timeout_keep_alive=IDLE_SECONDS,
            timeout_graceful_shutdown=LAST_SECONDS, h11_max_incomplete_event_size=HEADER_BYTES))
        self._bound = bound

    def run(self, sockets: Any = None) -> None:
        """Until a signal or `should_exit` ends it."""
        before = sys.getswitchinterval()
        sys.setswitchinterval(_SWITCH_SECONDS)
        try:
            super().run([self._bound])
        finally:
            sys.setswitchinterval(before)


def bind(host: str, port: int) -> socket.socket:
    """A socket at an address; port 0 takes a free one. Raises OSError."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    return socket.create_server((host, port), family=family, backlog=512)
