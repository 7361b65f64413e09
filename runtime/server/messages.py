"""A conversation and its tools: OpenAI's objects as chat templates take them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from ..generation.tool_grammar import FUNCTION_NAME
from . import known, validation
from .validation import Refusal

_NEEDED = ("system", "developer", "user", "tool")
"""Roles whose messages are nothing without content."""


def messages(body: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The conversation; Refusal names the field that is wrong."""
    found = [read(one, f"messages[{place}]")
             for place, one in enumerate(validation.tables(body, "messages", validation.MESSAGES))]
    if not found:
        raise Refusal("messages: at least one message is needed", "messages")
    return found


def tools(body: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The functions that may be called, as models are told of them: without what speaks to the server alone."""
    given = validation.tables(body, "tools", validation.TOOLS)
    found = [_tool(one, f"tools[{place}]") for place, one in enumerate(given)]
    names = [one["function"]["name"] for one in found]
    for place, name in enumerate(names):
        if name in names[:place]:  # a call would mean either
            where = f"tools[{place}].function.name"
            raise Refusal(f"{where}: {name!r} is the name of another tool, too", where)
    return found


def choice(body: Mapping[str, Any], offered: list[dict[str, Any]]) -> tuple[Any, list[dict[str, Any]]]:
    """tool_choice as the runtime has it, and which of the tools `offered` it leaves."""
    wanted = body.get("tool_choice")
    if wanted is None or isinstance(wanted, str):
        if wanted not in (None, "auto", "none", "required"):
            raise Refusal(f"tool_choice: {wanted[:40]!r}, choices: auto, none, required, or an object",
                          "tool_choice")
        if wanted == "required" and not offered:
            raise Refusal("tool_choice: required, and there are no tools to choose from", "tool_choice")
        return wanted or "auto", [] if wanted == "none" else offered
    table = validation.object_(body, "tool_choice")
    known.check(table, known.CHOICE, "tool_choice")
    if table.get("type") == "allowed_tools":
        where = "tool_choice.allowed_tools"
        allowed = validation.object_(table, "allowed_tools", where)
        known.check(allowed, known.ALLOWED, where)
        if allowed.get("mode", "auto") not in ("auto", "required"):
            raise Refusal(f"{where}.mode: {str(allowed['mode'])[:40]!r}, known are auto and required", f"{where}.mode")
        names = [_chosen(one, f"{where}.tools[{place}]", offered) for place, one in enumerate(
            validation.tables({f"{where}.tools": allowed.get("tools")}, f"{where}.tools", validation.TOOLS))]
        if not names:
            raise Refusal(f"{where}.tools: at least one is needed", f"{where}.tools")
        return allowed.get("mode", "auto"), [one for one in offered if one["function"]["name"] in names]
    name = _chosen(table, "tool_choice", offered)
    return {"type": "function", "function": {"name": name}}, offered


def _chosen(table: Mapping[str, Any], where: str, offered: list[dict[str, Any]]) -> str:
    """The name of one of the tools `offered`."""
    _function_alone(table, where)
    function = validation.object_(table, "function", f"{where}.function")
    known.check(function, known.CHOSEN, f"{where}.function")
    name = validation.text(function, "name", where=f"{where}.function.name")
    names = [one["function"]["name"] for one in offered]
    if name not in names:
        raise Refusal(f"{where}.function.name: {name[:80]!r} is not among the tools: {', '.join(names) or 'none'}",
                      f"{where}.function.name")
    return name


def _tool(tool: dict[str, Any], where: str) -> dict[str, Any]:
    if tool.get("type", "function") == "function":
        known.check(tool, known.TOOL, where)
    _function_alone(tool, where)
    function = validation.object_(tool, "function", f"{where}.function")
    known.check(function, known.FUNCTION, f"{where}.function")
    name = validation.text(function, "name", where=f"{where}.function.name")
    if not FUNCTION_NAME.fullmatch(name):
        raise Refusal(f"{where}.function.name: {name[:80]!r}, 1 to 64 letters, digits, _, - and . are the limits",
                      f"{where}.function.name")
    parameters = validation.object_(function, "parameters", f"{where}.function.parameters")
    if parameters.get("type", "object") != "object":
        raise Refusal(f"{where}.function.parameters: the JSON schema of an object was expected",
                      f"{where}.function.parameters")
    validation.text(function, "description", where=f"{where}.function.description")
    validation.flag({f"{where}.function.strict": function.get("strict")}, f"{where}.function.strict")
    kept = {key: value for key, value in function.items()
            if key in ("name", "description", "parameters") and value is not None}
    return {"type": "function", "function": kept}


def _function_alone(table: Mapping[str, Any], where: str) -> None:
    if table.get("type", "function") != "function":
        raise Refusal(f"{where}.type: {str(table['type'])[:40]!r}, these models call functions only", f"{where}.type",
                      code="unsupported_value")


def read(message: dict[str, Any], where: str) -> dict[str, Any]:
    """One message; Refusal names the field that is wrong, from `where` on."""
    role = message.get("role")
    if not isinstance(role, str) or role not in known.MESSAGES:
        raise Refusal(f"{where}.role: {str(role)[:40]!r}, known are {', '.join(known.MESSAGES)}", f"{where}.role")
    known.check(message, known.MESSAGES[role], where)
    content = message.get("content")
    if content is None and role in _NEEDED:
        raise Refusal(f"{where}.content: is missing", f"{where}.content", code="missing_required_parameter")
    if isinstance(content, list):  # joined as rows are, and as vLLM and llama-server join them
        parts = validation.tables({f"{where}.content": content}, f"{where}.content", validation.INPUTS)
        content = "\n".join(_text_part(part, f"{where}.content[{place}]") for place, part in enumerate(parts))
    words = validation.text({"content": content}, "content", where=f"{where}.content")
    found: dict[str, Any] = {"role": role, "content": words}
    for name in ("name", "tool_call_id"):
        if message.get(name) is not None:
            found[name] = validation.text(message, name, where=f"{where}.{name}")
    if role == "assistant":
        for name in ("reasoning", "reasoning_content"):  # vLLM's word, and that of templates and llama-server
            if text := validation.text(message, name, where=f"{where}.{name}"):
                found["reasoning_content"] = text
        called = f"{where}.tool_calls"
        calls = validation.tables({called: message.get("tool_calls")}, called, validation.TOOLS)
        if calls:
            found["tool_calls"] = [_call(call, f"{called}[{place}]") for place, call in enumerate(calls)]
        elif content is None and "reasoning_content" not in found:
            raise Refusal(f"{where}.content: is missing, and there are no tool_calls", f"{where}.content",
                          code="missing_required_parameter")
    return found


def _text_part(part: dict[str, Any], where: str) -> str:
    if part.get("type") != "text":
        raise Refusal(f"{where}.type: {str(part.get('type'))[:40]!r}, these models read text only", f"{where}.type",
                      code="unsupported_value")
    known.check(part, known.TEXT_PART, where)
    if part.get("text") is None:
        raise Refusal(f"{where}.text: is missing", f"{where}.text", code="missing_required_parameter")
    return validation.text(part, "text", where=f"{where}.text")


def _call(call: dict[str, Any], where: str) -> dict[str, Any]:
    """An earlier call with its arguments as an object, which templates are written for."""
    _function_alone(call, where)
    known.check(call, known.CALL, where)
    function = validation.object_(call, "function", f"{where}.function")
    known.check(function, known.CALLED, f"{where}.function")
    name = validation.text(function, "name", where=f"{where}.function.name")
    written = validation.text(function, "arguments", where=f"{where}.function.arguments")
    try:
        arguments = json.loads(written or "{}")
    except (ValueError, RecursionError):
        raise Refusal(f"{where}.function.arguments: no JSON", f"{where}.function.arguments") from None
    if not isinstance(arguments, dict):
        raise Refusal(f"{where}.function.arguments: the JSON of an object was expected", f"{where}.function.arguments")
    return {"type": "function", "id": validation.text(call, "id", where=f"{where}.id"),
            "function": {"name": name, "arguments": arguments}}
