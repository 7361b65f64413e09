"""Answers that must be tool calls: whatever the model wants to say, what comes out are calls that fit their schemas."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import openai
import pytest
from edgestill.models import kinds
from edgestill.models.errors import UsageError
from edgestill.runtime import load
from edgestill.runtime.generation.constraints import Grammars
from edgestill.runtime.generation.generator import Generator
from edgestill.runtime.generation.options import Options
from edgestill.runtime.generation.tool_grammar import grammar
from edgestill.runtime.loading.load import load_streams
from edgestill.runtime.server.work_queue import Station
from edgestill.runtime.text.codec import Codec
from edgestill.runtime.text.tool_calls import CALL_ID, NAME, ToolCall, ToolFormat

from .. import packed
from ..serving import Running, running
from .test_tool_calls import CALLS, FORMS, codec_of

QUESTION: list[Any] = [{"role": "user", "content": "turn off the kitchen light"}]
LIGHT = {"type": "object", "properties": {
    "room": {"enum": ["hall", "kitchen"]}, "minutes": {"type": "integer", "minimum": 0, "maximum": 90},
    "why": {"type": "string", "maxLength": 4}}, "required": ["room", "minutes"], "additionalProperties": False}
TOOLS: list[Any] = [
    {"type": "function", "function": {"name": "light_off", "description": "a ::= {light", "parameters": LIGHT}},
    {"type": "function", "function": {"name": "light", "parameters": {**LIGHT, "required": ["why"]}}},
    {"type": "function", "function": {"name": "stop"}}]
SCHEMAS = {"light_off": LIGHT, "light": {**LIGHT, "required": ["why"]}, "stop": {"maxProperties": 0}}
NAMED = {"type": "function", "function": {"name": "light"}}


def template(name: str) -> str:
    opening, each, close = FORMS[name][0]
    return CALLS.replace("OPEN", opening).replace("EACH", each).replace("CLOSE", close)


def spoken(codec: Codec, form: ToolFormat, seed: int, name: str = "", several: bool = True,
           otherwise: dict[str, Any] | None = None) -> str:
    """The answer of a model that wants random tokens, and wants to end where it may after a second call."""
    size = codec.vocabulary_size
    constraint = Grammars(codec, size).compile(grammar(form, codec, TOOLS, name, several, otherwise), "tools")
    random, ids, seen = np.random.default_rng(seed), [], 0
    while not constraint.done:
        logits = random.normal(size=size).astype(np.float32)
        constraint.mask(logits)
        may_end = [token for token in codec.stop_ids if logits[token] > -np.inf]
        seen += bool(may_end)
        token = may_end[0] if may_end and seen > 1 else int(logits.argmax())
        if token in codec.stop_ids:
            break
        constraint.accept(token)
        ids.append(token)
        assert len(ids) < 2000
    return codec.decode(ids, False)


def called(codec: Codec, form: ToolFormat, seed: int, name: str = "", several: bool = True) -> list[str]:
    return checked(form.parse(spoken(codec, form, seed, name, several))[1])


def checked(calls: list[ToolCall]) -> list[str]:
    """Names of calls whose arguments satisfy their schemas."""
    for call in calls:
        jsonschema.validate(call.arguments, SCHEMAS[call.name])
    return [call.name for call in calls]


@pytest.mark.parametrize("name", [name for name in FORMS if name != "text"])
def test_a_random_model_calls_in_the_templates_form(name: str, tiny_llama: Path) -> None:
    codec = codec_of(template(name), tiny_llama)
    form = ToolFormat.of(codec.render)
    found = [called(codec, form, seed) for seed in range(12)]
    assert {call for calls in found for call in calls} == SCHEMAS.keys()
    assert all(found) and (max(map(len, found)) > 1) == (name != "bare")
    assert all(len(called(codec, form, seed, several=False)) == 1 for seed in range(4))
    assert all(called(codec, form, seed, "light") == ["light"] for seed in range(4))


@pytest.mark.parametrize("name", ["hermes", "named"])
def test_a_schema_binds_what_is_no_call(name: str, tiny_llama: Path) -> None:
    codec = codec_of(template(name), tiny_llama)
    form, schema = ToolFormat.of(codec.render), {**LIGHT, "required": ["room"]}
    kinds_seen = set()
    for seed in range(16):
        text = spoken(codec, form, seed, otherwise=schema)
        calls = checked(form.parse(text)[1])
        kinds_seen.add(bool(calls))
        if not calls:
            jsonschema.validate(json.loads(text), schema)
            assert ": " not in text.replace('": "', "")  # compact, as other answers under a schema
    assert kinds_seen == {True, False}


@pytest.mark.parametrize("name", ["Qwen-Qwen2.5-7B-Instruct", "Qwen-Qwen3-0.6B", "meta-llama-Llama-3.2-3B-Instruct",
                                  "mistralai-Mistral-Nemo-Instruct-2407"])
def test_real_templates_write_what_is_called(name: str, shared: Path, tiny_llama: Path) -> None:
    codec = codec_of((shared / "tokenizers" / "chat-templates" / f"{name}.jinja").read_text("utf-8"), tiny_llama)
    form = ToolFormat.of(codec.render)
    assert max(len(called(codec, form, seed)) for seed in range(6)) > (0 if name.startswith("meta") else 1)
    # A function without arguments leaves nothing to choose: what is said is the template's turn, letter for letter.
    written = form.written[0].replace(NAME, "stop").replace('{"edgestill_key": "edgestill value"}', "{}")
    said = re.sub('"id": "[a-zA-Z0-9]{9}"', f'"id": "{CALL_ID}"', spoken(codec, form, 0, "stop"))
    assert written.startswith(said) and written.removeprefix(said).strip() in ("<|im_end|>", "<|eot_id|>", "</s>")


def test_added_tokens_of_a_call_are_said_as_tokens(tiny_llama: Path) -> None:
    from tokenizers import AddedToken

    codec = codec_of(template("hermes"), tiny_llama)
    codec.tokenizer.add_tokens([AddedToken("<tool_call>", normalized=False), AddedToken("</tool_call>", special=True)])
    codec = Codec(codec.tokenizer, codec._template, None, 0)
    ids = codec.encode("<tool_call></tool_call>")
    assert len(ids) == 2
    source = grammar(ToolFormat.of(codec.render), codec, TOOLS)
    assert f"<[{ids[0]}]>" in source and f"<[{ids[1]}]>" in source and "tool_call" not in source
    assert called(codec, ToolFormat.of(codec.render), 1)


def test_arguments_have_the_blanks_of_the_template(tiny_llama: Path) -> None:
    compact = template("hermes").replace('"name": "', '"name":"').replace('"arguments": ', '"arguments":')
    codec = codec_of(compact.replace("| tojson", "| tojson(separators=(',', ':'))"), tiny_llama)
    for wanted, one in ((False, codec), (True, codec_of(template("hermes"), tiny_llama))):
        texts = [spoken(one, ToolFormat.of(one.render), seed, "light_off") for seed in range(3)]
        assert all(('"minutes": ' in text) == wanted and '"minutes":' in text for text in texts)


def test_forms_that_cannot_be_bound_are_refused(tiny_llama: Path) -> None:
    codec = codec_of(template("text"), tiny_llama)
    with pytest.raises(UsageError, match="a form that cannot be bound: .*edgestill_tool"):
        grammar(ToolFormat.of(codec.render), codec, TOOLS)


@pytest.mark.parametrize(("tools", "message"), [
    ([{"type": "function"}], r"tools\[0\].function: an object"),
    ([TOOLS[0], {"function": {"name": 'a"b'}}], r"tools\[1\].function.name: 'a\"b'"),
    ([{"function": {"name": ""}}], "function.name"), ([{"function": {"name": 3}}], "function.name"),
    ([{"function": {"name": "f", "parameters": []}}], "function.parameters"),
    ([{"function": {"name": "f", "parameters": {"type": "string"}}}], "function.parameters")])
def test_tools_described_wrongly_are_named(tools: list[Any], message: str, tiny_llama: Path) -> None:
    codec = codec_of(template("hermes"), tiny_llama)
    with pytest.raises(UsageError, match=message) as caught:
        grammar(ToolFormat.of(codec.render), codec, tools)
    assert caught.value.hint


@pytest.mark.parametrize("choice", ["any", "", None, 3, [], {}, {"type": "function"}, {"type": "tool", "name": "f"},
                                    {"type": "function", "function": {"name": 3}}])
def test_choices_are_known_or_refused(choice: Any) -> None:
    with pytest.raises(UsageError, match="generate.tool_choice: "):
        Options.of({"tool_choice": choice})
    with pytest.raises(UsageError, match="schema and tool_choice cannot both bind"):
        Options.of({"tool_choice": "required", "schema": {}})


@pytest.fixture(scope="module")
def callers(tiny_llama: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The tiny Llama with a template for tools, as an artifact of each engine."""
    root = tmp_path_factory.mktemp("callers")
    source = Path(shutil.copytree(tiny_llama, root / "source"))
    (source / "chat_template.jinja").write_text(template("hermes"), encoding="utf-8")
    targets = {"gguf": "gguf:F32", "onnx": "onnx:fp32"}
    return {engine: packed.pack(source, root / engine, target) for engine, target in targets.items()}


@pytest.fixture(scope="module", params=kinds.names("runtime.engines"))
def served(request: pytest.FixtureRequest, callers: dict[str, Path]) -> Iterator[Running]:
    with running([Station(request.param, load_streams(callers[request.param], 2, 1), 8)]) as found:
        yield found


def asked(served: Running, **options: Any) -> Any:
    """A choice of an answer; the model would end its turn wherever it may."""
    return served.client().chat.completions.create(
        model="", messages=QUESTION, max_tokens=200, logit_bias={"0": 100}, **{"tools": TOOLS, **options}).choices[0]


def read(calls: Any) -> list[ToolCall]:
    return [ToolCall(call.function.name, json.loads(call.function.arguments)) for call in calls]


def test_a_call_that_is_required_comes(served: Running) -> None:
    assert asked(served).message.tool_calls is None  # this model calls nothing by itself
    for options in ({}, {"parallel_tool_calls": False}, {"temperature": 1.5, "seed": 3}):
        found = asked(served, tool_choice="required", **options)
        assert len(checked(read(found.message.tool_calls))) == 1
        assert found.finish_reason == "tool_calls" and found.message.content is None
    found = asked(served, tool_choice=NAMED)
    assert checked(read(found.message.tool_calls)) == ["light"] and found.finish_reason == "tool_calls"
    assert asked(served, tool_choice="none").message.tool_calls is None


def test_tools_and_a_schema_leave_the_choice_between_them(served: Running) -> None:
    schema = {"type": "json_schema", "json_schema": {"name": "light", "schema": LIGHT}}
    for seed in range(3):
        found = asked(served, response_format=schema, temperature=1.5, seed=seed)
        calls = found.message.tool_calls
        assert checked(read(calls)) if calls else not jsonschema.validate(json.loads(found.message.content), LIGHT)
    with pytest.raises(openai.BadRequestError, match="tools: calls and regex cannot both bind"):
        asked(served, extra_body={"regex": "a"})


def test_a_call_goes_back_into_the_conversation(served: Running) -> None:
    message = asked(served, tool_choice=NAMED).message
    (call,) = message.tool_calls
    assert len(call.id) == 9 and call.id.isalnum()
    messages = [*QUESTION, message.to_dict(), {"role": "tool", "tool_call_id": call.id, "content": "done"}]
    again = served.client().chat.completions.create(model="", messages=messages, tools=TOOLS, max_tokens=200,
                                                    tool_choice={"type": "function", "function": {"name": "stop"}})
    assert read(again.choices[0].message.tool_calls) == [ToolCall("stop", {})]


@pytest.mark.parametrize("choice", ["required", NAMED])
def test_a_call_comes_in_a_stream(choice: Any, served: Running) -> None:
    whole = asked(served, tool_choice=choice)
    stream = served.client().chat.completions.create(model="", messages=QUESTION, max_tokens=200, tools=TOOLS,
                                                     logit_bias={"0": 100}, tool_choice=choice, stream=True)
    chunks = [chunk.choices[0] for chunk in stream]
    calls = [call for chunk in chunks for call in chunk.delta.tool_calls or []]
    assert read(calls) == read(whole.message.tool_calls) and [call.index for call in calls] == [0]
    assert chunks[-1].finish_reason == "tool_calls" and not any(chunk.delta.content for chunk in chunks)


def test_calls_cut_off_by_the_limit_are_said_to_be(served: Running) -> None:
    found = served.client().chat.completions.create(model="", messages=QUESTION, max_tokens=8, tools=TOOLS,
                                                    tool_choice="required").choices[0]
    assert found.finish_reason == "length" and found.message.tool_calls is None and found.message.content


@pytest.mark.parametrize(("wrong", "message"), [
    ({"tool_choice": {"type": "function", "function": {"name": "dim"}}}, "'dim' is not among the tools: light_off"),
    ({"tool_choice": "required", "tools": []}, "no tools to choose from"), ({"tool_choice": "maybe"}, "choices: auto"),
    ({"tool_choice": "required", "tools": [{"type": "function", "function": {"name": "a b"}}]}, "function.name"),
    ({"tool_choice": "required", "response_format": {"type": "json_object"}}, "cannot both bind"),
    ({"tool_choice": "required", "tools": [{"type": "function", "function": {
        "name": "f", "parameters": {"type": "object", "properties": {"a": {"type": "no such"}}}}}]}, "tools: ")])
def test_what_cannot_be_called_is_refused(wrong: dict[str, Any], message: str, served: Running) -> None:
    with pytest.raises(openai.BadRequestError, match=message):
        asked(served, **wrong)


def test_templates_without_calls_and_classifiers_are_refused(packed_llama: dict[str, Path], packed_bert: Path) -> None:
    stations = [Station("plain", load_streams(packed_llama["onnx"], 1, 1), 8),
                Station("labels", load_streams(packed_bert, 1, 1), 8)]
    with running(stations) as found:
        for name, message in (("plain", "writes no tool calls"), ("labels", "calls no tools")):
            with pytest.raises(openai.BadRequestError, match=message):
                found.client().chat.completions.create(model=name, messages=QUESTION, tools=TOOLS,
                                                       tool_choice="required")


def test_calls_from_python(callers: dict[str, Path]) -> None:
    with load(callers["onnx"], threads=1) as model:
        assert isinstance(model, Generator)
        options: dict[str, Any] = {"tools": TOOLS, "max_new_tokens": 200, "logit_bias": {"0": 100.0}}
        answer = model.chat(QUESTION, tool_choice="required", **options)
        assert len(checked(model.tool_calls(answer)[1])) == 1 and answer.finish_reason == "stop"
        assert model.chat(QUESTION, tool_choice="none", **options).prompt_tokens <= answer.prompt_tokens
        with pytest.raises(UsageError, match="no tools to choose from"):
            model.chat(QUESTION, tool_choice="required")
