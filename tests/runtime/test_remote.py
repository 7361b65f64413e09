"""A model behind an address, against a local server that speaks the wire format."""

from __future__ import annotations

import json
from http.client import BadStatusLine
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import Mock

import pytest
from edgestill.cli import main
from edgestill.cli.commands import cascading
from edgestill.models.errors import EdgestillError, UsageError
from edgestill.runtime.evaluation.cascade import ask_remote
from edgestill.runtime.evaluation.handover import sent
from edgestill.runtime.generation import remote
from edgestill.runtime.generation.remote import Remote

from ..remote_stub import Answer, Stub, said
from ..tiny import SENTENCES

ASKED = [{"role": "user", "content": "hello"}]


def test_a_conversation_is_asked_as_the_api_wants_it(stub: Stub) -> None:
    assert Remote(stub.url + "/", "big", "secret", "Be short.")(ASKED) == "HELLO"
    assert Remote(stub.url, "big")(ASKED) == "HELLO"
    system = {"role": "system", "content": "Be short."}
    assert stub.requests == [
        ("/v1/chat/completions", "Bearer secret", {"model": "big", "messages": [system, *ASKED], "temperature": 0}),
        ("/v1/chat/completions", None, {"model": "big", "messages": ASKED, "temperature": 0})]


def test_a_busy_server_is_asked_again(stub: Stub, monkeypatch: pytest.MonkeyPatch) -> None:
    waits: list[float] = []
    monkeypatch.setattr(remote.time, "sleep", waits.append)
    busy = (429, {"Retry-After": "7"}, b""), (503, {"Retry-After": "3600"}, b""), (500, {}, b"")
    replies = iter([*busy, said("done")])
    stub.reply = lambda body: next(replies)
    assert Remote(stub.url, "big")(ASKED) == "done"
    assert waits == [7, remote.LONGEST_WAIT, 4]
    stub.reply = lambda body: (500, {}, b"broken")
    with pytest.raises(EdgestillError, match="answered 500: broken"):
        Remote(stub.url, "big")(ASKED)
    assert len(stub.requests) == 4 + remote.TRIES


@pytest.mark.parametrize(("answer", "message"), [
    ((401, {}, b'{"error": {"message": "no such key"}}'), "answered 401: .*no such key"),
    ((302, {"Location": "http://127.0.0.1:9/v1"}, b""), "answered 302"),
    ((200, {}, b"<html>"), "no chat completion: <html>"),
    ((200, {}, b'{"choices": []}'), "no chat completion"),
    ((200, {}, b'{"choices": [{"message": {"content": null}}]}'), "no chat completion"),
])
def test_what_is_no_answer_is_said_at_once(answer: Answer, message: str, stub: Stub) -> None:
    stub.reply = lambda body: answer
    with pytest.raises(EdgestillError, match=message):
        Remote(stub.url, "big", "secret")(ASKED)
    assert len(stub.requests) == 1


def test_a_row_is_asked_of_an_address_with_its_tools_and_turns(stub: Stub) -> None:
    small: Any = SimpleNamespace(codec=SimpleNamespace(system="Short."), artifact=None)
    tools = [{"type": "function", "function": {"name": "dim", "parameters": {"type": "object"}}}]
    call = {"type": "function", "function": {"name": "dim", "arguments": {"room": "hall"}}}
    turns = [*ASKED, {"role": "assistant", "content": "", "tool_calls": [call]}, {"role": "tool", "content": "done"}]
    stub.reply = lambda body: said("", tool_calls=[{"id": "a", "type": "function", "function": {
        "name": "dim", "arguments": '{"room": "attic"}'}}])
    found = ask_remote(Remote(stub.url, "big"), small, turns, tools)
    assert found == '[{"name":"dim","arguments":{"room":"attic"}}]'  # as rows write calls
    body = stub.requests[0][2]
    assert body["tools"] == tools and body["messages"][0] == {"role": "system", "content": "Short."}
    assert body["messages"][2]["tool_calls"] == [{"type": "function", "id": "call_1_0", "function": {
        "name": "dim", "arguments": '{"room": "hall"}'}}]
    assert body["messages"][3] == {"role": "tool", "content": "done", "tool_call_id": "call_1_0"}
    ask_remote(Remote(stub.url, "big", "", "Long."), small, ASKED)
    assert stub.requests[1][2]["messages"] == [{"role": "system", "content": "Long."}, *ASKED]


def test_addresses_that_cannot_be_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    for url in ("file:///etc/passwd", "http://", "ftp://host/v1", "http://[", "http://host:99999/v1",
                "http://host/a b"):
        with pytest.raises(UsageError, match="not an http or https address"):
            Remote(url, "big")
    for url in ("https://me:secret@host/v1", "https://host/v1?key=secret", "https://host/v1#a"):
        with pytest.raises(UsageError, match="the key apart from it") as caught:
            Remote(url, "big")
        assert "secret" not in str(caught.value)
    with pytest.raises(UsageError, match="unencrypted"):
        Remote("http://host/v1", "big", "secret")
    monkeypatch.setattr(remote.time, "sleep", lambda seconds: None)
    with pytest.raises(EdgestillError, match="cannot be reached"):
        Remote("http://127.0.0.1:9/v1", "big")(ASKED)
    model = Remote("http://127.0.0.1:9/v1", "big")
    monkeypatch.setattr(model._opener, "open", Mock(side_effect=BadStatusLine("SSH-2.0")))
    with pytest.raises(EdgestillError, match="cannot be reached: SSH-2.0"):
        model(ASKED)


def test_the_verb_cascade(stub: Stub, packed_bert: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str],
                          monkeypatch: pytest.MonkeyPatch) -> None:
    rows, out = tmp_path / "rows.jsonl", tmp_path / "fit.json"
    rows.write_text("".join(json.dumps({"text": f"{SENTENCES[i % 8]} {i}", "label": "light"}) + "\n"
                            for i in range(60)))
    words = ["cascade", str(packed_bert), "--rows", str(rows), "--threads", "1"]
    assert main.call([*words, str(packed_bert), "--target", "1", "--price", "0.01", "--json", "-o", str(out)]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found == json.loads(out.read_text()) and found["rows"] == 60
    fit = found["fits"][0]
    assert fit["agreement"]["value"] == fit["agreement_of_all"] == 1 and fit["coverage"]["value"] > 0.5
    assert fit["saved_of_1000_calls"]["money"] == pytest.approx(10 * fit["coverage"]["value"])

    monkeypatch.setenv(cascading.KEY, "secret")
    stub.reply = lambda body: said("light")
    assert main.call([*words, stub.url, "--model", "big", "--limit", "40"]) == 0
    by_url = capsys.readouterr()
    assert len(stub.requests) == 40 and {request[1] for request in stub.requests} == {"Bearer secret"}
    assert stub.requests[0][2]["messages"][0]["content"].endswith("light, music, weather")
    assert main.call([*words, "--limit", "40"]) == 0  # the rows' own labels say the same
    by_rows = capsys.readouterr()
    assert by_url.err == by_rows.err and "would agree" in by_rows.err and "answer" in by_rows.out


@pytest.mark.parametrize(("more", "code", "message"), [
    (["--limit", "39"], 1, "39 rows are too few"),
    (["--target", "0"], 2, "--target"),
    (["NEXT", "--model", "big"], 2, "only a URL is told them"),
    (["ftp://host", "--model", "big"], 2, "not an http or https address"),
    (["NEXT", "--rows", "texts.jsonl"], 1, "39 rows are too few"),
    (["--rows", "texts.jsonl"], 2, "the rows hold no answers"),
])
def test_what_a_cascade_cannot_be_fitted_to(
    more: list[str], code: int, message: str, packed_bert: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("rows.jsonl").write_text("".join(json.dumps({"text": f"a {i}", "label": "light"}) + "\n" for i in range(60)))
    Path("texts.jsonl").write_text("".join(json.dumps({"text": f"a {i}"}) + "\n" for i in range(39)))
    named = [str(packed_bert) if word == "NEXT" else word for word in more]
    assert main.call(["cascade", str(packed_bert), "--rows", "rows.jsonl", "--threads", "1", *named]) == code
    assert message in capsys.readouterr().err


def test_results_go_to_their_calls_in_order() -> None:
    calls = [{"type": "function", "function": {"name": name, "arguments": {}}} for name in "fg"]
    told = sent([{"role": "assistant", "content": "", "tool_calls": calls}, {"role": "tool", "content": "of f"},
                 {"role": "tool", "content": "of g"}])
    assert [call["id"] for call in told[0]["tool_calls"]] == [one["tool_call_id"] for one in told[1:]]
