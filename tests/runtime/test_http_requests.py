"""One request to an OpenAI-compatible server, timed: what counts, and what is refused."""

from __future__ import annotations

import json
from typing import Any

import pytest
from edgestill.models.errors import UsageError
from edgestill.runtime.generation.remote import RemoteError
from edgestill.runtime.profiling.http_requests import EMBEDDINGS, ask

from ..remote_stub import Answer, Stub, said, streamed

ASKED: dict[str, Any] = {"model": "big-1", "messages": [{"role": "user", "content": "hello"}]}


def events(*chunks: Any, end: bool = True) -> Answer:
    lines = [f"data: {json.dumps(chunk)}\n\n" for chunk in chunks] + (["data: [DONE]\n\n"] if end else [])
    return 200, {"Content-Type": "text/event-stream"}, "".join(lines).encode()


def delta(**part: Any) -> dict[str, Any]:
    return {"choices": [{"index": 0, "delta": part, "finish_reason": None}]}


def test_pieces_are_timed_and_tokens_counted_by_the_server(stub: Stub) -> None:
    stub.reply = lambda body: streamed("a", "b", "c")
    found = ask(stub.url, ASKED, key="secret")
    assert (found.text, found.finish, found.prompt_tokens, found.new_tokens) == ("abc", "stop", 30, 4)
    assert found.counted == "usage" and len(found.token_ns) == 3 and found.connect_ns > 0
    assert 0 < found.token_ns[0] <= found.token_ns[-1] <= found.end_ns
    path, key, body = stub.requests[0]
    assert (path, key) == ("/v1/chat/completions", "Bearer secret")
    assert body == {**ASKED, "stream": True, "stream_options": {"include_usage": True}}


def test_without_usage_pieces_are_counted_thoughts_and_calls_too(stub: Stub) -> None:
    call = {"index": 0, "function": {"name": "light"}}
    stub.reply = lambda body: events(delta(role="assistant", content=""), delta(reasoning_content="hm"),
                                     delta(content="x"), delta(tool_calls=[call]), {"choices": [], "timings": {"n": 1}})
    found = ask(stub.url.removesuffix("/v1"), ASKED)  # /v1 is where such servers answer
    assert (found.new_tokens, found.counted, found.text, found.timings) == (3, "pieces", "x", {"n": 1})
    assert found.prompt_tokens is None and stub.requests[0][1] is None


def test_an_answer_that_is_not_streamed_is_one_piece(stub: Stub) -> None:
    stub.reply = lambda body: said("whole")
    found = ask(stub.url, ASKED)
    assert (found.text, found.new_tokens, len(found.token_ns)) == ("whole", 4, 1)
    stub.reply = lambda body: (200, {}, json.dumps({"data": [{"embedding": [1.0]}], "usage": {"prompt_tokens": 5}})
                               .encode())
    vector = ask(stub.url, {"model": "big-1", "input": "hello"}, path=EMBEDDINGS)
    assert (vector.prompt_tokens, vector.token_ns) == (5, ()) and stub.requests[-1][0] == "/v1/embeddings"
    assert "stream" not in stub.requests[-1][2]


@pytest.mark.parametrize(("answer", "told"), [
    ((500, {}, b"out of memory"), "answered 500: out of memory"), ((429, {}, b""), "answered 429"),
    (events({"error": {"message": "no"}}), "no answer in OpenAI's form"), ((200, {}, b"<html>"), "no answer in"),
    (events({"choices": [1]}), "no answer in"), (events(delta(content="a"), end=False), "broke off"),
    (events(delta(content="a" * 2**23)), "more than 8,388,608 bytes")])
def test_what_is_no_answer_is_an_error(answer: Answer, told: str, stub: Stub) -> None:
    stub.reply = lambda body: answer
    with pytest.raises(RemoteError, match=told) as error:
        ask(stub.url, ASKED)
    assert error.value.busy is ("429" in told) and len(stub.requests) == 1  # asked once, whatever comes


def test_a_server_that_is_not_there_or_slow_is_an_error(stub: Stub) -> None:
    with pytest.raises(RemoteError, match="cannot be reached"):
        ask("http://127.0.0.1:9", ASKED)
    stub.reply = lambda body: streamed("a")
    with pytest.raises(RemoteError, match="had not ended its answer after 1e-05 s|timed out|cannot be reached"):
        ask(stub.url, ASKED, timeout=1e-5)


def test_prompts_travel_encrypted_to_other_machines() -> None:
    with pytest.raises(UsageError, match=r"pi5\.local: prompts would travel there unencrypted") as error:
        ask("http://pi5.local:8080/v1", ASKED)
    assert "ssh -N -L 8080:localhost:8080 pi5.local" in error.value.hint
    with pytest.raises(UsageError, match="not an http or https address"):
        ask("ftp://host", ASKED)
