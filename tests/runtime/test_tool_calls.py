"""Tool calls: the form is found in the template, and answers in it are read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from edgestill.models.errors import DataError, UsageError
from edgestill.runtime.generation.generator import Generator
from edgestill.runtime.generation.result import Generation
from edgestill.runtime.text.chat_template import ChatTemplate
from edgestill.runtime.text.codec import Codec
from edgestill.runtime.text.tool_calls import ToolCall, ToolFormat
from hypothesis import given, settings
from hypothesis import strategies as st

from .test_generator import Scripted

CALLS = """{%- for message in messages %}<|{{ message.role }}|>
{%- if message.tool_calls %}OPEN{%- for call in message.tool_calls %}{%- set f = call.function %}EACH{%- endfor %}CLOSE
{%- else %}{{ message.content }}{%- endif %}<|end|>
{%- endfor %}{%- if add_generation_prompt %}<|assistant|>{%- endif %}"""
HERMES = '\n<tool_call>\n{"name": "{{ f.name }}", "arguments": {{ f.arguments | tojson }}}\n</tool_call>'
FORMS = {
    "hermes": (("", HERMES, ""), ToolFormat("<tool_call>", "name", "arguments")),
    "thinking": (("<think>\n\n</think>\n", HERMES, ""), ToolFormat("<tool_call>", "name", "arguments")),
    "bare": (("", '{"name": "{{ f.name }}", "parameters": {{ f.arguments | tojson }}}', ""),
             ToolFormat("", "name", "parameters")),
    "text": (("", '[CALL]{"fn": "{{ f.name }}", "args": {{ f.arguments | tojson | tojson }}}', ""),
             ToolFormat("[CALL]", "fn", "args")),
    "list": (("[TOOL_CALLS] [", '{"name": "{{ f.name }}", "arguments": {{ f.arguments | tojson }}}'
              "{{ ', ' if not loop.last }}", "]"), ToolFormat("[TOOL_CALLS]", "name", "arguments")),
    "named": (("<calls>", "<call>function<sep>{{ f.name }}\n```json\n{{ f.arguments | tojson }}\n```</call>",
               "</calls>"), ToolFormat("<call>function<sep>", between="```json")),
}


def codec_of(template: str, tiny_llama: Path) -> Codec:
    plain = Codec.from_folder(tiny_llama)
    special = {"bos_token": "<s>", "eos_token": "</s>"}
    return Codec(plain.tokenizer, ChatTemplate({"default": template}, special), None, 0)


@pytest.mark.parametrize("name", FORMS)
def test_the_form_is_found_and_read(name: str, tiny_llama: Path) -> None:
    (opening, each, close), wanted = FORMS[name]
    codec = codec_of(CALLS.replace("OPEN", opening).replace("EACH", each).replace("CLOSE", close), tiny_llama)
    found = ToolFormat.of(codec.render)
    assert found == wanted
    calls = [ToolCall("turn_on", {"room": "hall", "deep": {"list": [1, "}"]}}), ToolCall("off", {})]
    for count in (1, 2) if name != "bare" else (1,):
        messages = [{"role": "assistant", "tool_calls": [
            {"function": {"name": call.name, "arguments": call.arguments}} for call in calls[:count]]}]
        text = codec.render(messages, add_generation_prompt=False).removeprefix("<|assistant|>")
        assert found.parse(text)[1] == calls[:count]
    assert found.parse("no call, just words {\"a\": 1}") == ("no call, just words {\"a\": 1}", [])


@pytest.mark.parametrize("name", ["Qwen-Qwen2.5-7B-Instruct", "Qwen-Qwen3-0.6B", "google-gemma-2-2b-it",
                                  "meta-llama-Llama-3.2-3B-Instruct", "mistralai-Mistral-Nemo-Instruct-2407"])
def test_real_templates_are_known(name: str, shared: Path, tiny_llama: Path) -> None:
    source = (shared / "tokenizers" / "chat-templates" / f"{name}.jinja").read_text(encoding="utf-8")
    if name.startswith("google"):
        with pytest.raises(UsageError, match="writes no tool calls"):
            ToolFormat.of(codec_of(source, tiny_llama).render)
        return
    found = ToolFormat.of(codec_of(source, tiny_llama).render)
    wanted = {"meta-llama-Llama-3.2-3B-Instruct": ToolFormat("", "name", "parameters"),
              "mistralai-Mistral-Nemo-Instruct-2407": ToolFormat("[TOOL_CALLS]", "name", "arguments")}
    assert found == wanted.get(name, ToolFormat("<tool_call>", "name", "arguments"))


def test_templates_without_calls_or_in_another_form_are_refused(tiny_llama: Path) -> None:
    with pytest.raises(UsageError, match="writes no tool calls"):
        ToolFormat.of(Codec.from_folder(tiny_llama).render)
    for each in ("[{{ f.name }}(edgestill_key='{{ f.arguments.edgestill_key }}')]",
                 "<function={{ f.name }}><p=edgestill_key>{{ f.arguments.edgestill_key }}</p></function>"):
        with pytest.raises(UsageError, match="a form that is not known: .*edgestill_tool"):
            source = CALLS.replace("EACH", each).replace("OPEN", "").replace("CLOSE", "")
            ToolFormat.of(codec_of(source, tiny_llama).render)


@pytest.mark.parametrize("text", ["<tool_call>", "<tool_call>{", '<tool_call>{"name": 3, "arguments": {}}',
                                  '<tool_call>{"name": "f"}', '<tool_call>["f"]', "<tool_call>" + "[" * 100_000])
def test_broken_calls_are_said_to_be_broken(text: str) -> None:
    with pytest.raises(DataError, match="a tool call that cannot be read"):
        ToolFormat("<tool_call>", "name", "arguments").parse(text)
    with pytest.raises(DataError, match="a tool call that cannot be read"):
        ToolFormat("<call>", between=":").parse("<call>f")


@settings(max_examples=100)
@given(text=st.text('<tol_ca>{}[]":,nameargumts 1', max_size=40))
def test_any_text_is_read_or_refused(text: str) -> None:
    for form in (ToolFormat("<tool_call>", "name", "arguments"), ToolFormat("", "name", "arguments")):
        try:
            words, calls = form.parse(text)
        except DataError:
            continue
        assert text.startswith(words) and all(isinstance(call, ToolCall) for call in calls)


def test_an_answers_calls_are_read_with_its_special_tokens(tiny_llama: Path) -> None:
    (opening, each, close), _ = FORMS["hermes"]
    codec = codec_of(CALLS.replace("OPEN", opening).replace("EACH", each).replace("CLOSE", close), tiny_llama)
    said: Any = codec.encode('I will. <tool_call>{"name": "f", "arguments": {"x": 1}}</tool_call>')
    engine: Any = Scripted([*said, 0])
    engine.context_length = 256
    model = Generator(engine, codec)
    found = model.generate("x", max_new_tokens=100)
    assert model.tool_calls(found) == ("I will.", [ToolCall("f", {"x": 1})])
    call, other = (f'<tool_call>{{"name": "{name}", "arguments": {{}}}}</tool_call>' for name in "fg")
    for text, words, calls in ((f"<think>Or {call}?</think>No.", "No.", []), (f"<think>{call}", "", []),
                               (f"<think>{call}</think>So: {other}", "So:", ["g"])):
        thought = Generation(text, codec.encode(text), 1, "stop", 0.0, 0.0)
        assert (model.tool_calls(thought)[0], [one.name for one in model.tool_calls(thought)[1]]) == (words, calls)
