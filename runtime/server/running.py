"""uvicorn on a socket that is bound already, so that a port that is taken is known before models are opened."""

from __future__ import annotations

import socket
import sys

import uvicorn
from starlette.applications import Starlette

_IDLE_SECONDS, _LAST_SECONDS = 15, 5
"""How long a connection may be idle between requests, and answers may go on once the server is told to stop."""
_SWITCH_SECONDS = 0.001
"""How long a thread that computes may keep Python from the one that talks with clients. Python's own 5 ms are waited
for several times a request where a small model answers many at a time."""


def server_of(application: Starlette) -> uvicorn.Server:
    """A server of `application`, which finds it in its state, for `run`; `should_exit` ends it."""
    # h11 whatever else is installed: other parsers hold headers without a limit.
    server = uvicorn.Server(uvicorn.Config(
        application, http="h11", ws="none", lifespan="off", log_config=None, access_log=False, server_header=False,
        proxy_headers=False, timeout_keep_alive=_IDLE_SECONDS, timeout_graceful_shutdown=_LAST_SECONDS))
    application.state.server = server
    return server


def run(server: uvicorn.Server, bound: socket.socket) -> None:
    """Serve on `bound` until a signal or `should_exit` ends it."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(_SWITCH_SECONDS)
    try:
        server.run([bound])
    finally:
        sys.setswitchinterval(before)


def bind(host: str, port: int) -> socket.socket:
    """A socket at an address; port 0 takes a free one. Raises OSError."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    return socket.create_server((host, port), family=family, backlog=512)
