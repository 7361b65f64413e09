"""Requests to OpenAI's Responses API as chats. Nothing is kept: clients send the items of earlier responses back."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from . import known, messages, requests, validation
from .requests import Asked
from .validation import Refusal

_SAME = ("model", "temperature", "top_p", "parallel_tool_calls", "stream")
_NAMES: dict[str, str] = {
    "max_completion_tokens": "max_output_tokens", "response_format.json_schema": "text.format",
    "response_format": "text.format", "reasoning_effort": "reasoning.effort", ".function.": ".",
    "tool_choice.allowed_tools": "tool_choice"}
_OPTION_NAMES = {"schema": "text.format", "max_new_tokens": "max_output_tokens", "reasoning_effort": "reasoning.effort"}
_ITEM_NAMES: dict[str, dict[str, str]] = {
    "function_call": {".tool_calls[0].function": "", ".tool_calls[0].id": ".call_id"},
    "function_call_output": {".content": ".output", ".tool_call_id": ".call_id"}}
"""What an item of a type calls the fields of a chat's message."""
_TEXTS = ("input_text", "output_text", "reasoning_text")


def asked(body: Mapping[str, Any], scored: bool = False) -> Asked:
    """A request to /v1/responses; Refusal names the field that is wrong. `scored` as for chats."""
    known.check(body, known.RESPONSES)
    chat = {name: body[name] for name in _SAME if name in body}
    instructions = validation.text(body, "instructions")
    chat["messages"] = [{"role": "system", "content": instructions}] * bool(instructions) + list(_messages(body))
    chat["max_completion_tokens"] = body.get("max_output_tokens")
    tools = validation.tables(body, "tools", validation.TOOLS)
    chat["tools"] = [_tool(tool, f"tools[{place}]") for place, tool in enumerate(tools)]
    chat["tool_choice"] = _choice(body.get("tool_choice"))
    options = validation.object_(body, "stream_options")
    known.check(options, known.RESPONSE_STREAM_OPTIONS, "stream_options")
    reasoning, text = validation.object_(body, "reasoning"), validation.object_(body, "text")
    known.check(reasoning, known.REASONING, "reasoning")
    known.check(text, known.TEXT, "text")
    if reasoning.get("effort") is not None:
        chat["reasoning_effort"] = reasoning["effort"]
    form = validation.object_(text, "format", "text.format")
    if form:
        known.check(form, known.TEXT_FORMAT, "text.format")
        inner = {name: value for name, value in form.items() if name != "type"}
        chat["response_format"] = {"type": form.get("type"), **({"json_schema": inner} if inner else {})}
    try:
        found = requests.chat(chat, scored)
    except Refusal as refusal:
        raise refusal.renamed(_NAMES) from None
    return replace(found, names=_OPTION_NAMES)


def _messages(body: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """The items of the input as a chat's messages: thoughts, words and calls that follow each other are one turn's."""
    given = body.get("input")
    items = [{"role": "user", "content": given}] if isinstance(given, str) else \
        validation.tables(body, "input", validation.MESSAGES)
    if not items:
        raise Refusal("input: a text or at least one item is needed", "input", code="missing_required_parameter")
    turn: dict[str, Any] = {}
    called: set[Any] = set()
    for place, item in enumerate(items):
        message = _message(item, f"input[{place}]")
        called |= {call["id"] for call in message.get("tool_calls", ())}
        if message["role"] == "tool" and message["tool_call_id"] not in called:
            raise Refusal(f"input[{place}].call_id: {str(message['tool_call_id'])[:40]!r} is none of a function_call "
                          "before it", f"input[{place}].call_id")
        if message.get("reasoning_content") == "":  # kept from who sends it
            continue
        if message["role"] != "assistant":
            yield from [turn] * bool(turn)
            yield message
            turn = {}
        elif "tool_calls" in message:
            turn = {"role": "assistant", **turn, "tool_calls": [*turn.get("tool_calls", ()), *message["tool_calls"]]}
        else:
            if turn.keys() - {"role", "reasoning_content"} or turn.keys() >= message.keys():
                yield turn
                turn = {}
            turn |= message
    yield from [turn] * bool(turn)


def _message(item: dict[str, Any], where: str) -> dict[str, Any]:
    kind = item.get("type", "message")
    if not isinstance(kind, str) or kind not in known.INPUT:
        raise Refusal(f"{where}.type: {str(kind)[:40]!r}, known are {', '.join(known.INPUT)}", f"{where}.type",
                      code="unsupported_value")
    known.check(item, known.INPUT[kind], where)
    parts = item.get("output" if kind == "function_call_output" else "content")
    if isinstance(parts, list):
        parts = [_part(part, f"{where}.content[{place}]") for place, part in enumerate(parts)]
    if kind == "function_call":
        function = {"name": item.get("name"), "arguments": item.get("arguments")}
        found: dict[str, Any] = {"role": "assistant", "tool_calls": [
            {"id": item.get("call_id"), "type": "function", "function": function}]}
    elif kind == "function_call_output":
        found = {"role": "tool", "tool_call_id": item.get("call_id"), "content": parts}
    else:
        found = {"role": item.get("role"), "content": parts}
        if kind == "reasoning":
            found = {"role": "assistant", "content": parts or ""}
    try:
        read = messages.read(found, where)
    except Refusal as refusal:
        raise refusal.renamed(_ITEM_NAMES.get(kind, {})) from None
    return {"role": "assistant", "reasoning_content": read["content"]} if kind == "reasoning" else found


def _part(part: Any, where: str) -> Any:
    """A part of text as chats name it; another is left for them to refuse."""
    if not isinstance(part, dict) or part.get("type") not in _TEXTS:
        return part
    known.check(part, known.INPUT_TEXT, where)
    return {"type": "text", "text": part.get("text")}


def _tool(tool: dict[str, Any], where: str) -> dict[str, Any]:
    if tool.get("type") == "function":
        known.check(tool, known.RESPONSE_TOOL, where)
    return {"type": tool.get("type"), "function": {name: value for name, value in tool.items() if name != "type"}}


def _choice(choice: Any) -> Any:
    if not isinstance(choice, dict):
        return choice
    if choice.get("type") != "allowed_tools":
        return _tool(choice, "")
    known.check(choice, known.RESPONSE_ALLOWED, "tool_choice")
    tools = validation.tables({"tool_choice.tools": choice.get("tools")}, "tool_choice.tools", validation.TOOLS)
    return {"type": "allowed_tools", "allowed_tools": {"mode": choice.get("mode", "auto"),
                                                       "tools": [_tool(one, "") for one in tools]}}
