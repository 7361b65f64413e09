"""The server under bad requests, bad clients and too many of both: it refuses, clearly and at once, and lives."""

from __future__ import annotations

import contextlib
import json
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import openai
import pytest
from edgestill.cli.main import call
from edgestill.models.errors import UsageError
from edgestill.runtime.loading.load import load_streams
from edgestill.runtime.server import admission, check_address, names_of, requests
from edgestill.runtime.server.work_queue import Station

from ..serving import Running, response, running

KEY = "a key of sixteen letters or more"
QUESTION = [{"role": "user", "content": "turn off the kitchen light"}]


@pytest.fixture(scope="module")
def served(packed_llama: dict[str, Path]) -> Iterator[Running]:
    with running([Station("tiny", load_streams(packed_llama["gguf"], 1, 1), 2)], key=KEY) as found:
        yield found


def slowed(server: Running, wait: Callable[[], Any]) -> Callable[[], None]:
    """Make every token of the model wait; gives back what undoes it."""
    engine = server.service.stations["tiny"].model.engine
    fast = engine.decode

    def slow(token: int) -> Any:
        wait()
        return fast(token)

    engine.decode = slow
    return lambda: delattr(engine, "decode")


def until(wanted: Callable[[], bool], seconds: float = 5) -> float:
    """Seconds until something holds."""
    start = time.perf_counter()
    while not wanted():
        assert time.perf_counter() - start < seconds, "it never came true"
        time.sleep(0.005)
    return time.perf_counter() - start


WRONG = {
    "messages": [None, [], "text", [1], [{"role": "robot", "content": "a"}], [{"role": "user", "content": 1}],
                 [{"role": "user", "content": [{"type": "image_url"}]}], [{"role": "user", "content": "a"}] * 1025,
                 [{"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": "{"}}]}],
                 [{"role": "user", "content": "\ud800"}], [{"role": "user", "content": "long " * 400}]],
    "max_tokens": [0, -1, "3", 1.5, True, 10**9], "n": [0, 17, "1"], "temperature": [-1, "hot", 1e9],
    "stop": [["a"] * 17, "a" * 513, [1], {}], "top_p": [2],
    "logit_bias": [{"a": 1}, {"5": 1000}, [1], {"99999": 1}, {"9" * 20: 1}, {"\u0663": 1}],
    "seed": [-2**64, 1.5], "stream": ["yes"], "tools": ["f", [1]], "tool_choice": ["required"], "top_logprobs": [21],
    "model": [1], "response_format": [{"type": "xml"}, "json", {"type": "json_schema"}, {
        "type": "json_schema", "json_schema": {"schema": {"type": "no such"}}}],
    "regex": ["(" * 60_000, "(a{1000}){1000}b"], "grammar": ["(" * 60_000, "start: nothing", 1, "[" * 300_000],
    "presence_penalty": [float("nan")], "stream_options": [1],
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_fields_are_named(name: str, served: Running) -> None:
    for value in WRONG[name]:
        body = {"messages": QUESTION, "max_tokens": 1, "logprobs": name == "top_logprobs", name: value}
        started = time.perf_counter()
        status, found, _ = served.ask("POST", "/v1/chat/completions", body)
        assert status == 400, (str(value)[:80], found)
        assert found["error"]["type"] == "invalid_request_error" and len(found["error"]["message"]) < 1000
        assert time.perf_counter() - started < 20
        if name not in ("messages", "regex", "response_format"):
            assert name in found["error"]["message"] + str(found["error"]["param"]), found


@pytest.mark.parametrize(("body", "status"), [
    (b"", 400), (b"{", 400), (b"[]", 400), (b'{"messages": "\xff"}', 400), (b'{"a":' * 60_000, 400),
    (b"[" * 60_000, 400), (b'{"seed": ' + b"9" * 5000 + b"}", 400), (b" " * (4 * 2**20 + 1), 413)])
def test_bodies_that_are_no_request(body: bytes, status: int, served: Running) -> None:
    line = f'edgestill_requests_total{{model="tiny",path="/v1/chat/completions",status="{status}"}}'
    before = served.metric(line)
    found = served.ask("POST", "/v1/chat/completions", body)
    assert found[0] == status and found[1]["error"]["message"]
    assert served.metric(line) == before + (status == 400)
    assert served.ask("GET", "/health")[0] == 200


def test_a_body_far_too_long_is_refused_in_words(served: Running) -> None:
    status, found, _ = served.ask("POST", "/v1/chat/completions", b'{"messages": "' + b"a" * 12 * 2**20 + b'"}')
    assert status == 413 and "more than 4194304 bytes" in found["error"]["message"]


def test_a_body_without_end_is_not_read_for_ever(served: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(admission, "LINGER", 5 * 2**20)
    with socket.create_connection(("127.0.0.1", served.port), timeout=10) as client:
        client.sendall(f"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {KEY}\r\n"
                       "Content-Type: application/json\r\nContent-Length: 99999999999\r\n\r\n".encode())
        with contextlib.suppress(ConnectionError):
            for _ in range(7):
                client.sendall(b" " * 2**20)
        started = time.perf_counter()
        with contextlib.suppress(ConnectionError):
            while client.recv(4096):
                pass
    assert time.perf_counter() - started < admission.BODY_SECONDS / 2


def test_packed_bodies_are_refused_by_their_packing(served: Running) -> None:
    status, found, _ = served.ask("POST", "/v1/chat/completions", b"\x1f\x8b", Content_Encoding="gzip")
    assert status == 415 and "content-encoding: 'gzip'" in found["error"]["message"]


def test_a_schema_too_deep_is_refused(served: Running) -> None:
    schema: dict[str, Any] = {"type": "string"}
    for _ in range(120):
        schema = {"type": "array", "items": schema}
    status, found, _ = served.ask("POST", "/v1/chat/completions", {"messages": QUESTION, "response_format": {
        "type": "json_schema", "json_schema": {"schema": schema}}})
    assert status == 400 and "nested" in found["error"]["message"]


def test_texts_and_ids_are_checked(served: Running) -> None:
    for wrong in ({}, {"prompt": []}, {"prompt": [[]]}, {"prompt": [10**6]}, {"prompt": [-1]}, {"prompt": {"a": 1}},
                  {"prompt": "a", "logprobs": 21}, {"prompt": "a", "max_tokens": 0}, {"prompt": ["a"] * 2049},
                  {"prompt": [1] * 300, "echo": True, "logprobs": 1}, {"prompt": ""}, {"prompt": "\ud800"}):
        status, found, _ = served.ask("POST", "/v1/completions", wrong)
        assert status == 400 and found["error"]["message"], wrong
        assert found["error"]["param"] in ("prompt", "prompt[0]", "logprobs", "max_tokens"), found
    assert served.ask("POST", "/v1/completions", {"prompt": [[1], [10**6]]})[1]["error"]["param"] == "prompt[1]"


def test_slow_bodies_leave_memory_and_way_to_short_ones(packed_llama: dict[str, Path],
                                                        monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(admission, "ROOM_BYTES", 3 * 2**20)
    head = (f"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
            f"Content-Length: {2 * 2**20}\r\n\r\n").encode()
    with running([Station("tiny", load_streams(packed_llama["gguf"], 1, 1), 8)]) as server, \
            contextlib.ExitStack() as ended:
        first, second = (ended.enter_context(socket.create_connection(("127.0.0.1", server.port), timeout=10))
                         for _ in range(2))
        first.sendall(head + b" " * (2 * 2**20 - 1))
        time.sleep(0.2)
        second.sendall(head + b" " * (2 * 2**20 - 1))
        status, body, headers = response(second)
        assert status == 429 and b"bodies_full" in body and headers["retry-after"] == "1"
        ask = {"prompt": "turn off", "max_tokens": 1}
        assert server.ask("POST", "/v1/completions", ask)[0] == 200
        first.sendall(b"]")
        assert response(first)[0] == 400
        long = json.dumps(ask).encode() + b" " * (2 * 2**20 + 2**19)
        assert server.ask("POST", "/v1/completions", long)[0] == 200, "what was held is free again"


def test_who_may_ask(served: Running) -> None:
    assert served.ask("GET", "/v1/models", Authorization=f"bearer  {KEY}")[0] == 200
    for header in ("", "Bearer", "Bearer wrong", f"Basic {KEY}", KEY, f"Bearer{KEY}"):
        status, found, headers = served.ask("GET", "/v1/models", Authorization=header)
        assert (status, found["error"]["code"]) == (401, "invalid_api_key")
    for host in ("evil.example", "evil.example:80", "127.0.0.1.evil.example:1"):
        assert served.ask("GET", "/v1/models", Host=host)[0] == 403
    assert served.ask("POST", "/v1/completions", b"{}", Content_Type="text/plain")[0] == 415
    assert served.ask("GET", "/nothing")[:2] == (404, {"error": {
        "message": "there is nothing at /nothing", "type": "invalid_request_error", "param": None, "code": None}})
    there = served.ask("POST", "/chat/completions", b"{}")
    assert there[0] == 404 and there[1]["error"]["message"].endswith("it is at /v1/chat/completions")
    assert served.ask("GET", "/v1/completions")[0] == 405
    for name, value in (("X_Long", "a" * 20_000), ("X" * 20_000, "a")):
        assert served.ask("GET", "/v1/models", **{name: value})[0] == 431


def test_a_failure_of_the_server_is_said_counted_and_logged(served: Running, monkeypatch: pytest.MonkeyPatch,
                                                            caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr(requests, "completion", lambda body: 1 / 0)
    status, found, _ = served.ask("POST", "/v1/completions", {"prompt": "a"})
    assert (status, found["error"]["type"]) == (500, "server_error") and "log" in found["error"]["message"]
    assert served.metric('edgestill_requests_total{model="tiny",path="/v1/completions",status="500"}') == 1
    assert "ZeroDivisionError" in caplog.text


@pytest.mark.parametrize("stream", [False, True])
def test_a_client_that_leaves_stops_its_compute(stream: bool, served: Running) -> None:
    station = served.service.stations["tiny"]
    undo = slowed(served, lambda: time.sleep(0.02))
    try:
        sent = json.dumps({"messages": QUESTION, "max_tokens": 200, "stream": stream}).encode()
        with socket.create_connection(("127.0.0.1", served.port)) as client:
            client.sendall(b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\n"
                           b"Content-Type: application/json\r\nAuthorization: Bearer %s\r\n"
                           b"Content-Length: %d\r\n\r\n%s" % (KEY.encode(), len(sent), sent))
            until(lambda: station.active == 1)
            if stream:
                assert client.recv(64).startswith(b"HTTP/1.1 200")
        assert until(lambda: station.active == 0) < 0.25
    finally:
        undo()
    until(lambda: served.metric('edgestill_cancelled_total{model="tiny"}') >= 1 + stream)


def test_a_full_queue_refuses_at_once_and_keeps_the_order(served: Running) -> None:
    station, statuses, ends = served.service.stations["tiny"], [], []
    admission, client = threading.Semaphore(0), served.client()
    undo = slowed(served, admission.acquire)

    def ask(number: int) -> None:
        statuses.append(served.ask("POST", "/v1/chat/completions", {"messages": QUESTION, "max_tokens": 20})[0])
        ends.append(number)

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(3)]
    try:
        for count, thread in enumerate(threads):
            thread.start()
            until(lambda count=count: station.active + station.waiting == count + 1)
        for _ in range(20):
            status, found, headers = served.ask("POST", "/v1/chat/completions", {"messages": QUESTION})
            assert status == 429 and int(headers["retry-after"]) >= 1
            assert found["error"]["code"] == "queue_full"
        with pytest.raises(openai.RateLimitError):
            client.chat.completions.create(model="", messages=QUESTION)  # type: ignore[arg-type]
        while len(ends) < 3:  # token by token: two answers that end together could be told in either order
            admission.release()
            time.sleep(0.01)
    finally:
        undo()
        admission.release(100)
    for thread in threads:
        thread.join()
    assert statuses == [200] * 3 and ends == [0, 1, 2]


def test_a_body_that_comes_too_slowly_is_refused(served: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(admission, "BODY_SECONDS", 0.2)
    with socket.create_connection(("127.0.0.1", served.port), timeout=5) as client:
        client.sendall(b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
                       b"Authorization: Bearer %s\r\nContent-Length: 9\r\n\r\n{" % KEY.encode())
        got = b"".join(iter(lambda: client.recv(4096), b""))  # and the connection ends
    assert got.startswith(b"HTTP/1.1 408") and b"within 0.2 s" in got


def test_an_address_that_others_reach_needs_a_key() -> None:
    for host in ("0.0.0.0", "::", "192.168.0.2", "example.org"):
        with pytest.raises(UsageError, match="no API key is set"):
            check_address(host, "")
        check_address(host, KEY)
    for host in ("127.0.0.1", "::1", "localhost"):
        check_address(host, "")
    with pytest.raises(UsageError, match="the limit is 16"):
        check_address("localhost", "short")
    for key in ("sixteen letters ü", "sixteen letters or more\n", "\tsixteen letters or more"):
        with pytest.raises(UsageError, match="no header carries"):
            check_address("localhost", key)


def test_the_command(packed_llama: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    gguf = packed_llama["gguf"]
    with pytest.raises(UsageError, match="a second model"):
        names_of([gguf, gguf])
    assert names_of([tmp_path / "a.b" / "model-1.5.gguf"]).keys() == {"model-1.5"}
    assert call(["serve", str(gguf), "--host", "0.0.0.0"]) == 2
    assert "--api-key" in capsys.readouterr().err
    assert call(["serve", str(tmp_path / "nothing"), "--port", "0"]) == 1
    with socket.create_server(("127.0.0.1", 0)) as taken:
        assert call(["serve", str(gguf), "--port", str(taken.getsockname()[1])]) == 2
        assert "cannot listen" in capsys.readouterr().err
    process = subprocess.Popen([sys.executable, "-m", "edgestill", "serve", str(gguf), "--port", "0", "--threads", "1",
                                "--fallback", "http://127.0.0.1:9/v1", "--threshold", "0"],
                               stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None and process.stdout is not None
    lines = [process.stderr.readline() for _ in range(3)]
    assert lines[0] == "gguf: generate, gguf:F32, threads: 1\n" and lines[2].startswith("serving at http://127.0.0.1:")
    assert lines[1].startswith("Messages leave this machine: chats") and "below 0) are" in lines[1]
    port = int(lines[2].rpartition(":")[2])
    assert Running(None, port).client().chat.completions.create(  # type: ignore[arg-type]
        model="", messages=QUESTION, max_tokens=2).usage.completion_tokens == 2  # type: ignore[arg-type, union-attr]
    process.terminate()
    out, rest = process.communicate(timeout=20)
    assert out == "" and rest.count("\n") == 1 and "answered by the model, least confidence" in rest


def test_the_runtime_needs_no_server() -> None:
    code = ("import sys\nsys.modules['starlette'] = sys.modules['uvicorn'] = None\nimport edgestill.runtime\n"
            "from edgestill.runtime.server import serve\nfrom edgestill.models.errors import MissingExtra\n"
            "try:\n    serve(['x'])\nexcept MissingExtra as error:\n    print(error.hint)")
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout == "pip install 'edgestill[serve]'\n"
