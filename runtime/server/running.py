"""uvicorn with bounds: on headers, and on how long clients may take."""

from __future__ import annotations

import socket
import sys
from typing import Any

import uvicorn

from .admission import HEADER_BYTES, Gate
from .door import IDLE_SECONDS, Door

_LAST_SECONDS = 5
"""How long answers may go on once the server is told to stop."""
_SWITCH_SECONDS = 0.001
"""How long a thread that computes may keep Python from the one that talks with clients. Python's own 5 ms are waited
for several times a request where a small model answers many at a time."""


class Server(uvicorn.Server):
    """uvicorn on a socket that is bound already, so that a port that is taken is known before models are opened."""

    def __init__(self, application: Gate, bound: socket.socket) -> None:
        """Serve `application` on `bound`."""
        super().__init__(uvicorn.Config(
            application, http=Door, ws="none", lifespan="off", log_config=None, access_log=False,
            server_header=False, proxy_headers=False, timeout_keep_alive=IDLE_SECONDS,
            timeout_graceful_shutdown=_LAST_SECONDS, h11_max_incomplete_event_size=HEADER_BYTES))
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
