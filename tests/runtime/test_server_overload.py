"""A server asked far more than it can answer: who is refused, who is answered, and with what."""

from __future__ import annotations

import json
import os
import socket
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from http.client import HTTPConnection, HTTPResponse
from pathlib import Path
from typing import Any

import pytest
from edgestill.models import kinds
from edgestill.runtime.loading.load import load_streams
from edgestill.runtime.server.work_queue import Station

from ..serving import Running, response, running

STREAMS, PLACES, REQUESTS = 2, 3, 40
PROMPTS = [f"turn {state} the {room} light" for state in ("on", "off") for room in ("kitchen", "hall", "bedroom")]


def question(number: int) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": PROMPTS[number % len(PROMPTS)]}], "max_tokens": 12}


@pytest.mark.parametrize("engine", kinds.names("runtime.engines"))
def test_what_is_too_much_is_refused_while_the_rest_is_answered_as_alone(engine: str,
                                                                         packed_llama: dict[str, Path]) -> None:
    models = load_streams(packed_llama[engine], STREAMS, 1)
    with running([Station("tiny", models, PLACES)]) as served:
        def ask(number: int) -> tuple[int, int, Any, dict[str, str]]:
            return number, *served.ask("POST", "/v1/chat/completions", question(number))

        alone = [ask(number)[2]["choices"] for number in range(len(PROMPTS))]
        gate = threading.Event()
        for model in models:
            def held(token: int, fast: Any = model.engine.decode) -> Any:
                gate.wait()  # every worker is busy until the last refusal is out
                return fast(token)

            model.engine.decode = held  # type: ignore[method-assign]
        found = []
        with ThreadPoolExecutor(REQUESTS) as pool:
            asked = [pool.submit(ask, number) for number in range(REQUESTS)]
            deadline = time.monotonic() + 60
            while sum(one.done() for one in asked) < REQUESTS - STREAMS - PLACES and time.monotonic() < deadline:
                time.sleep(0.01)
            refused = sum(one.done() for one in asked)
            gate.set()
            found = [one.result() for one in asked]
        assert refused == REQUESTS - STREAMS - PLACES
        assert Counter(status for _, status, _, _ in found) == {200: STREAMS + PLACES, 429: refused}
        for number, status, answer, headers in found:
            if status == 200:
                assert answer["choices"] == alone[number % len(PROMPTS)]
            else:
                assert int(headers["retry-after"]) >= 1 and answer["error"]["code"] == "queue_full"
        line = 'edgestill_requests_total{model="tiny",path="/v1/chat/completions",status="429"}'
        assert served.metric(line) == refused
        assert ask(0)[2]["choices"] == alone[0]


@contextmanager
def full(packed: dict[str, Path], name: str = "tiny", **options: Any) -> Iterator[tuple[Running, threading.Event]]:
    """A server whose one worker is busy until the event is set, and that has no places to wait."""
    with running([Station(name, load_streams(packed["onnx"], 1, 1), 0)], **options) as served:
        gate = threading.Event()
        model = served.service.stations[name].model
        fast = model.engine.decode
        model.engine.decode = lambda token: (gate.wait(), fast(token))[1]
        with ThreadPoolExecutor(1) as pool:
            first = pool.submit(served.ask, "POST", "/v1/chat/completions", question(0))
            while not served.service.stations[name].active:
                time.sleep(0.005)
            try:
                yield served, gate
            finally:
                gate.set()
            assert first.result()[0] == 200


def written(body: bytes, head: str = "", path: str = "/v1/chat/completions") -> bytes:
    return (f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n{head}"
            f"Content-Length: {len(body)}\r\n\r\n").encode() + body


def said(connection: HTTPConnection, *data: bytes) -> tuple[int, Any, str | None]:
    """Status, content and when to come back, of a request sent in these pieces."""
    if connection.sock is None:
        connection.connect()
    for place, piece in enumerate(data):
        time.sleep(0.1 * (place > 0))
        connection.sock.sendall(piece)
    response = HTTPResponse(connection.sock)
    response.begin()
    return response.status, json.loads(response.read()), response.getheader("retry-after")


def test_a_full_server_reads_no_body_through(packed_llama: dict[str, Path]) -> None:
    with full(packed_llama) as (served, _):
        with closing(HTTPConnection("127.0.0.1", served.port, timeout=10)) as connection:
            head = written(b"").replace(b"Content-Length: 0", b"Content-Length: 9")
            assert said(connection, head)[0] == 429  # nothing of the body has been sent
        assert served.ask("GET", "/health")[0] == 200 and served.ask("GET", "/v1/models")[0] == 200


def test_one_answer_however_a_request_comes_to_a_full_server(packed_llama: dict[str, Path]) -> None:
    body = json.dumps(question(0)).encode()
    whole = written(body)
    chunked = whole.replace(f"Content-Length: {len(body)}".encode(), b"Transfer-Encoding: chunked")
    chunked = chunked[:-len(body)] + b"%x\r\n%s\r\n0\r\n\r\n" % (len(body), body)
    line = 'edgestill_requests_total{model="tiny",path="/v1/chat/completions",status="429"}'
    with full(packed_llama) as (served, gate), closing(HTTPConnection("127.0.0.1", served.port)) as connection:
        status, content, later = said(connection, whole)
        assert status == 429 and content["error"]["code"] == "queue_full" and int(later or 0) >= 1
        for pieces in ([whole[:9], whole[9:]], [whole[:-len(body)], body], [chunked], [whole]):
            assert said(connection, *pieces) == (status, content, later)  # all on one connection
        assert served.metric(line) == 5
        gate.set()
        while served.service.stations["tiny"].active:
            time.sleep(0.005)
        assert said(connection, whole)[0] == 200  # and there the next one is answered


def test_a_client_that_wants_the_connection_closed_finds_it_closed(packed_llama: dict[str, Path]) -> None:
    with full(packed_llama) as (served, _), socket.create_connection(("127.0.0.1", served.port)) as connection:
        connection.settimeout(10)
        connection.sendall(written(b"{}", "connection: Close\r\n"))
        data = b"".join(iter(lambda: connection.recv(65536), b""))
        assert data.startswith(b"HTTP/1.1 429 Too Many Requests\r\n") and b"\r\nconnection: close\r\n" in data.lower()


@pytest.mark.parametrize(("head", "path", "status"), [
    ("Authorization: Bearer other\r\n", "/v1/chat/completions", 401),
    ("Authorization: Bearer right\r\n", "/v1/nothing", 404),
    ("Authorization: Bearer right\r\n", "/health", 405),
    ("Authorization: Bearer right\r\n", "/v1/chat/completions", 429)])
def test_a_full_server_still_tells_who_may_not_ask_at_all(head: str, path: str, status: int,
                                                          packed_llama: dict[str, Path]) -> None:
    with full(packed_llama, key="right") as (served, gate), \
            closing(HTTPConnection("127.0.0.1", served.port)) as connection:
        assert said(connection, written(b"{}", head, path))[0] == status


def test_a_server_ends_though_clients_that_asked_nothing_are_connected(packed_llama: dict[str, Path]) -> None:
    with full(packed_llama) as (served, _):
        silent, refused = (socket.create_connection(("127.0.0.1", served.port), timeout=2) for _ in range(2))
        refused.sendall(written(b"{}"))
        assert response(refused)[0] == 429
    for connection in silent, refused:
        with connection:
            assert connection.recv(1) == b""


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux knows priorities of single threads")
def test_no_thread_that_computes_stands_back(packed_llama: dict[str, Path]) -> None:
    """Beside another busy program, engines whose threads wait for each other would be a hundred times slower."""
    own = os.getpriority(os.PRIO_PROCESS, threading.get_native_id())
    for packed in packed_llama.values():
        with running([Station.open("tiny", packed, 1, 1, 2)]) as served:
            assert served.ask("POST", "/v1/chat/completions", question(0))[0] == 200
            assert {os.getpriority(os.PRIO_PROCESS, int(thread)) for thread in os.listdir("/proc/self/task")} == {own}
