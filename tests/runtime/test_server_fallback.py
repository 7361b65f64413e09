"""The served model hands on what it is not sure of, whole, and is compared with the fallback where it is sure."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from edgestill.cli.commands import cascading
from edgestill.cli.main import call
from edgestill.models.errors import UsageError
from edgestill.models.outputs import SIGMOID
from edgestill.models.task import Task
from edgestill.runtime import load
from edgestill.runtime.evaluation.cascade import confidences
from edgestill.runtime.evaluation.handover import request, response_format
from edgestill.runtime.generation.remote import Remote
from edgestill.runtime.generation.result import Piece
from edgestill.runtime.loading.load import load_streams
from edgestill.runtime.server import check_heads
from edgestill.runtime.server.fallback import Fallback
from edgestill.runtime.server.handing import handed_on
from edgestill.runtime.server.labels import Labelled
from edgestill.runtime.server.requests import Part
from edgestill.runtime.server.work_queue import Station

from ..remote_stub import Stub, said, streamed
from ..serving import Running, running

QUESTION = [{"role": "user", "content": "turn off the kitchen light"}]
CHAT = "/v1/chat/completions"
SCHEMA = {"type": "object", "properties": {"on": {"type": "boolean"}, "room": {"enum": ["hall", "attic"]}},
          "required": ["on", "room"], "additionalProperties": False}
FORMAT = {"type": "json_schema", "json_schema": {"name": "light", "schema": SCHEMA, "strict": True}}
TOOL = {"type": "function", "function": {"name": "turn_off", "parameters": SCHEMA}}
ASKER = {"user": "me@home", "metadata": {"who": "me"}, "store": True, "safety_identifier": "me", "request_id": "me",
         "prompt_cache_key": "me", "session_id": "me"}


@contextmanager
def behind(stub: Stub, path: Path, threshold: float | Mapping[str, float] = 1.0, shadow: float = 0.0,
           **pool: int) -> Iterator[Running]:
    """A server of `path` that hands on what is less sure than `threshold`."""
    fallback = Fallback(Remote(stub.url, "big", "the fallback's key", tries=1), threshold, shadow, **pool)
    with running([Station("small", load_streams(path, 1, 1), 8)], fallback=fallback) as found:
        yield found


def test_the_whole_request_is_handed_on_and_nothing_of_who_asked(stub: Stub, packed_llama: dict[str, Path]) -> None:
    asked = {"messages": [{"role": "developer", "content": "Be brief."}, *QUESTION], "response_format": FORMAT,
             "max_completion_tokens": 30, "stop": ["!"], "seed": 7, "logprobs": True, "top_logprobs": 2, "n": 2,
             "temperature": 0.3, "top_p": 0.9, "presence_penalty": 0.5, "frequency_penalty": 0.1}
    with behind(stub, packed_llama["gguf"]) as small:
        status, found, headers = small.ask("POST", CHAT, {**asked, **ASKER}, Cookie="session=me", OpenAI_Project="me")
        assert (status, headers["x-edgestill-answered-by"]) == (200, "fallback")
        assert found["choices"][0]["message"]["content"] == "TURN OFF THE KITCHEN LIGHT" and found["model"] == "big-1"
        assert stub.requests == [(CHAT, "Bearer the fallback's key", {**asked, "model": "big"})]
        assert "me" not in json.dumps(stub.headers) and "Cookie" not in stub.headers[0]
        own = found["usage"]["model"]
        assert own["completion_tokens"] > 4 and found["usage"]["fallback"]["prompt_tokens"] == 30
        for kind, told in (("prompt_tokens", 30), ("completion_tokens", 4), ("total_tokens", 34)):
            assert found["usage"][kind] == own[kind] + told
        assert small.metric('edgestill_answered_total{by="fallback",model="small"}') == 1
        assert small.metric('edgestill_fallback_completion_tokens_total{model="small"}') == 4
        assert small.metric('edgestill_completion_tokens_total{model="small"}') == own["completion_tokens"]


def test_tools_are_handed_on_and_their_calls_come_back(stub: Stub) -> None:
    body = {"messages": QUESTION, "tools": [TOOL], "tool_choice": "required", "parallel_tool_calls": False}
    assert handed_on({**body, "model": "m", **ASKER}) == body


@pytest.mark.parametrize(("spelled", "handed"), [
    ({"guided_json": SCHEMA}, {"response_format": {"type": "json_schema", "json_schema": {
        "name": "answer", "schema": SCHEMA, "strict": True}}}),
    ({"guided_choice": ["a", "b"]}, {"structured_outputs": {"choice": ["a", "b"]}}),
    ({"regex": "a+"}, {"structured_outputs": {"regex": "a+"}}),
    ({"response_format": {"type": "json_object", "schema": {"type": "object"}}},
     {"response_format": {"type": "json_schema", "json_schema": {"name": "answer", "schema": {"type": "object"}}}}),
    ({"response_format": {"type": "text"}}, {"response_format": {"type": "text"}}),
    ({"n_predict": 9, "repeat_penalty": 1.1, "min_p": 0.1}, {"max_tokens": 9, "repetition_penalty": 1.1, "min_p": 0.1}),
    ({"n_cmpl": 2}, {"n": 2}),
    ({"n_predict": -1, "repeat_penalty": 1.0, "top_k": -1, "min_p": 0, "tools": [], "tool_choice": "none", "stop": None,
      "cache_prompt": True, "logit_bias": {}, "mirostat": 0}, {}),
    ({"reasoning_effort": "low", "enable_thinking": False}, {
        "reasoning_effort": "low", "chat_template_kwargs": {"enable_thinking": False}}),
    ({"temperature": 0, "stop": ""}, {"temperature": 0, "stop": ""})])
def test_every_spelling_is_handed_on_in_openais_words(spelled: dict[str, Any], handed: dict[str, Any]) -> None:
    assert handed_on({"messages": QUESTION, "model": "m", **spelled}) == {"messages": QUESTION, **handed}


def test_what_the_task_adds_is_asked_too(tmp_path: Path) -> None:
    (tmp_path / "schema.json").write_text(json.dumps(SCHEMA))
    task = SimpleNamespace(manifest=SimpleNamespace(task=Task(schema="schema.json")), folder=tmp_path)
    model: Any = SimpleNamespace(codec=SimpleNamespace(system="Say what to do."), artifact=task)
    system = {"role": "system", "content": "Say what to do."}
    found = request(model, {"messages": QUESTION})
    assert found["messages"] == [system, *QUESTION] and found["temperature"] == 0
    assert found["response_format"]["json_schema"] == {"name": "answer", "schema": SCHEMA, "strict": True}
    for role in ("system", "developer"):
        own = [{"role": role, "content": "Mine."}, *QUESTION]
        assert request(model, {"messages": own, "temperature": 1}) == {
            "messages": own, "temperature": 1, "response_format": found["response_format"]}
    for bound in ({"response_format": {"type": "text"}}, {"structured_outputs": {"regex": "a"}}, {"tools": [TOOL]}):
        assert request(model, {"messages": QUESTION, **bound}).items() >= bound.items()
        assert "tools" in bound or len(request(model, {"messages": QUESTION, **bound})) == 3
    assert request(model, {"messages": QUESTION}, "Else.")["messages"][0]["content"] == "Else."


@pytest.mark.parametrize(("schema", "strict"), [
    (SCHEMA, True), ({**SCHEMA, "required": ["on"]}, False), ({**SCHEMA, "additionalProperties": True}, False),
    ({"type": "array", "items": SCHEMA}, False),
    ({**SCHEMA, "properties": {"on": {"type": "object"}, "room": {}}}, False)])
def test_only_what_openai_can_be_strict_about_is_strict(schema: dict[str, Any], strict: bool) -> None:
    assert response_format(schema)["json_schema"].get("strict", False) is strict


@pytest.mark.parametrize("tokens", [{"logit_bias": {"5": 1}}, {"stop_token_ids": [5]}])
def test_tokens_of_the_models_own_vocabulary_stay_here(tokens: dict[str, Any], stub: Stub,
                                                       packed_llama: dict[str, Path]) -> None:
    with behind(stub, packed_llama["gguf"]) as small:
        status, _, headers = small.ask("POST", CHAT, {"messages": QUESTION, "max_tokens": 2, **tokens})
        assert (status, headers["x-edgestill-answered-by"], stub.requests) == (200, "model", [])


@pytest.mark.parametrize("usage", [False, True])
def test_the_fallbacks_stream_is_the_clients(usage: bool, stub: Stub, packed_llama: dict[str, Path]) -> None:
    stub.reply = lambda body: streamed("light", " off")
    with behind(stub, packed_llama["gguf"]) as small:
        options: Any = {"stream_options": {"include_usage": True}} if usage else {}
        raw = small.client().chat.completions.with_raw_response.create(
            model="", messages=QUESTION, max_tokens=3, stream=True, **options)  # type: ignore[arg-type]
        assert raw.headers["x-edgestill-answered-by"] == "fallback"
        chunks = list(raw.parse())
        assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices) == "light off"
        assert stub.requests[0][2]["stream"] is True and stub.requests[0][2]["max_tokens"] == 3
        assert [bool(chunk.usage) for chunk in chunks] == [False] * 3 + [True] * usage
        if usage:
            assert chunks[-1].usage.completion_tokens == 3 + 4  # type: ignore[union-attr]
        assert small.metric('edgestill_fallback_completion_tokens_total{model="small"}') == 4


def test_a_stream_that_breaks_off_ends_in_an_error(stub: Stub, packed_bert: Path) -> None:
    stub.reply = lambda body: (200, {}, streamed("light")[2].partition(b"data: [DONE]")[0])
    with behind(stub, packed_bert) as small:
        status, found, _ = small.ask("POST", CHAT, {"messages": QUESTION, "stream": True})
        last = found.decode().strip().splitlines()[-1]
        assert status == 200 and json.loads(last[6:])["error"]["code"] == "fallback_failed"
        assert small.metric('edgestill_fallback_failed_total{model="small",status="502"}') == 1


@pytest.mark.parametrize("kind", ["text", "labels"])
def test_who_answers(kind: str, stub: Stub, packed_llama: dict[str, Path], packed_bert: Path) -> None:
    path = packed_bert if kind == "labels" else packed_llama["onnx"]
    with load(path, threads=1) as model:
        own = model.classify(QUESTION[0]["content"]).label if kind == "labels" else model.chat(QUESTION).text
    stub.reply = lambda body: streamed("music") if body.get("stream") else said("music")
    for threshold, by in ((1.0, "fallback"), (0.0, "model")):
        with behind(stub, path, threshold, shadow=1.0) as small:
            stub.requests.clear()
            client = small.client()
            raw = client.chat.completions.with_raw_response.create(model="", messages=QUESTION)  # type: ignore[arg-type]
            stream = client.chat.completions.create(model="", messages=QUESTION, stream=True)  # type: ignore[arg-type]
            texts = [raw.parse().choices[0].message.content,
                     "".join(chunk.choices[0].delta.content or "" for chunk in stream)]
            assert texts == [own if by == "model" else "music"] * 2 and raw.headers["x-edgestill-answered-by"] == by
            assert small.metric(f'edgestill_answered_total{{by="{by}",model="small"}}') == 2
            same = str(own == "music").lower()
            seen = 0.0
            while by == "model" and seen < 2:
                seen = small.metric(f'edgestill_shadow_total{{model="small",same="{same}"}}')
            assert len(stub.requests) == 2
            told = stub.requests[0][2]["messages"]
            assert told[-1:] == QUESTION and told[0]["content"].endswith(
                "light, music, weather" if kind == "labels" else "kitchen light")


def test_each_field_has_a_threshold_of_its_own(stub: Stub, packed_llama: dict[str, Path]) -> None:
    with load(packed_llama["gguf"], threads=1) as model:
        sure = confidences(model.chat(QUESTION, schema=SCHEMA, logprobs=0), model.codec)
    assert set(sure) == {"on", "room"}
    low = {field: value * 0.99 for field, value in sure.items()}
    for threshold, by in ((low, "model"), ({**low, "room": sure["room"] * 1.01}, "fallback"), ({"on": 0.0}, "fallback"),
                          (min(sure.values()) * 0.99, "model"), (min(sure.values()) * 1.01, "fallback")):
        with behind(stub, packed_llama["gguf"], threshold) as small:
            status, _, headers = small.ask("POST", CHAT, {"messages": QUESTION, "response_format": FORMAT})
            assert (status, headers["x-edgestill-answered-by"]) == (200, by), threshold


def test_every_answer_of_several_must_be_sure(stub: Stub) -> None:
    fallback = Fallback(Remote(stub.url, "big"), 0.5)
    station: Any = SimpleNamespace(name="small", model=None)

    def parts(*sure: float) -> list[Part]:
        return [Part(index, Piece("a", Labelled("a", [], 1, "stop", 0.0, 0.0, confidence=value)), [])
                for index, value in enumerate(sure)]

    assert fallback.is_sure(station, parts(0.9, 0.5))
    assert not fallback.is_sure(station, parts(0.9, 0.4)) and not fallback.is_sure(station, parts(0.4, 0.9))
    fallback.close()


def test_a_slow_fallback_keeps_nobody_waiting_who_does_not_need_it(stub: Stub, packed_bert: Path) -> None:
    gate = threading.Event()
    stub.reply = lambda body: (gate.wait(30), said("music"))[1]
    answers: list[int] = []

    def ask() -> None:
        answers.append(small.ask("POST", CHAT, {"messages": QUESTION})[0])

    with behind(stub, packed_bert, workers=1, places=1) as small:
        station = small.service._fallback.station  # type: ignore[union-attr]
        threads = [threading.Thread(target=ask) for _ in range(2)]
        for count, thread in enumerate(threads):
            thread.start()
            while station.active + station.waiting < count + 1:
                pass
        labels = small.ask("POST", "/classify", {"text": "turn off the kitchen light"})
        assert labels[0] == 200 and not answers  # the model itself is free
        status, found, headers = small.ask("POST", CHAT, {"messages": QUESTION})
        assert (status, found["error"]["code"]) == (429, "queue_full") and int(headers["retry-after"]) >= 1
        assert small.metric('edgestill_active{model="fallback"}') == 1
        assert small.metric('edgestill_fallback_failed_total{model="small",status="429"}') == 1
        gate.set()
        for thread in threads:
            thread.join()
    assert answers == [200, 200]


@pytest.mark.parametrize(("status", "words"), [(401, "answered 401"), (500, "answered 500"), (302, "answered 302")])
def test_a_fallback_that_fails_is_an_error_of_the_server(status: int, words: str, stub: Stub,
                                                         packed_bert: Path) -> None:
    stub.reply = lambda body: (status, {}, b"wrong key: the fallback's k***")
    for stream in (False, True):
        with behind(stub, packed_bert) as small:
            code, found, _ = small.ask("POST", CHAT, {"messages": QUESTION, "stream": stream})
            assert (code, found["error"]["code"], found["error"]["type"]) == (502, "fallback_failed", "server_error")
            assert words in found["error"]["message"] and "key" not in json.dumps(found) and stub.url not in str(found)
            assert small.ask("GET", "/health")[0] == 200


@pytest.mark.parametrize("stream", [False, True])
def test_a_fallback_that_has_too_much_to_do_says_when_to_come_again(stream: bool, stub: Stub,
                                                                    packed_bert: Path) -> None:
    stub.reply = lambda body: (429, {"Retry-After": "30"}, b"{}")
    fallback = Fallback(Remote(stub.url, "big", tries=2), 1.0)
    with running([Station("small", load_streams(packed_bert, 1, 1), 8)], fallback=fallback) as small:
        status, found, headers = small.ask("POST", CHAT, {"messages": QUESTION, "stream": stream})
    assert (status, found["error"]["code"], headers["retry-after"]) == (429, "fallback_failed", "30")
    assert len(stub.requests) == 1, "the client was kept waiting"


@pytest.mark.parametrize("usage", [None, [], "many", {"prompt_tokens": "3", "completion_tokens": True}])
def test_a_usage_that_is_none_counts_nothing(usage: Any, stub: Stub, packed_bert: Path) -> None:
    def reply(body: dict[str, Any]) -> Any:
        status, headers, content = said("light")
        return status, headers, json.dumps({**json.loads(content), "usage": usage}).encode()

    stub.reply = reply
    with behind(stub, packed_bert) as small:
        status, found, _ = small.ask("POST", CHAT, {"messages": QUESTION})
        assert status == 200 and found["usage"]["total_tokens"] == found["usage"]["model"]["total_tokens"]
        assert small.metric('edgestill_fallback_prompt_tokens_total{model="small"}') == 0


def test_a_threshold_without_a_fallback_is_refused(packed_bert: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call(["serve", str(packed_bert), "--threshold", "0.5"]) == 2
    assert "--fallback URL" in capsys.readouterr().err
    assert call(["serve", str(packed_bert), "--fallback", "https://host/v1", "--port", "0"]) == 2
    assert "--threshold fit.json" in capsys.readouterr().err


def test_a_head_that_is_sure_of_no_single_answer_has_no_fallback(packed_bert: Path) -> None:
    with load(packed_bert, threads=1) as model:
        station: Any = SimpleNamespace(name="many", model=model)
        check_heads([station])
        model.head = replace(model.head, kind=SIGMOID, thresholds=(0.5,) * 3)
        with pytest.raises(UsageError, match="many answers by its head sigmoid"):
            check_heads([station])


def test_thresholds_as_cascade_wrote_them(tmp_path: Path) -> None:
    path = tmp_path / "fit.json"
    fits = [{"target": 0.95, "thresholds": {"on": 0.5, "room": 1.0}}, {"target": 0.98, "thresholds": {}}]
    path.write_text(json.dumps({"fits": fits[:1]}))
    assert cascading.threshold(str(path)) == {"on": 0.5, "room": 1.0}
    assert cascading.threshold("0.5") == 0.5
    for wrong, message in (("1.5", "outside the limits"), ("nan", "outside the limits"), (str(tmp_path), "directory"),
                           (str(tmp_path / "no"), "No such file")):
        with pytest.raises(UsageError, match=message):
            cascading.threshold(wrong)
    for content, message in ((json.dumps({"fits": fits}), r"one target is needed, it holds 0.95, 0.98"),
                             ("{}", "no fitted thresholds"), ("[", "no fitted thresholds"), ('{"fits": []}', "none")):
        path.write_text(content)
        with pytest.raises(UsageError, match=message):
            cascading.threshold(str(path))
