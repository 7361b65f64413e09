"""OpenAI's Responses API as its own client sees it: texts, streams, structure, calls and what is refused."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest
from edgestill.runtime.generation.remote import Remote
from edgestill.runtime.loading.load import load_streams
from edgestill.runtime.server import requests, responses_api
from edgestill.runtime.server.fallback import Fallback
from edgestill.runtime.server.response_form import ResponseForm
from edgestill.runtime.server.validation import Refusal
from edgestill.runtime.server.work_queue import Station
from openai.types.responses import Response, ResponseStreamEvent
from pydantic import TypeAdapter

from .. import packed
from ..remote_stub import Stub, said, streamed
from ..serving import Running, running
from .test_tool_choice import LIGHT, template

PATH, QUESTION = "/v1/responses", "turn off the kitchen light"
EVENT: TypeAdapter[Any] = TypeAdapter(ResponseStreamEvent)
TOOL: Any = {"type": "function", "name": "light_off", "parameters": LIGHT, "strict": False}
STOP: Any = {"type": "function", "name": "stop", "description": "Ends all.", "parameters": None}
CALL: Any = {"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}"}


@pytest.fixture(scope="module")
def served(tiny_llama: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """The tiny Llama with a template for tools."""
    root = tmp_path_factory.mktemp("responses")
    source = Path(shutil.copytree(tiny_llama, root / "source"))
    (source / "chat_template.jinja").write_text(template("hermes"), encoding="utf-8")
    with running([Station("tiny", load_streams(packed.pack(source, root / "gguf", "gguf:F32"), 1, 1), 8)]) as found:
        yield found


def told(server: Running, **body: Any) -> list[Any]:
    """The events of a stream, each of OpenAI's type and in its place."""
    status, content, headers = server.ask("POST", PATH, {"stream": True, **body})
    assert status == 200 and headers["content-type"].startswith("text/event-stream")
    events = []
    for place, block in enumerate(content.decode().strip().split("\n\n")):
        name, _, data = block.partition("\n")
        event = EVENT.validate_json(data.removeprefix("data: "))
        assert name == f"event: {event.type}" and event.sequence_number == place
        events.append(event)
    return events


def test_a_response_says_what_a_chat_says(served: Running) -> None:
    client = served.client()
    chat = client.chat.completions.create(model="", max_tokens=12, messages=[
        {"role": "system", "content": "Be brief."}, {"role": "user", "content": QUESTION}])
    found = client.responses.create(model="any", instructions="Be brief.", input=QUESTION, max_output_tokens=12,
                                    store=False, metadata={"a": "b"}, user="me")
    assert found.output_text == chat.choices[0].message.content and found.output[0].type == "message"
    assert found.usage.output_tokens == chat.usage.completion_tokens  # type: ignore[union-attr]
    assert found.usage.input_tokens == chat.usage.prompt_tokens  # type: ignore[union-attr]
    assert (found.model, found.instructions, found.max_output_tokens) == ("tiny", "Be brief.", 12)
    assert found.metadata == {"a": "b"} and found.temperature == 0 and found.id.startswith("resp_")
    cut = chat.choices[0].finish_reason == "length"
    assert (found.status, found.output[0].status) == (("incomplete",) * 2 if cut else ("completed",) * 2)
    assert (found.incomplete_details and found.incomplete_details.reason) == ("max_output_tokens" if cut else None)
    Response.model_validate(served.ask("POST", PATH, {"input": QUESTION, "max_output_tokens": 2})[1])


def test_a_stream_sums_to_the_response(served: Running) -> None:
    whole = served.client().responses.create(model="", input=QUESTION, max_output_tokens=12)
    events = told(served, input=QUESTION, max_output_tokens=12)
    deltas = [event.delta for event in events if event.type == "response.output_text.delta"]
    assert len(deltas) > 1 and "".join(deltas) == whole.output_text
    end = f"response.{whole.status}"
    assert [event.type for event in events if event.type != "response.output_text.delta"] == [
        "response.created", "response.in_progress", "response.output_item.added", "response.content_part.added",
        "response.output_text.done", "response.content_part.done", "response.output_item.done", end]
    last = events[-1].response
    assert last.output_text == whole.output_text and last.usage.output_tokens == whole.usage.output_tokens
    assert (events[0].response.status, events[0].response.output, last.status) == ("in_progress", [], whole.status)


def test_an_answer_of_a_schema(served: Running) -> None:
    text: Any = {"format": {"type": "json_schema", "name": "light", "schema": LIGHT, "strict": True}}
    found = served.client().responses.create(model="", input=QUESTION, text=text, max_output_tokens=200)
    assert set(json.loads(found.output_text)) >= {"room", "minutes"} and found.to_dict()["text"] == text
    with served.client().responses.stream(model="", input=QUESTION, text=text, max_output_tokens=200) as stream:
        final = stream.get_final_response()  # which the client sums up itself, and holds to what the server says
    assert (final.output_text, final.status) == (found.output_text, "completed")
    free = served.client().responses.create(model="", input=QUESTION, text={"format": {"type": "text"}},
                                            max_output_tokens=2)
    assert free.usage.output_tokens == 2  # type: ignore[union-attr]


@pytest.mark.parametrize("choice", ["required", {"type": "function", "name": "light_off"}, {
    "type": "allowed_tools", "mode": "required", "tools": [{"type": "function", "name": "light_off"}]}])
def test_a_call_comes_and_its_result_goes_back(choice: Any, served: Running) -> None:
    client, tools = served.client(), [TOOL] if choice == "required" else [TOOL, STOP]
    given: Any = {"input": QUESTION, "tools": tools, "tool_choice": choice, "max_output_tokens": 200}
    (call,) = client.responses.create(model="", **given).output
    assert call.type == "function_call" and call.name == "light_off" and call.status == "completed"
    assert set(json.loads(call.arguments)) >= {"room", "minutes"}
    events = told(served, **given)
    assert "".join(e.delta for e in events if e.type == "response.function_call_arguments.delta") == call.arguments
    assert [event.type for event in events][2:] == [
        "response.output_item.added", "response.function_call_arguments.delta",
        "response.function_call_arguments.done", "response.output_item.done", "response.completed"]
    again: Any = [{"role": "user", "content": QUESTION}, call, {
        "type": "function_call_output", "call_id": call.call_id, "output": "done"}]
    (second,) = client.responses.create(model="", input=again, tools=[STOP], tool_choice="required",
                                      max_output_tokens=200, parallel_tool_calls=False).output
    assert (second.name, second.arguments) == ("stop", "{}")  # type: ignore[union-attr]


def test_items_become_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[dict[str, Any]] = []

    def noted(chat: dict[str, Any], scored: bool) -> requests.Asked:
        seen.append(chat)
        return requests.Asked(1, lambda *_: iter(()))

    monkeypatch.setattr(requests, "chat", noted)

    def call(name: str) -> dict[str, Any]:
        return {"type": "function_call", "call_id": name, "name": name, "arguments": "{}", "id": "fc", "status": None}

    def text(said: str) -> dict[str, Any]:
        part = {"type": "output_text", "text": said, "annotations": [], "logprobs": []}
        return {"type": "message", "role": "assistant", "content": [part], "id": "msg", "status": "completed"}

    def thought(*said: str) -> dict[str, Any]:
        return {"type": "reasoning", "id": "rs", "summary": [], "content": [
            {"type": "reasoning_text", "text": one} for one in said]}

    output = [{"type": "input_text", "text": "done"}]
    same = {"model": "m", "temperature": 0.5, "top_p": 0.9, "parallel_tool_calls": False, "stream": True}
    responses_api.asked({**same, "max_output_tokens": 7, "instructions": "Be brief.",
                         "reasoning": {"effort": "low", "summary": "auto"}, "input": [
        {"role": "user", "content": [{"type": "input_text", "text": "a"}]}, thought("hm", "so"), text("b"), call("f"),
        call("g"), {"type": "function_call_output", "call_id": "f", "output": output}, thought(), text("c"), text("d"),
        call("h"), text("e"), thought("x"), thought("y")]})

    def calls(*names: str) -> list[dict[str, Any]]:
        return [{"id": name, "type": "function", "function": {"name": name, "arguments": "{}"}} for name in names]

    def part(said: str) -> list[dict[str, str]]:
        return [{"type": "text", "text": said}]

    own = {"role": "assistant"}
    assert seen[0]["messages"] == [
        {"role": "system", "content": "Be brief."}, {"role": "user", "content": part("a")},
        {**own, "reasoning_content": "hm\nso", "content": part("b"), "tool_calls": calls("f", "g")},
        {"role": "tool", "tool_call_id": "f", "content": part("done")}, {**own, "content": part("c")},
        {**own, "content": part("d"), "tool_calls": calls("h")}, {**own, "content": part("e")},
        {**own, "reasoning_content": "x"}, {**own, "reasoning_content": "y"}]
    assert seen[0].items() >= {**same, "max_completion_tokens": 7, "reasoning_effort": "low"}.items()


@pytest.mark.parametrize(("wrong", "param", "words"), [
    ({"previous_response_id": "resp_1"}, "previous_response_id", "send the earlier items"),
    ({"conversation": "conv_1"}, "conversation", "send the earlier items"),
    ({"store": True}, "store", "nothing is kept"),
    ({"background": True}, "background", "only false"), ({"include": ["reasoning.encrypted_content"]}, "include", ""),
    ({"truncation": "auto"}, "truncation", ""), ({"prompt": {"id": "a"}}, "prompt", ""), ({"input": None}, "input", ""),
    ({"max_tokens": 3}, "max_tokens", "write max_output_tokens"), ({"messages": []}, "messages", "takes input"),
    ({"max_output_tokens": 0}, "max_output_tokens", "the limits are"), ({"input": []}, "input", "at least one item"),
    ({"input": [{"type": "item_reference", "id": "a"}]}, "input[0].type", "item_reference"),
    ({"input": [{"role": "user", "content": "a"}, {"role": "user", "content": [{"type": "input_image"}]}]},
     "input[1].content[0].type", "read text only"),
    ({"input": [{"role": "user", "content": [{"type": "input_text", "text": "a", "size": 1}]}]},
     "input[0].content[0].size", "unknown"), ({"input": [{"role": "robot", "content": "a"}]}, "input[0].role", "robot"),
    ({"input": [{"type": "reasoning", "encrypted_content": "a"}]}, "input[0].encrypted_content", ""),
    ({"instructions": 1}, "instructions", "a string"),
    ({"tools": [{"type": "web_search"}]}, "tools[0].type", "functions"),
    ({"tools": [{**TOOL, "name": "a b"}]}, "tools[0].name", ""),
    ({"tools": [{**TOOL, "x": 1}]}, "tools[0].x", "unknown"),
    ({"text": {"format": {"type": "json_schema", "name": "a"}}}, "text.format.schema", "needed"),
    ({"text": {"verbosity": "low"}}, "text.verbosity", ""),
    ({"text": {"format": {"a": 1}}}, "text.format.a", "unknown"),
    ({"reasoning": {"effort": "huge"}}, "reasoning.effort", "huge"),
    ({"reasoning": {"a": 1}}, "reasoning.a", "unknown"),
    ({"tool_choice": "required"}, "tool_choice", "no tools"), ({"stream": 1}, "stream", "true or false"),
    ({"stream_options": {"include_usage": True}}, "stream_options.include_usage", "unknown"),
    ({"tool_choice": {"type": "function", "name": "x"}}, "tool_choice.name", "not among"),
    ({"tool_choice": {"type": "allowed_tools"}}, "tool_choice.tools", "at least one"),
    ({"tools": [TOOL, TOOL]}, "tools[1].name", "another tool"),
    ({"reasoning": {"effort": "low"}}, "reasoning.effort", "reads neither"),
    ({"text": {"format": {"type": "json_schema", "name": "a", "schema": {"type": "frob"}}}}, "text.format", "frob"),
    ({"input": [{"type": "function_call", "call_id": "c", "name": "f", "arguments": "{"}]}, "input[0].arguments", "no"),
    ({"input": [{"type": "function_call", "call_id": 1, "name": "f"}]}, "input[0].call_id", "a string"),
    ({"input": [{"type": "function_call_output", "call_id": "c"}]}, "input[0].output", "missing"),
    ({"input": [CALL, {"type": "function_call_output", "call_id": "d", "output": "x"}]}, "input[1].call_id", "'d'"),
    ({"input": [{"type": "function_call_output", "call_id": "c", "output": "x"}, CALL]}, "input[0].call_id", "before"),
    ({"input": [{"type": "function_call_output", "output": "x"}]}, "input[0].call_id", "'None'"),
    ({"input": [{"type": "function_call_output", "call_id": "c", "output": [{"type": "input_image"}]}]},
     "input[0].output[0].type", "text only")])
def test_what_is_not_done_is_refused_by_its_own_name(wrong: dict[str, Any], param: str, words: str,
                                                     served: Running) -> None:
    status, found, _ = served.ask("POST", PATH, {"input": "a", "max_output_tokens": 1, **wrong})
    assert (status, found["error"]["param"]) == (400, param), found
    assert found["error"]["message"].startswith(param) and words in found["error"]["message"]


def test_too_long_an_input_is_called_so(served: Running) -> None:
    with pytest.raises(openai.BadRequestError, match="maximum context length") as error:
        served.client().responses.create(model="", input="long " * 400)
    assert (error.value.code, error.value.param) == ("context_length_exceeded", "input")


def chunk(reason: str | None = None, **delta: Any) -> dict[str, Any]:
    return {"model": "m", "choices": [{"index": 0, "delta": delta, "finish_reason": reason}]}


def items(form: ResponseForm, *chunks: dict[str, Any]) -> list[Any]:
    """Of each item of a stream its type and what has grown there."""
    data = b"".join(map(form.piece, chunks)) + form.end()
    events = [EVENT.validate_json(block.partition(b"data: ")[2]) for block in data.strip().split(b"\n\n")]
    done = [event.item for event in events if event.type == "response.output_item.done"]
    assert events[-1].response.output == done
    return [(item.type, item.arguments if item.type == "function_call" else item.content[0].text) for item in done]


def test_thoughts_words_and_calls_are_items_of_their_own() -> None:
    calls = [{"index": index, "id": name, "function": {"name": name, "arguments": "{"}}
             for index, name in enumerate("fg")]
    more = [{"index": 1, "function": {"arguments": "}"}}]
    found = items(ResponseForm({}), chunk(role="assistant", content=""), chunk(reasoning_content="h"),
                  chunk(reasoning_content="m"), chunk(content="a"), chunk(content="b"), chunk(tool_calls=calls),
                  chunk("tool_calls", tool_calls=more))
    assert found == [("reasoning", "hm"), ("message", "ab"), ("function_call", "{"), ("function_call", "{}")]
    form = ResponseForm({})
    usage = {"prompt_tokens": 5, "completion_tokens": 2, "total_tokens": 7,
             "prompt_tokens_details": {"cached_tokens": 3}, "completion_tokens_details": {"reasoning_tokens": 1}}
    assert items(form, chunk("stop", content=""), {"choices": [], "usage": usage}) == [("message", "")]
    told = Response.model_validate(form._table).usage
    assert told is not None and (told.input_tokens, told.output_tokens, told.total_tokens) == (5, 2, 7)
    assert (told.input_tokens_details.cached_tokens, told.output_tokens_details.reasoning_tokens) == (3, 1)


def test_an_error_ends_a_stream_in_an_event() -> None:
    form = ResponseForm({})
    form.piece(chunk(content="a"))
    event = EVENT.validate_json(form.failed(Refusal("no", "input", code="x").body()).partition(b"data: ")[2])
    assert (event.type, event.message, event.param, event.code) == ("error", "no", "input", "x")


def test_a_classifier_answers_with_its_label(several: Running) -> None:
    label = several.ask("POST", "/classify", {"model": "labels", "text": QUESTION})[1]["results"][0]["label"]
    assert several.client().responses.create(model="labels", input=QUESTION).output_text == label


def test_the_fallbacks_answer_is_a_response_too(stub: Stub, packed_bert: Path) -> None:
    stub.reply = lambda body: streamed("mu", "sic") if body.get("stream") else said("music")
    fallback = Fallback(Remote(stub.url, "big", tries=1), 1.0)
    with running([Station("small", load_streams(packed_bert, 1, 1), 8)], fallback=fallback) as small:
        whole = small.client().responses.create(model="", input=QUESTION, max_output_tokens=9)
        events = told(small, input=QUESTION, max_output_tokens=9)
    for found in whole, events[-1].response:
        assert (found.output_text, found.model, found.status) == ("music", "big-1", "completed")
        assert found.usage.output_tokens == 4 and found.usage.input_tokens > 30
    assert stub.requests[0][2]["max_completion_tokens"] == 9
    assert stub.requests[0][2]["messages"][-1] == {"role": "user", "content": QUESTION}
