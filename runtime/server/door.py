"""Where connections begin: what a full server cannot take is turned away before anything is made for it."""

from __future__ import annotations

import asyncio
from typing import Any

import h11
from uvicorn.config import Config
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.server import ServerState

HEADER_SECONDS, READ_SECONDS, IDLE_SECONDS = 10.0, 30.0, 15
"""How long a client may take to send a request's head, to read what was sent to it, and to send the next request."""


class _Patient:
    """A connection that ends when its client is too slow."""

    app: Any
    loop: asyncio.AbstractEventLoop
    transport: asyncio.Transport
    _patience: asyncio.TimerHandle | None = None

    def _wait(self, seconds: float | None) -> None:
        if self._patience is not None:
            self._patience.cancel()
        self._patience = None if seconds is None else self.loop.call_later(seconds, self.transport.abort)

    def _turned_away(self, data: bytes) -> bool:
        found = self.app.turned_away(data)
        if found is None:
            return False
        answer, closing = found
        self._wait(IDLE_SECONDS)
        self.transport.write(answer)
        if closing:
            self.transport.close()
        return True


class Door(_Patient, asyncio.Protocol):
    """Has a connection until a request is let in: then a `Visitor` has it.

    h11, addresses and flow control would be more than half of what a refusal costs, and a server that is asked a
    thousand times a second has no time for those that it refuses.
    """

    def __init__(self, config: Config, server_state: ServerState, app_state: dict[str, Any],
                 _loop: asyncio.AbstractEventLoop | None = None) -> None:
        """As uvicorn makes its protocols."""
        self.app, self.loop = config.loaded_app, _loop or asyncio.get_running_loop()
        self._given, self._connections = (config, server_state, app_state, _loop), server_state.connections

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """A client came: its request is awaited."""
        self.transport = transport
        self._connections.add(self)  # type: ignore[arg-type]
        self._wait(HEADER_SECONDS)

    def data_received(self, data: bytes) -> None:
        """Something of a request came."""
        if not self._turned_away(data):
            self.connection_lost(None)
            visitor = Visitor(*self._given)
            self.transport.set_protocol(visitor)
            visitor.connection_made(self.transport)
            visitor.data_received(data)

    def pause_writing(self) -> None:
        """The client reads slower than it is refused: nothing more is read from it either."""
        self.transport.pause_reading()
        self._wait(READ_SECONDS)

    def resume_writing(self) -> None:
        """It has read on."""
        self.transport.resume_reading()
        self._wait(IDLE_SECONDS)

    def connection_lost(self, exc: Exception | None) -> None:
        """It is gone, or another's."""
        self._connections.discard(self)
        self._wait(None)

    def shutdown(self) -> None:
        """The server ends, and nothing is being answered here."""
        self.transport.close()


class Visitor(_Patient, H11Protocol):
    """A connection with a request that was let in, and those that follow it."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """It comes from the door."""
        super().connection_made(transport)
        self._wait(HEADER_SECONDS)

    def data_received(self, data: bytes) -> None:
        """Something of a request came; the time for its head is not counted anew with every byte."""
        begins = self.conn.their_state is h11.IDLE and not self.conn.trailing_data[0]
        if begins and not self.flow.write_paused and self._turned_away(data):
            self._unset_keepalive_if_required()
            return
        super().data_received(data)
        if self.flow.write_paused:  # until it reads, what it sends does not matter
            return
        if self.conn.their_state is not h11.IDLE:
            self._wait(None)
        elif self._patience is None:
            self._wait(HEADER_SECONDS)

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
