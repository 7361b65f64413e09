"""Every field of a request is honoured, known to be harmless, or refused by its name: at every address and level."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import openai
import pytest
from edgestill.runtime import load
from edgestill.runtime.server import known, requests
from edgestill.runtime.server.validation import Refusal

from ..serving import Running

USER = {"role": "user", "content": "turn off the light"}
BODIES: dict[str, dict[str, Any]] = {
    "/v1/chat/completions": {"model": "text", "messages": [USER], "max_tokens": 1},
    "/v1/completions": {"model": "text", "prompt": "turn off", "max_tokens": 1},
    "/v1/embeddings": {"model": "vectors", "input": "turn off"},
    "/classify": {"model": "labels", "text": "turn off"},
}
CHAT, TEXT, VECTORS, LABELS = BODIES
SCHEMA = {"type": "object", "properties": {"on": {"type": "boolean"}}, "required": ["on"],
          "additionalProperties": False}
TOOL = {"type": "function", "function": {"name": "turn_off", "parameters": SCHEMA}}

UNKNOWN = [  # address, field, value, what the message offers instead
    (CHAT, "respons_format", {"type": "json_object"}, "response_format"), (CHAT, "max_token", 2, "max_tokens"),
    (CHAT, "maxTokens", 2, "max_tokens"), (CHAT, "Temperature", 1, "temperature"), (CHAT, "prompt", "a", "messages"),
    (CHAT, "extra_body", {"top_k": 1}, "beside the other fields"), (CHAT, "some_new_field", None, "an unknown field"),
    (TEXT, "messages", [USER], "takes a prompt"), (TEXT, "tools", [], "known are"), (TEXT, "top_kk", 1, "top_k"),
    (VECTORS, "dimension", 64, "dimensions"), (VECTORS, "temperature", 1, "known are"), (VECTORS, "texts", [], "known"),
    (LABELS, "input", "a", "write text"), (LABELS, "topk", 1, "top_k"), (LABELS, "truncate", True, "known are"),
]
REFUSED = [  # address, field, values that ask for what is not done here
    (CHAT, "functions", [TOOL["function"]]), (CHAT, "function_call", {"name": "f"}), (CHAT, "service_tier", "flex"),
    (CHAT, "modalities", ["text", "audio"]), (CHAT, "audio", {"voice": "alloy"}), (CHAT, "verbosity", "low"),
    (CHAT, "web_search_options", {}), (CHAT, "ignore_eos", True), (CHAT, "min_tokens", 3), (CHAT, "bad_words", ["a"]),
    (CHAT, "use_beam_search", True), (CHAT, "continue_final_message", True), (CHAT, "chat_template", "{{ 1 }}"),
    (CHAT, "add_generation_prompt", False), (CHAT, "documents", [{"text": "a"}]), (CHAT, "mirostat", 2),
    (CHAT, "dry_multiplier", 0.8), (CHAT, "typical_p", 0.5), (CHAT, "n_probs", 3), (CHAT, "t_max_predict_ms", 100),
    (CHAT, "truncate_prompt_tokens", 8), (CHAT, "allowed_token_ids", [1]), (CHAT, "lora", [{"id": 0}]),
    (CHAT, "cache_salt", "a"), (CHAT, "thinking_token_budget", 12),
    (CHAT, "thinking_budget_tokens", 5), (CHAT, "reasoning_effort", "huge"),
    (CHAT, "reasoning_effort", "low"), (CHAT, "chat_template_kwargs", {"enable_thinkin": False}),
    (CHAT, "chat_template_kwargs", [1]), (CHAT, "enable_thinking", "no"), (CHAT, "reasoning_format", "xml"),
    (CHAT, "include_reasoning", "no"),
    (CHAT, "samplers", ["top_k"]), (CHAT, "echo", True), (CHAT, "priority", 1), (TEXT, "best_of", 3),
    (TEXT, "suffix", "end"), (TEXT, "add_special_tokens", False), (TEXT, "prompt_logprobs", 1),
    (VECTORS, "dimensions", 8), (VECTORS, "encoding_format", "int8"), (VECTORS, "truncate_prompt_tokens", 8),
    (CHAT, "top_logprobs", 2), (CHAT, "stop", ""), (CHAT, "stop", ["a", ""]), (CHAT, "stop_token_ids", [-1]),
    (CHAT, "stop_token_ids", [99999]),
    (CHAT, "stop_token_ids", [None]), (CHAT, "logit_bias", [[1, 2, 3]]), (CHAT, "logit_bias", [["word", 1]]),
    (CHAT, "max_completion_tokens", 2), (CHAT, "n_predict", 2), (CHAT, "n_predict", -2),
    (CHAT, "stream_options", {"include_usage": True}), (TEXT, "stream_options", {"include_usage": True}),
    (CHAT, "stream_options", {"include_usag": True}), (CHAT, "stream_options", {"continuous_usage_stats": True}),
    (CHAT, "tool_choice", "any"), (CHAT, "tool_choice", "required"), (CHAT, "tool_choice", ["auto"]),
    (CHAT, "tool_choice", {"type": "function", "function": {"name": "turn_off"}}),
]
NEUTRAL: dict[str, dict[str, Any]] = {  # what asks for nothing is taken, as are harmless fields
    CHAT: {"n": 1, "logprobs": False, "top_logprobs": 0, "stream": False, "stop": None, "tools": [],
           "tool_choice": "none", "store": True, "user": "me", "metadata": {"a": "b"}, "safety_identifier": "x",
           "prompt_cache_key": "x",
           "prompt_cache_retention": "24h", "service_tier": "auto", "modalities": ["text"], "audio": None,
           "verbosity": "medium", "prediction": {"type": "content", "content": "a"}, "functions": [], "top_k": -1,
           "parallel_tool_calls": False, "logit_bias": {}, "response_format": {"type": "text"}, "seed": -1,
           "ignore_eos": False, "min_tokens": 0, "skip_special_tokens": True, "add_generation_prompt": True,
           "chat_template": None, "documents": [], "typical_p": 1, "mirostat": 0, "mirostat_tau": 5.0, "min_keep": 0,
           "dry_multiplier": 0.0, "dry_base": 1.75, "repeat_penalty": 1.0, "repeat_last_n": 64, "lora": [],
           "cache_prompt": True, "id_slot": -1, "priority": 0,
           "thinking_token_budget": -1, "include_reasoning": True, "reasoning_format": "auto",
           "guided_json": None,
           "structured_outputs": {}, "n_predict": 1, "max_completion_tokens": 1, "stream_options": None,
           "request_id": "a", "echo": False, "frequency_penalty": 0, "stop_token_ids": [], "repetition_penalty": 1},
    TEXT: {"n": 1, "logprobs": None, "echo": False, "best_of": 1, "suffix": None, "user": "me", "stream": False,
           "add_special_tokens": True, "logit_bias": None, "stop": [], "presence_penalty": 0.0,
           "use_beam_search": False},
    VECTORS: {"encoding_format": "float", "dimensions": 64, "user": "me", "add_special_tokens": True,
              "truncate_prompt_tokens": None},
    LABELS: {"top_k": None, "user": "me", "metadata": {}},
}
NESTED: list[tuple[dict[str, Any], str]] = [  # what is beside the conversation, and the field that is named
    ({"messages": [{**USER, "contnt": "a"}]}, "messages[0].contnt"),
    ({"messages": [USER, {"role": "user"}]}, "messages[1].content"),
    ({"messages": [{"role": "assistant"}, USER]}, "messages[0].content"),
    ({"messages": [{**USER, "tool_calls": [{"id": "a"}]}]}, "messages[0].tool_calls"),
    ({"messages": [{**USER, "weight": 0}]}, "messages[0].weight"),
    ({"messages": [{"role": "function", "name": "f", "content": "a"}]}, "messages[0].role"),
    ({"messages": [{"role": "assistant", "content": None, "refusal": "no"}]}, "messages[0].refusal"),
    ({"messages": [{"role": "user", "content": [{"type": "text", "text": "a", "txt": 1}]}]},
     "messages[0].content[0].txt"),
    ({"messages": [{"role": "user", "content": [{"type": "text"}]}]}, "messages[0].content[0].text"),
    ({"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "a"}}]}]},
     "messages[0].content[0].type"),
    ({"messages": [{"role": "assistant", "tool_calls": [{"type": "custom", "custom": {}}]}]},
     "messages[0].tool_calls[0].type"),
    ({"messages": [{"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": "[]"}}]}]},
     "messages[0].tool_calls[0].function.arguments"),
    ({"messages": [{"role": "assistant", "tool_calls": [{"function": {"name": "f", "args": "{}"}}]}]},
     "messages[0].tool_calls[0].function.args"),
    ({"response_format": {"type": "json_schema", "json_schema": {"name": 1, "schema": {"type": "object"}}}},
     "response_format.json_schema.name"),
    ({"response_format": {"type": "json_schema", "json_schema": {"strict": "yes", "schema": {"type": "object"}}}},
     "response_format.json_schema.strict"),
    ({"tools": [{**TOOL, "strict": True}]}, "tools[0].strict"), ({"tools": [{"type": "custom"}]}, "tools[0].type"),
    ({"tools": [{"type": "function", "function": {"name": "a b"}}]}, "tools[0].function.name"),
    ({"tools": [{"type": "function", "function": {"name": "f", "parametrs": {}}}]}, "tools[0].function.parametrs"),
    ({"tools": [{"type": "function", "function": {"name": "f", "parameters": {"type": "array"}}}]},
     "tools[0].function.parameters"),
    ({"tools": [TOOL], "tool_choice": {"type": "function", "function": {"name": "g"}}}, "tool_choice.function.name"),
    ({"tools": [TOOL], "tool_choice": {"type": "function", "name": "turn_off"}}, "tool_choice.name"),
    ({"tools": [TOOL], "tool_choice": {"type": "allowed_tools", "allowed_tools": {"mode": "any"}}},
     "tool_choice.allowed_tools.mode"),
    ({"tools": [TOOL], "guided_regex": "a"}, "tools"),
    ({"tools": [TOOL], "tool_choice": "required", "response_format": {"type": "json_object"}}, "tools"),
    ({"response_format": {"type": "json_schema", "json_schema": {"shema": SCHEMA}}},
     "response_format.json_schema.shema"),
    ({"response_format": {"type": "json_object", "strict": True}}, "response_format.strict"),
    ({"response_format": {"type": "json_object", "json_schema": {"schema": SCHEMA}}}, "response_format.type"),
    ({"response_format": {"type": "text", "schema": SCHEMA}}, "response_format.type"),
    ({"structured_outputs": {"jsn": SCHEMA}}, "structured_outputs.jsn"),
    ({"structured_outputs": {"structural_tag": "{}"}}, "structured_outputs.structural_tag"),
    ({"guided_json": "{"}, "guided_json"), ({"guided_json": [1]}, "guided_json"), ({"json_schema": 1}, "json_schema"),
    ({"guided_regex": "a", "grammar": "b"}, "guided_regex"),
    ({"response_format": {"type": "json_object"}, "choices": ["a"]}, "choices"),
    ({"repeat_penalty": 1.2, "repeat_last_n": 64}, "repeat_last_n"), ({"n": 2, "n_cmpl": 3}, "n_cmpl"),
]
ON = r'\{"on":(true|false)\}'
SPELLINGS = [  # fields of other servers, and the answer's form
    ({"guided_json": SCHEMA}, ON), ({"guided_json": json.dumps(SCHEMA)}, ON), ({"json_schema": SCHEMA}, ON),
    ({"structured_outputs": {"json": SCHEMA}}, ON), ({"structured_outputs": {"json_object": True}}, r"\{.*"),
    ({"response_format": {"type": "json_object", "schema": SCHEMA}}, ON),
    ({"response_format": {"type": "json_schema", "schema": SCHEMA}}, ON),
    ({"guided_regex": "[ab]{3}"}, "[ab]{3}"), ({"structured_outputs": {"regex": "[ab]{3}"}}, "[ab]{3}"),
    ({"guided_choice": ["yes", "no"]}, "yes|no"), ({"structured_outputs": {"choice": ["yes", "no"]}}, "yes|no"),
    ({"guided_grammar": 'start: "x" | "y"'}, "x|y"), ({"grammar": 'root ::= "x" | "y"'}, "x|y"),
    ({"structured_outputs": {"grammar": 'root ::= "x" | "y"'}}, "x|y"),
    ({"json_schema": {}, "max_tokens": 1}, r'[{["\-0-9tfn]+.*'),
]


@pytest.mark.parametrize(("path", "name", "value", "offer"), UNKNOWN)
def test_an_unknown_field_is_refused_by_name(path: str, name: str, value: Any, offer: str, several: Running) -> None:
    status, found, _ = several.ask("POST", path, {**BODIES[path], name: value})
    error = found["error"]
    assert (status, error["param"], error["code"]) == (400, name, "unknown_parameter"), found
    assert error["type"] == "invalid_request_error" and offer in error["message"]


@pytest.mark.parametrize(("path", "name", "value"), REFUSED)
def test_what_is_not_done_is_refused_by_name(path: str, name: str, value: Any, several: Running) -> None:
    status, found, _ = several.ask("POST", path, {**BODIES[path], name: value})
    assert status == 400 and str(found["error"]["param"]).startswith(name), found


@pytest.mark.parametrize("path", BODIES)
def test_what_asks_for_nothing_changes_nothing(path: str, several: Running) -> None:
    def said(body: dict[str, Any]) -> Any:
        status, found, _ = several.ask("POST", path, body)
        assert status == 200, found
        return found.get("choices") or found.get("data") or found["results"]

    wanted = said(BODIES[path])
    assert said({**BODIES[path], **NEUTRAL[path]}) == wanted
    for name, value in NEUTRAL[path].items():  # each by itself, too
        assert said({**BODIES[path], name: value}) == wanted, name


@pytest.mark.parametrize(("more", "param"), NESTED, ids=[param for _, param in NESTED])
def test_fields_within_fields_are_named(more: dict[str, Any], param: str) -> None:
    with pytest.raises(Refusal) as caught:
        requests.chat({**BODIES[CHAT], **more})
    assert (caught.value.param, caught.value.status) == (param, 400)
    assert param in caught.value.message


@pytest.mark.parametrize(("more", "form"), SPELLINGS)
def test_others_spellings_bind_the_answer(more: dict[str, Any], form: str, several: Running) -> None:
    for path in (CHAT, TEXT):
        status, found, _ = several.ask("POST", path, {**BODIES[path], "max_tokens": 40, **more})
        choice = found["choices"][0]
        text = choice["message"]["content"] if path == CHAT else choice["text"]
        assert status == 200 and re.fullmatch(form, text), (path, text)


def test_other_spellings_of_sampling_are_the_runtimes_options(several: Running, packed_llama: dict[str, Path]) -> None:
    client = several.client()
    with load(packed_llama["gguf"], threads=1) as model:
        plain = model.chat([USER], max_new_tokens=6)

        def said(**more: Any) -> openai.types.chat.ChatCompletion:
            return client.chat.completions.create(model="text", messages=[USER], extra_body=more)

        assert said(n_predict=6).choices[0].message.content == plain.text
        assert said(max_completion_tokens=6).usage.completion_tokens == 6
        stopped = said(max_tokens=6, stop_token_ids=[plain.ids[2]])
        assert stopped.choices[0].finish_reason == "stop" and stopped.usage.completion_tokens == 2
        penalised = model.chat([USER], max_new_tokens=6, repetition_penalty=50.0)
        assert said(max_tokens=6, repeat_penalty=50, repeat_last_n=-1).choices[0].message.content == penalised.text
        banned = model.chat([USER], max_new_tokens=6, logit_bias={str(plain.ids[0]): -100.0})
        for bias in ([[plain.ids[0], False]], [[plain.ids[0], -100]], {str(plain.ids[0]): -100}):
            assert said(max_tokens=6, logit_bias=bias).choices[0].message.content == banned.text != plain.text
        assert len(said(max_tokens=1, n_cmpl=2).choices) == 2
        assert said(n_predict=-1).usage.completion_tokens > 6 or plain.finish_reason == "stop"
        long = [{"role": "user", "content": "turn off the light " * 20}]
        cached = [client.chat.completions.create(model="text", messages=long, max_tokens=1, extra_body=more)
                  .usage.prompt_tokens_details.cached_tokens for more in ({}, {}, {"cache_prompt": False})]
        assert cached[1] > 0 == cached[0] == cached[2]


def test_a_special_token_stops_and_bytes_are_the_tokens_own(several: Running) -> None:
    body = {**BODIES[CHAT], "max_tokens": 8, "logit_bias": {"4": 100}, "temperature": 0}
    for stop, reason in ((["<|pad|>"], "stop"), ([], "length")):
        found = several.ask("POST", CHAT, {**body, "stop": stop})[1]
        assert (found["choices"][0]["finish_reason"], found["choices"][0]["message"]["content"]) == (reason, "")
    text, scored = "Grüße 🙂 你好", {"model": "text", "echo": True, "logprobs": 2, "max_tokens": 0}
    found = several.ask("POST", TEXT, {**scored, "prompt": text})[1]
    scores = found["choices"][0]["logprobs"]
    assert b"".join(map(bytes, scores["bytes"])).decode() == text
    places = [len(b"".join(map(bytes, scores["bytes"][:index])).decode("utf-8", "ignore"))
              for index in range(len(scores["bytes"]))]
    assert all(abs(one - other) <= 1 for one, other in zip(scores["text_offset"], places, strict=True))


def test_a_message_that_openai_answered_comes_back_as_it_was() -> None:
    said = {"role": "assistant", "content": None, "refusal": None, "annotations": [], "audio": None,
            "function_call": None, "tool_calls": [{"id": "abc", "type": "function", "index": 0, "function": {
                "name": "turn_off", "arguments": ""}}]}
    told = {"role": "tool", "tool_call_id": "abc", "content": [{"type": "text", "text": "do", "cache_control": {}},
                                                               {"type": "text", "text": "ne"}]}
    tools = [{**TOOL, "function": {**TOOL["function"], "strict": True}, "cache_control": {"type": "ephemeral"}}]
    found = requests.messages.messages({"messages": [{"role": "developer", "content": "a"}, USER, said, told]})
    assert found == [{"role": "developer", "content": "a"}, USER, {"role": "assistant", "content": "", "tool_calls": [
        {"type": "function", "id": "abc", "function": {"name": "turn_off", "arguments": {}}}]},
        {"role": "tool", "tool_call_id": "abc", "content": "do\nne"}]  # parts as rows join them
    assert requests.messages.tools({"tools": tools}) == [TOOL]  # models are told of tools as they were trained
    assert requests.messages.messages({"messages": [{"role": "assistant", "content": "b", "reasoning": "a"}]}) == [
        {"role": "assistant", "content": "b", "reasoning_content": "a"}]


def test_allowed_tools_are_all_that_the_model_is_told_of() -> None:
    other = {"type": "function", "function": {"name": "turn_on"}}
    choice = {"type": "allowed_tools", "allowed_tools": {"mode": "required", "tools": [
        {"type": "function", "function": {"name": "turn_on"}}]}}
    assert requests.messages.choice({"tool_choice": choice}, [TOOL, other]) == ("required", [other])
    named = {"type": "function", "function": {"name": "turn_on"}}
    assert requests.messages.choice({"tool_choice": named}, [TOOL, other]) == (named, [TOOL, other])
    assert requests.messages.choice({"tool_choice": "none"}, [TOOL]) == ("none", [])
    assert requests.messages.choice({}, [TOOL]) == ("auto", [TOOL])


@pytest.mark.parametrize(("path", "field", "value"), [
    (CHAT, "n_predict", 0), (TEXT, "n_predict", 0), (CHAT, "guided_json", {"type": "frob"}),
    (CHAT, "guided_regex", "("), (TEXT, "regex", []), (CHAT, "guided_grammar", "start: nothing"),
    (CHAT, "response_format", {"type": "json_schema", "json_schema": {"schema": {"type": "frob"}}}),
    (CHAT, "logit_bias", {"5": 1, "05": -1}), (VECTORS, "encoding_format", [])])
def test_what_shows_late_has_the_name_that_it_was_given(path: str, field: str, value: Any, several: Running) -> None:
    body = {name: given for name, given in BODIES[path].items() if name != "max_tokens"} | {field: value}
    status, found, _ = several.ask("POST", path, body)
    assert (status, found["error"]["param"]) == (400, field), found
    assert found["error"]["message"].startswith(f"{field}:")


def test_no_field_stands_in_two_tables() -> None:
    for name, level in vars(known).items():
        for one in level.values() if name == "MESSAGES" else [level]:
            if isinstance(one, known.Level):
                assert len(one.honoured | one.harmless | one.neutral.keys()) == (
                    len(one.honoured) + len(one.harmless) + len(one.neutral)), name


@pytest.mark.parametrize(("body", "message"), [
    (b'{"model": "text", "model": "labels"}', "'model' stands twice"),
    (b'{"messages": [{"role": "user", "role": "system"}]}', "'role' stands twice"),
    (b'{"temperature": 1,}', "no JSON")])
def test_json_that_means_two_things_is_refused(body: bytes, message: str, several: Running) -> None:
    status, found, _ = several.ask("POST", CHAT, body)
    assert status == 400 and message in found["error"]["message"] and found["error"]["code"] == "invalid_json"


@pytest.mark.parametrize(("path", "name", "value", "limit"), [
    (CHAT, "messages", [{"role": "user", "content": "light " * 300}], 256), (TEXT, "prompt", [1] * 300, 256),
    (TEXT, "prompt", [[1] * 300, [1]], 256), (TEXT, "prompt", "light " * 300, 256), (VECTORS, "input", [5] * 30, 24),
    (VECTORS, "input", [[5] * 30], 24), (VECTORS, "input", "light " * 30, 24), (VECTORS, "input", ["a", "b " * 30], 24),
    (VECTORS, "input", "light" * 300_000, 24), (TEXT, "prompt", "light" * 300_000, 256)])
def test_what_is_longer_than_the_context_is_refused_with_both_numbers(path: str, name: str, value: Any, limit: int,
                                                                      several: Running) -> None:
    status, found, _ = several.ask("POST", path, {**BODIES[path], name: value})
    error = found["error"]
    assert (status, error["code"], error["param"]) == (400, "context_length_exceeded", name), error
    assert f"maximum context length is {limit} tokens" in error["message"]
    assert re.search(r" tokens: .*\d{2,7} (tokens|characters)", error["message"])


def test_what_is_cut_off_is_flagged(several: Running) -> None:
    long, short = "light " * 40, "light"
    client = several.client()
    found = client.embeddings.create(model="vectors", input=[long, short, [5] * 30],  # type: ignore[list-item]
                                     encoding_format="float", extra_body={"truncate_prompt_tokens": -1})
    assert [one.truncated for one in found.data] == [True, False, True]
    assert found.usage.prompt_tokens == 24 + found.data[1].index * 3 + 24
    status, labels, _ = several.ask("POST", LABELS, {"model": "labels", "text": [long, short]})
    assert status == 200 and [one["truncated"] for one in labels["results"]] == [True, False]
    with pytest.raises(openai.BadRequestError, match="maximum context length is 24") as caught:
        client.chat.completions.create(model="labels", messages=[{"role": "user", "content": long}])
    assert caught.value.code == "context_length_exceeded"


@pytest.mark.parametrize("more", [{"tools": [TOOL]}, {"logprobs": True}, {"n": 2}, {"regex": "a"}, {"stop": "a"},
                                  {"guided_choice": ["a"]}, {"logit_bias": {"1": 1}}, {"grammar": "a"}])
def test_a_classifier_ignores_no_field_either(more: dict[str, Any], several: Running) -> None:
    status, found, _ = several.ask("POST", CHAT, {**BODIES[CHAT], "model": "labels", **more})
    assert status == 400 and found["error"]["param"] in more and "label" in found["error"]["message"]
    usual = {"temperature": 0.7, "top_p": 1, "seed": 3, "max_tokens": 9, "stream": False, "tools": [], "n": 1}
    assert several.ask("POST", CHAT, {**BODIES[CHAT], "model": "labels", **usual})[0] == 200
