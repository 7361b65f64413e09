"""Conversations and tools as chat templates take them, from the forms that files hold them in."""

from __future__ import annotations

import json
from typing import Any

from .row_faults import RowFault
from .row_formats import parse_json

Message = dict[str, Any]
_ROLES = ("system", "developer", "user", "assistant", "tool")
_OTHER_ROLES = {"human": "user", "gpt": "assistant", "system": "system"}


def compact_json(value: Any) -> str:
    """JSON without blanks, as a model should write it."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def read_messages(value: Any, column: str) -> tuple[Message, ...]:
    """The messages of a conversation, which `column` holds as a list or as JSON; RowFault where it does not."""
    value = parse_json(value) if isinstance(value, str) and value.lstrip()[:1] == "[" else value
    if not isinstance(value, list) or not value:
        raise RowFault(f"the column {column!r} must hold a list of messages",
                       'write [{"role": "user", "content": …}, …]')
    return tuple(_message(item, f"{column}[{index}]") for index, item in enumerate(value))


def _message(item: Any, name: str) -> Message:
    if not isinstance(item, dict):
        raise RowFault(f"{name} is {type(item).__name__}, not an object", 'write {"role": "user", "content": "…"}')
    message = {key: value for key, value in item.items() if value is not None}
    if "from" in message and "value" in message and "role" not in message:
        message = {"role": _OTHER_ROLES.get(str(message["from"]), message["from"]), "content": message["value"]}
    role = message.get("role")
    if role not in _ROLES:
        raise RowFault(f"{name}.role is {role!r}", f"write one of: {', '.join(_ROLES)}")
    calls = message.get("tool_calls")
    if calls is not None:
        message["tool_calls"] = _tool_calls(calls, name)
        if not message["tool_calls"]:
            del message["tool_calls"]
    content = message.setdefault("content", "" if message.get("tool_calls") else None)
    if not isinstance(content, str):
        raise RowFault(f"{name}.content is {type(content).__name__}, not text", "write the content as one text")
    if not content.strip() and not message.get("tool_calls") and role != "tool":
        raise RowFault(f"{name}.content is empty", "fill it or remove the message")
    return message


def _tool_calls(calls: Any, name: str) -> list[dict[str, Any]]:
    """Tool calls with arguments as objects: chat templates write them as JSON, and text would be quoted twice."""
    checked = []
    for call in calls if isinstance(calls, list) else [None]:
        call = call if isinstance(call, dict) else {}
        function = call.get("function")
        if not isinstance(function, dict) or not isinstance(function.get("name"), str):
            raise RowFault(f"{name}.tool_calls must be a list of calls with a function name",
                           'write [{"type": "function", "function": {"name": …, "arguments": {…}}}]')
        arguments = function.get("arguments", {})
        arguments = parse_json(arguments) if isinstance(arguments, str) else arguments
        if not isinstance(arguments, dict):
            raise RowFault(f"{name}.tool_calls: the arguments of {function['name']!r} are no object",
                           'write "arguments": {"name": value, …}')
        checked.append({**call, "function": {**function, "arguments": arguments}})
    return checked


def read_tools(value: Any, column: str) -> tuple[dict[str, Any], ...]:
    """The tools that `column` holds as a list or as JSON; RowFault where it does not."""
    if value is None or value == "":
        return ()
    value = parse_json(value) if isinstance(value, str) else value
    if not isinstance(value, list) or not all(isinstance(tool, dict) for tool in value):
        raise RowFault(f"the column {column!r} must hold a list of tools", "write each tool as a JSON schema object")
    return tuple(value)
