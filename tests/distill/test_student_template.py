"""A chat template in place of the model's own: tools for models whose template has none."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from edgestill.distill.sources import resolve
from edgestill.distill.student_template import with_template
from edgestill.models import kinds
from edgestill.models.errors import UsageError
from edgestill.runtime.text.chat_template import ChatTemplate
from edgestill.runtime.text.codec import Codec
from edgestill.runtime.text.tool_calls import ToolFormat

TOOL: dict[str, Any] = {"type": "function", "function": {"name": "find", "parameters": {"type": "object"}}}


def chatml(messages: list[dict[str, Any]], tools: list[dict[str, Any]], opened: bool = False) -> str:
    path = kinds.folder("models.templates") / "chatml.jinja"
    return ChatTemplate({"default": path.read_text(encoding="utf-8")}, {}).render(messages, tools, opened)


def test_chatml_writes_every_part_of_a_conversation() -> None:
    call = {"type": "function", "function": {"name": "find", "arguments": {"city": "Köln", "n": 1}}}
    messages = [
        {"role": "system", "content": "Be brief."}, {"role": "user", "content": "food?"},
        {"role": "assistant", "content": "", "tool_calls": [call, call]},
        {"role": "tool", "content": "[1]"}, {"role": "tool", "content": "[2]"},
        {"role": "assistant", "content": "Two places."}]
    written = '<tool_call>\n{"name": "find", "arguments": {"city": "Köln", "n": 1}}\n</tool_call>'
    assert chatml(messages, [TOOL]) == (
        "<|im_start|>system\nBe brief.\n\nFunctions you can call, one JSON schema a line:\n<tools>\n"
        f"{json.dumps(TOOL)}\n</tools>\nTo call one, answer with "
        '<tool_call>{"name": …, "arguments": {…}}</tool_call>.<|im_end|>\n'
        "<|im_start|>user\nfood?<|im_end|>\n"
        f"<|im_start|>assistant\n{written}\n{written}<|im_end|>\n"
        "<|im_start|>user\n<tool_response>\n[1]\n</tool_response>\n<tool_response>\n[2]\n</tool_response><|im_end|>\n"
        "<|im_start|>assistant\nTwo places.<|im_end|>\n")
    assert chatml([{"role": "user", "content": "hi"}], [], True) == (
        "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n")


def test_a_folder_with_another_template_reads_its_calls_and_has_its_weights(tiny_llama: Path, tmp_path: Path) -> None:
    own = tmp_path / "own.jinja"
    own.write_text((kinds.folder("models.templates") / "chatml.jinja").read_text(encoding="utf-8"), encoding="utf-8")
    found = with_template(resolve(str(tiny_llama)), "own.jinja", tmp_path, tmp_path / "student")
    codec = Codec.from_folder(found.folder)
    assert codec.template == own.read_text(encoding="utf-8")
    calls = ToolFormat.of(codec.render).parse('<tool_call>\n{"name": "find", "arguments": {"a": 1}}\n</tool_call>')[1]
    assert [(call.name, call.arguments) for call in calls] == [("find", {"a": 1})]
    weights = found.folder / "model.safetensors"
    assert weights.read_bytes() == (tiny_llama / "model.safetensors").read_bytes()


def test_templates_that_do_not_fit_are_refused(tiny_llama: Path, tmp_path: Path) -> None:
    source = resolve(str(tiny_llama))
    with pytest.raises(UsageError, match="'nothing' is no file.*") as refused:
        with_template(source, "nothing", tmp_path, tmp_path / "a")
    assert "chatml" in refused.value.hint
    with pytest.raises(UsageError, match=r"chatml writes '<\|im_start\|>', which is no token of"):
        with_template(source, "chatml", tmp_path, tmp_path / "b")
