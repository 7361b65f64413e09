"""A server on a free port of this machine, in a thread of the test's own process."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPResponse
from typing import Any

import openai
from edgestill.runtime.server.application import Service
from edgestill.runtime.server.running import bind, run, server_of
from edgestill.runtime.server.work_queue import Station


@dataclass
class Running:
    """A server, and ways to ask it."""

    service: Service
    port: int
    key: str = ""

    def client(self, **options: Any) -> openai.OpenAI:
        """OpenAI's own client."""
        return openai.OpenAI(base_url=f"http://127.0.0.1:{self.port}/v1", api_key=self.key or "none", max_retries=0,
                             timeout=30, **options)

    def ask(self, method: str, path: str, body: Any = None, **headers: str) -> tuple[int, Any, dict[str, str]]:
        """Status, content and headers of a plain request; `body` is sent as JSON unless it is bytes."""
        connection = HTTPConnection("127.0.0.1", self.port, timeout=30)
        data = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
        auth = {"Authorization": f"Bearer {self.key}"} if self.key else {}
        given = {name.replace("_", "-"): value for name, value in headers.items()}
        connection.request(method, path, data, {"Content-Type": "application/json", **auth, **given})
        response = connection.getresponse()
        content = response.read()
        with contextlib.suppress(ValueError):
            content = json.loads(content)
        connection.close()
        return response.status, content, {name.lower(): value for name, value in response.getheaders()}

    def metric(self, line: str) -> float:
        """The value of a line of /metrics."""
        lines = self.ask("GET", "/metrics")[1].decode().splitlines()
        return next((float(found.rpartition(" ")[2]) for found in lines if found.startswith(line + " ")), 0.0)


def response(connection: socket.socket) -> tuple[int, bytes, dict[str, str]]:
    """Status, body and headers of one whole response: what comes first may be its head alone."""
    found = HTTPResponse(connection)
    found.begin()
    return found.status, found.read(), {name.lower(): value for name, value in found.getheaders()}


@contextlib.contextmanager
def running(stations: Sequence[Station], **options: Any) -> Iterator[Running]:
    """Serve `stations` while the block runs; they are closed at its end."""
    bound = bind("127.0.0.1", 0)
    service = Service(stations, **options)
    server = server_of(service.application)
    thread = threading.Thread(target=run, args=(server, bound))
    thread.start()
    try:
        while not server.started and thread.is_alive():
            time.sleep(0.01)
        yield Running(service, bound.getsockname()[1], options.get("key", ""))
    finally:
        server.should_exit = True
        thread.join()
        for station in stations:
            station.close()
        if "fallback" in options:
            options["fallback"].close()
