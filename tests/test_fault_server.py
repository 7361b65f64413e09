"""The fault server does on the wire what it says; what it sends well, OpenAI's own client reads."""

from __future__ import annotations

import contextlib
import email.utils
import json
import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections import Counter
from collections.abc import Iterator
from http.client import HTTPConnection, IncompleteRead
from itertools import pairwise
from typing import Any

import jsonschema
import openai
import pytest

from .fault_server import FAULTS, FaultServer, Group, of_group
from .fault_server.refusals import REFUSALS
from .wheels import ROOT

TEXT = "Grüße, 世界 🌍: " + "was kostet das? " * 3
ANSWER = f"answer: {TEXT}"
KEY = "sk-proj-0123456789abcdefghij"


@pytest.fixture(scope="module")
def server() -> Iterator[FaultServer]:
    """Each request names its fault in a header."""
    with FaultServer(choose=lambda asked: asked.headers.get("x-fault", ""), stall=0.2) as running:
        yield running


def body_of(text: str = TEXT, **fields: Any) -> dict[str, Any]:
    """A request."""
    messages = [{"role": "system", "content": "Secret instructions."}, {"role": "user", "content": text}]
    return {"model": "big", "messages": messages, **fields}


def ask(server: FaultServer, fault: str, **fields: Any) -> tuple[int, dict[str, str], bytes]:
    """Status, headers and body, as Python's own client reads them."""
    connection = HTTPConnection("127.0.0.1", server.port, timeout=5)
    try:
        headers = {"X-Fault": fault, "Authorization": f"Bearer {KEY}"}
        connection.request("POST", "/v1/chat/completions", json.dumps(body_of(**fields)), headers)
        response = connection.getresponse()
        return response.status, {name.lower(): value for name, value in response.getheaders()}, response.read()
    finally:
        connection.close()


def request(fault: str, **fields: Any) -> bytes:
    """The same request as it is sent."""
    data = json.dumps(body_of(**fields)).encode()
    return (f"POST /v1/chat/completions HTTP/1.1\r\nHost: here\r\nX-Fault: {fault}\r\n"
            f"Content-Length: {len(data)}\r\n\r\n").encode() + data


def raw(server: FaultServer, fault: str, until: bytes = b"\0", timeout: float = 5,
        **fields: Any) -> tuple[bytes, type[OSError] | None]:
    """What comes, to the end or `until`, and how the connection ended: None where it was closed or is still open."""
    found = b""
    with socket.create_connection(("127.0.0.1", server.port), timeout=timeout) as connection:
        connection.sendall(request(fault, **fields))
        try:
            while not found.endswith(until) and (piece := connection.recv(65536)):
                found += piece
        except (ConnectionError, TimeoutError) as error:
            return found, type(error)
    return found, None


@pytest.fixture(scope="module")
def client(server: FaultServer) -> Iterator[openai.OpenAI]:
    """OpenAI's own."""
    with openai.OpenAI(base_url=server.url, api_key=KEY, max_retries=0, timeout=5) as running:
        yield running


RETRY = {"retry-after": "1"}
# Status, headers, and what stands in the body: fields of a JSON error, or a part of an HTML page.
DOCUMENTED: dict[str, tuple[int, dict[str, str], dict[str, Any] | str]] = {
    "429_seconds": (429, {**RETRY, "x-ratelimit-remaining-tokens": "0", "x-ratelimit-reset-tokens": "1018ms"},
                    {"type": "tokens", "code": "rate_limit_exceeded"}),
    "429_ms": (429, {"retry-after-ms": "1000", "x-ratelimit-reset-requests": "1s"}, {"type": "requests"}),
    "429_date": (429, {}, {"code": "slow_down"}),
    "429_together": (429, {"x-ratelimit-reset": "1"}, {"type": "credit_limit"}),
    "429_azure": (429, {**RETRY, "retry-after-ms": "1000", "x-ratelimit-remaining-tokens": "-1"}, {"code": "429"}),
    "429_mistral": (429, {}, {"object": "error", "type": "rate_limited", "code": "1300"}),
    "429_anthropic": (429, RETRY, {"type": "rate_limit_error"}),
    "429_litellm": (429, RETRY, {"type": "throttling_error", "code": "429"}),
    "429_at_once": (429, {"retry-after": "0"}, {"type": "tokens"}),
    "408": (408, {}, {"code": 408}),
    "500": (500, {}, {"type": "server_error", "code": None}),
    "500_vllm": (500, {}, {"object": "error", "type": "InternalServerError"}),
    "502_html": (502, {"server": "cloudflare"}, "<h1>502 Bad Gateway</h1>"),
    "503": (503, RETRY, {"code": "server_is_overloaded"}),
    "503_llama": (503, {}, {"message": "Loading model", "type": "unavailable_error"}),
    "503_html": (503, {}, "nginx"),
    "529": (529, {}, {"type": "overloaded_error"}),
    "504_html": (504, {}, "504 Gateway Time-out"),
    "524": (524, {}, "A timeout occurred"),
    "400_context": (400, {}, {"code": "context_length_exceeded", "param": "messages"}),
    "400_context_vllm": (400, {}, {"object": "error", "type": "BadRequestError", "code": 400}),
    "400_context_llama": (400, {}, {"type": "exceed_context_size_error", "n_ctx": 8192}),
    "400_content_filter": (400, {}, {"code": "content_filter", "param": "prompt"}),
    "403_context": (403, {}, {"type": "invalid_request_error", "code": None}),
    "403_moderation": (403, {}, {"code": 403}),
    "413_html": (413, {}, "Request Entity Too Large"),
    "422_quotes_input": (422, {}, {"object": "error", "type": "invalid_request_error"}),
    "429_too_large": (429, {}, {"type": "tokens", "code": "rate_limit_exceeded"}),
    "401": (401, {}, {"code": "invalid_api_key"}),
    "401_litellm": (401, {}, {"type": "token_not_found_in_db", "param": "key"}),
    "402": (402, {}, {"code": 402}),
    "403": (403, {}, {"code": "unsupported_country_region_territory"}),
    "404_model": (404, {}, {"code": "model_not_found",
                            "message": "The model `big` does not exist or you do not have access to it."}),
    "404_html": (404, {}, "404 Not Found"),
    "429_quota": (429, {}, {"type": "insufficient_quota", "code": "insufficient_quota"}),
    "429_credit": (429, RETRY, {"type": "insufficient_quota", "code": "credit_balance_exhausted"}),
    "429_spend_limit": (429, RETRY, {"type": "insufficient_quota", "code": "project_spend_limit_exceeded"}),
    "429_spent_anthropic": (429, {}, {"details": {"error_code": "enforced_spend_limit_reached"}}),
    "429_a_day": (429, {"retry-after": "86400"}, {"code": "429"}),
    "307_elsewhere": (307, {}, "Temporary Redirect"),
    "400_temperature": (400, {}, {"code": "unsupported_value", "param": "temperature"}),
    "400_max_tokens": (400, {}, {"code": "unsupported_parameter", "param": "max_tokens"}),
    "400_logprobs": (400, {}, {"code": "unsupported_parameter", "param": "logprobs"}),
    "403_logprobs": (403, {}, {"message": "You are not allowed to request logprobs from this model", "code": None}),
    "400_schema": (400, {}, {"param": "response_format"}),
}
EVERYTHING = {"temperature": 0.2, "max_tokens": 9, "logprobs": True, "response_format": {"type": "json_schema"}}


@pytest.mark.parametrize("fault", sorted(REFUSALS))
def test_a_refusal_is_as_documented(server: FaultServer, fault: str) -> None:
    status, headers, found = ask(server, fault, **EVERYTHING)
    expected, expected_headers, content = DOCUMENTED[fault]
    assert (status, expected_headers) == (expected, {name: headers.get(name) for name in expected_headers})
    if isinstance(content, str):
        assert headers["content-type"] == "text/html" and content in found.decode()
    else:
        error = json.loads(found)
        error = error.get("error", error)
        assert headers["content-type"] == "application/json" and content == {name: error[name] for name in content}
        assert error["message"]
    assert ("retry-after" in headers) == ("retry-after" in expected_headers or fault == "429_date")
    assert server.calls[-1].billed == (FAULTS[fault] is Group.LOST) and not server.calls[-1].usable


def test_what_a_refusal_tells_of_the_request(server: FaultServer) -> None:
    date = email.utils.parsedate_to_datetime(ask(server, "429_date")[1]["retry-after"]).timestamp()
    assert 0.9 < date - time.time() <= 2.1
    assert b"sk-proj-" + b"*" * 16 + b"ghij." in ask(server, "401")[2]
    assert b"sk-...ghij, Key Hash (Token) =" in ask(server, "401_litellm")[2]
    assert json.loads(ask(server, "422_quotes_input")[2])["message"]["detail"][0]["input"] == body_of()["messages"]
    assert ask(server, "307_elsewhere")[1]["location"] == f"http://localhost:{server.port}/v1/chat/completions"


@pytest.mark.parametrize("fault", of_group(Group.CAPABILITY))
def test_a_field_that_is_not_sent_is_not_refused(server: FaultServer, fault: str) -> None:
    status, _, found = ask(server, fault, temperature=1)
    assert status == 200 and json.loads(found)["choices"][0]["message"]["content"] == ANSWER


@pytest.mark.parametrize("stream", [False, True])
def test_connections_break_where_they_are_said_to(server: FaultServer, stream: bool) -> None:
    for fault, end, billed in (("reset_before_work", ConnectionResetError, False), ("closed_before_work", None, False),
                               ("reset_after_work", ConnectionResetError, True)):
        assert raw(server, fault, stream=stream) == (b"", end)
        assert (server.calls[-1].billed, server.calls[-1].delivered) == (billed, False)
    for fault, end in (("reset_midway", ConnectionResetError), ("closed_midway", None)):
        found, ended = raw(server, fault, stream=stream)
        assert ended is end and found.startswith(b"HTTP/1.1 200 OK\r\n") and server.calls[-1].billed
        assert b'"assistant"' in found and b"[DONE]" not in found and b"finish_reason\": \"stop" not in found
    with pytest.raises(IncompleteRead):
        ask(server, "closed_midway", stream=stream)


def test_an_answer_may_be_cut_where_http_does_not_tell(server: FaultServer) -> None:
    status, headers, found = ask(server, "cut_clean")
    assert status == 200 and int(headers["content-length"]) == len(found)
    with pytest.raises(json.JSONDecodeError):
        json.loads(found)
    found = ask(server, "cut_clean", stream=True)[2]
    assert b'"content": "answer' in found and b"[DONE]" not in found and b'"stop"' not in found
    assert ask(server, "empty_200")[::2] == (200, b"")
    assert b"Sign in" in ask(server, "html_200")[2] and not server.calls[-1].billed


@pytest.mark.parametrize(("fault", "kind"), [
    ("error_in_200", "server_error"), ("error_in_200_vllm", "InternalServerError"),
    ("error_in_200_anthropic", "overloaded_error")])
def test_an_error_may_stand_in_a_200(server: FaultServer, fault: str, kind: str) -> None:
    status, _, found = ask(server, fault)
    error = json.loads(found)
    assert status == 200 and error.get("error", error)["type"] == kind
    found = ask(server, fault, stream=True)[2]
    assert b'"content": "answer' in found and kind.encode() in found.rpartition(b"data: ")[2] and b"[DONE]" not in found


@pytest.mark.parametrize("stream", [False, True])
def test_slow_answers(server: FaultServer, monkeypatch: pytest.MonkeyPatch, stream: bool) -> None:
    connection = HTTPConnection("127.0.0.1", server.port, timeout=5)
    start = time.monotonic()
    connection.request("POST", "/v1/chat/completions", json.dumps(body_of(stream=stream)), {"X-Fault": "slow_drip"})
    response = connection.getresponse()
    pieces = list(iter(lambda: response.read1(65536), b""))
    connection.close()
    assert time.monotonic() - start > 0.19 and len(pieces) > 3  # long, but never silent for long
    assert b"[DONE]" in b"".join(pieces) or json.loads(b"".join(pieces))
    monkeypatch.setattr(server, "stall", 60.0)
    assert raw(server, "slow_first_byte", timeout=0.05, stream=stream) == (b"", TimeoutError)
    assert server.calls[-1].billed  # the client has gone, the work was done


SPOILT: dict[str, tuple[Any, Any]] = {  # content and finish_reason
    "json_cut": (ANSWER[:-(len(ANSWER) // 2)], "stop"), "schema_broken": ('{"unexpected": [null]}', "stop"),
    "blank": (" \n", "stop"), "null_content": (None, "stop"), "length": (ANSWER[:-(len(ANSWER) // 2)], "length"),
    "length_reasoned": ("", "length"), "content_filter": (None, "content_filter"), "refusal": (None, "stop"),
    "overrun": ("", "insufficient_system_resource"), "model_length": (ANSWER, "model_length"),
    "tool_call": (None, "tool_calls"),
}


@pytest.mark.parametrize("fault", of_group(Group.SPOILT))
def test_a_spoilt_answer(server: FaultServer, fault: str) -> None:
    plain = json.loads(ask(server, fault)[2])
    call = server.calls[-1]
    assert call.billed and call.completion_tokens and call.delivered and not call.usable
    streamed = ask(server, fault, stream=True)[2]
    chunks = [json.loads(line[6:]) for line in streamed.decode().split("\n\n") if line.startswith("data: {")]
    if fault == "empty_choices":
        assert plain["choices"] == [] and all(chunk["choices"] == [] for chunk in chunks)
        return
    choice = plain["choices"][0]
    assert (choice["message"]["content"], choice["finish_reason"]) == SPOILT[fault]
    assert bool(choice["message"]["refusal"]) == (fault == "refusal")
    assert ("tool_calls" in choice["message"]) == (fault == "tool_call")
    deltas = [chunk["choices"][0]["delta"] for chunk in chunks]
    assert "".join(delta.get("content") or "" for delta in deltas) == (SPOILT[fault][0] or "")
    assert chunks[-1]["choices"][0]["finish_reason"] == SPOILT[fault][1]
    assert any("refusal" in delta for delta in deltas) == (fault == "refusal")
    assert any("tool_calls" in delta for delta in deltas) == (fault == "tool_call")


READ = ["", *(fault for fault in of_group(Group.ODD) if not fault.startswith("keep_alive"))]


@pytest.mark.parametrize("fault", READ)
def test_openais_client_reads_what_is_well(server: FaultServer, client: openai.OpenAI, fault: str) -> None:
    def create(**fields: Any) -> Any:
        return client.chat.completions.create(**body_of(**fields), extra_headers={"X-Fault": fault})

    expected = f"```json\n{ANSWER}\n```" if fault == "fenced" else ANSWER
    found = create()
    end = "eos" if fault == "eos" else "stop"
    assert found.choices[0].message.content == expected and found.choices[0].finish_reason == end
    assert (found.usage is None) == (fault in ("usage_missing", "usage_null"))
    assert (found.id == "chatcmpl-123") == (fault == "same_id") and (found.id is None) == (fault == "no_id")
    assert server.calls[-1].usable and server.calls[-1].answers == (ANSWER,)
    chunks = list(create(stream=True, stream_options={"include_usage": True}))
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert text == expected and [chunk.choices[0].finish_reason for chunk in chunks if chunk.choices][-1] == end
    if not fault.startswith("usage"):
        call, usage = server.calls[-1], next(chunk.usage for chunk in chunks if chunk.usage)
        assert (usage.prompt_tokens, usage.completion_tokens) == (call.prompt_tokens, call.completion_tokens)


@pytest.mark.parametrize(("fault", "end"), [("keep_alive_dropped", ConnectionResetError), ("keep_alive_closed", None)])
def test_a_connection_that_was_kept_is_of_no_use(server: FaultServer, fault: str, end: type[OSError] | None) -> None:
    with socket.create_connection(("127.0.0.1", server.port), timeout=5) as connection:
        connection.sendall(request(fault))
        found = b""
        while not found.endswith(b"}}"):
            found += connection.recv(65536)
        assert b"connection: close" not in found.lower() and len(server.calls) and server.calls[-1].usable
        before = len(server.calls)
        if end is None:
            assert connection.recv(1) == b""
        else:
            connection.sendall(request(fault))
            with pytest.raises(end):
                connection.recv(1)
        assert len(server.calls) == before  # nothing was asked


def test_how_good_answers_are_wrapped(server: FaultServer, client: openai.OpenAI) -> None:
    pinged = ask(server, "pings")[2]
    assert pinged.startswith(b"\n\n\n{") and ask(server, "pings", stream=True)[2].count(b": keep-alive\n\n") == 3
    assert "content-encoding" not in ask(server, "gzip")[1]  # Python's client did not say that it takes it
    response = client.chat.completions.with_raw_response.create(**body_of(), extra_headers={"X-Fault": "gzip"})
    assert response.headers["content-encoding"] == "gzip"
    pieces = raw(server, "split_characters", b"\r\n0\r\n\r\n")[0].partition(b"\r\n\r\n")[2].split(b"\r\n")[1::2]
    assert b"".join(pieces).decode()
    with pytest.raises(UnicodeDecodeError):
        pieces[0].decode()
    odd = ask(server, "odd_lines", stream=True)[2]
    assert odd.startswith(b": OPENROUTER PROCESSING\r\n\r\ndata:{\"choices\": [], ")
    assert b"content-length" not in raw(server, "until_close")[0].lower()
    wrong = json.loads(ask(server, "usage_wrong")[2])["usage"]
    assert wrong == {"prompt_tokens": 0, "completion_tokens": -7, "total_tokens": "many"}
    assert server.calls[-1].completion_tokens > 0  # the ledger knows better
    assert "usage" not in json.loads(ask(server, "usage_missing")[2])


def test_logprobs_several_answers_and_schemas(server: FaultServer, client: openai.OpenAI) -> None:
    schema = {"type": "object", "required": ["intent", "slots"], "properties": {
        "intent": {"enum": ["play", "stop"]}, "slots": {"type": "array", "items": {"anyOf": [{"type": "string"}]}},
        "sure": {"type": "boolean"}, "count": {"type": ["integer", "null"]}, "kind": {"const": 1},
        "no": {"type": "null"}}}
    found = client.chat.completions.create(**body_of(), logprobs=True, top_logprobs=3, n=2)
    told = client.chat.completions.create(**body_of(response_format={
        "type": "json_schema", "json_schema": {"name": "task", "schema": schema}}))
    tokens = found.choices[1].logprobs.content
    assert "".join(token.token for token in tokens) == ANSWER and len(tokens[0].top_logprobs) == 3
    assert b"".join(bytes(token.bytes) for token in tokens).decode() == ANSWER
    assert tokens[0].top_logprobs[0].token == tokens[0].token and tokens[0].logprob > tokens[0].top_logprobs[1].logprob
    jsonschema.validate(json.loads(told.choices[0].message.content), schema)
    plain = json.loads(ask(server, "", logprobs=True)[2])["choices"][0]["logprobs"]["content"]
    assert {len(token["top_logprobs"]) for token in plain} == {0}
    ignored = json.loads(ask(server, "logprobs_ignored", logprobs=True)[2])
    assert ignored["choices"][0]["logprobs"] is None


def test_the_draw_is_of_seed_content_and_attempt() -> None:
    def faults(seed: int, rate: float, **options: Any) -> list[str]:
        with FaultServer(seed=seed, rate=rate, stall=0.001, wait=0, **options) as drawn:
            for number in range(60):
                with contextlib.suppress(OSError, IncompleteRead):
                    ask(drawn, "", text=str(number // 3))
            return [call.fault for call in drawn.calls]

    refused = of_group(Group.REFUSED)
    once = faults(1, 0.4, faults=refused)
    assert once == faults(1, 0.4, faults=refused) != faults(2, 0.4, faults=refused)
    assert 0.25 < sum(map(bool, once)) / len(once) < 0.55 and len(set(once)) > 8
    assert any(first and not second for first, second in pairwise(once))
    for first, second, third in zip(*[iter(faults(1, 0.4, faults=of_group(Group.PERMANENT)))] * 3, strict=True):
        assert not first or first == second == third
    with pytest.raises(ValueError, match="no such faults: oops"):
        FaultServer(faults=["oops"])


def test_the_ledger_tells_early_and_simultaneous_calls_and_keys() -> None:
    with FaultServer(choose=lambda asked: "429_seconds" if asked.attempt == 1 else "", key=KEY, wait=60) as server:
        ask(server, "")
        assert ask(server, "")[0] == 200
        assert [call.early for call in server.calls] == [False, True]
        assert [call.attempt for call in server.calls] == [1, 2] and len({call.content for call in server.calls}) == 1
        assert server.calls[1].authorization == f"Bearer {KEY}" and server.calls[1].body == body_of()
        assert [call.billed for call in server.calls] == [False, True] and server.billed == server.calls[1:]
        assert server.calls[1].host == f"127.0.0.1:{server.port}"
        with openai.OpenAI(base_url=server.url, api_key="sk-another-key", max_retries=0) as other:
            with pytest.raises(openai.AuthenticationError):
                other.chat.completions.create(**body_of())
            assert [model.id for model in other.models.list()] == ["big"]
            with pytest.raises(openai.NotFoundError, match="Invalid URL"):
                other.embeddings.create(model="big", input="x")
            with pytest.raises(openai.BadRequestError, match="lacks a model or messages"):
                other.chat.completions.create(model="big", messages=[])


def test_the_ledger_tells_how_many_calls_were_in_flight() -> None:
    with FaultServer(latency=0.3) as server, contextlib.ExitStack() as stack:
        ask(server, "")
        assert server.most_at_once == 1
        address = ("127.0.0.1", server.port)
        asking = [stack.enter_context(socket.create_connection(address, timeout=5)) for _ in range(3)]
        for connection in asking:
            connection.sendall(request(""))
        for connection in asking:
            assert connection.recv(1)
        assert server.most_at_once == 3


def test_as_a_process_it_outlives_its_clients() -> None:
    command = [sys.executable, "-m", "tests.fault_server", "--seed", "1", "--latency", "0.2", "--labels", "yes,no"]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, env=os.environ) as process:
        try:
            assert process.stdout is not None
            url = process.stdout.readline().strip()
            port = int(url.removesuffix("/v1").rpartition(":")[2])
            with socket.create_connection(("127.0.0.1", port), timeout=5) as connection:
                connection.sendall(request(""))  # and gone while the teacher works
            assert json.loads(ask(FaultServer(port=port), "")[2])["choices"][0]["message"]["content"] in ("yes", "no")
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/ledger", timeout=5) as response:
                calls = json.load(response)
        finally:
            process.kill()
    assert [(call["billed"], call["delivered"]) for call in calls] == [(True, False), (True, True)]
    assert Counter(call["content"] for call in calls).most_common(1)[0][1] == 2
