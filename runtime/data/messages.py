"""The messages of a conversation: what the formats in use write, as chat templates take it, and what answers mean."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from ..text.chat_template import REASONING
from .faults import RowFault
from .formats import parse_inside

Message = dict[str, Any]

ROLES = ("system", "developer", "user", "assistant", "tool")
OTHER_ROLES = {"human": "user", **dict.fromkeys(("gpt", "chatgpt", "model", "ai"), "assistant"),
               **dict.fromkeys(("function", "observation", "function_response", "tool_response", "ipython"), "tool"),
               "function_call": "assistant"}
"""ShareGPT's roles, Gemma's, LangChain's, Llama's and OpenAI's older ones."""
TEXT_PARTS = ("text", "input_text", "output_text")
"""Types of parts that are text, in OpenAI's two forms."""
_CALL_KEYS, _FUNCTION_KEYS = {"id", "type", "index", "function"}, {"name", "arguments"}
_OTHER_PARAMETERS = ("input_schema", "inputSchema", "arguments", "args")
"""What other formats call a function's parameters; a template would write it as it stands."""
_TOOL = 'write {"type": "function", "function": {"name": …, "description": …, "parameters": {…}}}'
_ZERO_OR_ONE = {"0": 0, "0.0": 0, "false": 0, "1": 1, "1.0": 1, "true": 1}
_THOUGHTS = re.compile(r"\s*<think>(.*?)</think>\s*", re.DOTALL)


def compact_json(value: Any) -> str:
    """JSON without blanks, as a model should write it."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def meaning(words: str, calls: Sequence[Mapping[str, Any]] = ()) -> str:
    """What an answer means, as one text: its words without thoughts; its calls as a JSON list of name and arguments; or
    both, as {"content": …, "tool_calls": […]}."""
    words = apart(words)[1]
    if not calls:
        return words
    made = [{key: (call.get("function") or call)[key] for key in ("name", "arguments")} for call in calls]
    return compact_json({"content": words.strip(), "tool_calls": made} if words.strip() else made)


def apart(content: str) -> tuple[str, str]:
    """Thoughts that stand before an answer between <think> and </think>, and the answer."""
    found = _THOUGHTS.match(content)
    return (found[1].strip(), content[found.end():]) if found else ("", content)


def reasoning(message: Mapping[str, Any]) -> str:
    """The thoughts of a message, under whatever name they stand."""
    given = next((str(message[key]) for key in REASONING if message.get(key)), "")
    return given.strip() or apart(str(message.get("content") or ""))[0]


def read_messages(value: Any, column: str) -> tuple[tuple[Message, ...], tuple[int, ...]]:
    """The messages of a conversation, and the places of the assistant's that are not to be learned.

    Raises RowFault naming the message and the key that cannot be taken.
    """
    if not isinstance(value, list) or not value:
        raise RowFault(f"the column {column!r} must hold a list of messages",
                       'write [{"role": "user", "content": …}, …]')
    messages, unlearned = [], []
    for place, item in enumerate(value):
        name = f"{column}[{place}]"
        message = _message(item, name)
        learned = _learned(message, name)
        if message["role"] == "assistant" and not learned:
            unlearned.append(place)
        messages.append(message)
    return tuple(messages), tuple(unlearned)


def learned_weight(value: Any, name: str) -> bool:
    """Whether a turn of this weight is learned; RowFault for another weight than 0 and 1."""
    if not isinstance(value, (bool, int, float)) or value not in (0, 1):
        raise RowFault(f"{name} is {value!r}: a turn is learned (1) or read alone (0)", "write 0 or 1")
    return bool(value)


def column_weight(value: Any, name: str) -> bool:
    """`learned_weight` of a column, which tables hold as text."""
    return learned_weight(_ZERO_OR_ONE.get(value.strip().lower(), value) if isinstance(value, str) else value, name)


def _learned(message: Message, name: str) -> bool:
    """Take a message's weight out of it."""
    given = [learned_weight(message.pop(key), f"{name}.{key}") for key in ("weight", "train") if key in message]
    if any(given) and message["role"] != "assistant":
        raise RowFault(f"{name} is of {message['role']!r} and is to be learned: only the assistant's messages are",
                       "write the weight at the assistant's messages alone")
    return all(given)


def _message(item: Any, name: str) -> Message:
    if not isinstance(item, dict):
        raise RowFault(f"{name} is {type(item).__name__}, not an object", 'write {"role": "user", "content": "…"}')
    message = {key: value for key, value in item.items() if value is not None}
    if "from" in message and "value" in message and "role" not in message:
        message = {"role": message.pop("from"), "content": message.pop("value"), **message}
    given = message.get("role")
    role = OTHER_ROLES.get(str(given), given)
    if role not in ROLES:
        raise RowFault(f"{name}.role is {role!r}", f"write one of: {', '.join(ROLES)}")
    message["role"] = role
    if given == "function_call":  # ShareGPT: the calls are the message's text
        message["tool_calls"] = [{"type": "function", "function": call} for call in _listed(message["content"], name)]
        message["content"] = ""
    if "function_call" in message:  # OpenAI's older form of one call
        if message.get("tool_calls"):
            raise RowFault(f"{name} has both function_call and tool_calls", "keep tool_calls")
        message["tool_calls"] = [{"type": "function", "function": message.pop("function_call")}]
    if message.get("tool_calls") is not None:
        message["tool_calls"] = _tool_calls(message["tool_calls"], name)
        if not message["tool_calls"]:
            del message["tool_calls"]
    if message.get("tool_calls") and role != "assistant":
        raise RowFault(f"{name} is of {role!r} and calls tools", "only the assistant's messages call tools")
    message["content"] = _content(message, name)
    _check_reasoning(message, name)
    return message


def _check_reasoning(message: Message, name: str) -> None:
    """RowFault for thoughts that a template would not be given as they stand."""
    given = {key: message[key] for key in REASONING if message.get(key) not in (None, "")}
    for key, value in given.items():
        if not isinstance(value, str):
            raise RowFault(f"{name}.{key} is {type(value).__name__}, not text", "write the reasoning as one text")
        if message["role"] != "assistant":
            raise RowFault(f"{name}.{key}: a message of {message['role']!r} has no reasoning",
                           "write it at the assistant's messages alone")
    inside = {"content (between <think> and </think>)": thoughts} if given and (
        thoughts := apart(message["content"])[0]) else {}
    if len({value.strip() for value in (*given.values(), *inside.values())}) > 1 or inside:
        raise RowFault(f"{name} has its reasoning twice: in {' and in '.join((*given, *inside))}", "keep one of them")


def _content(message: Message, name: str) -> str:
    """The content as one text; parts of text are joined by line ends."""
    content = message.get("content", "" if message.get("tool_calls") else None)
    if isinstance(content, list) and all(isinstance(part, dict) for part in content):
        for place, part in enumerate(content):
            if part.get("type") not in TEXT_PARTS or not isinstance(part.get("text"), str):
                raise RowFault(f"{name}.content[{place}] is a part of the type {part.get('type')!r}; models here read "
                               "text only", "keep the parts of text")
        content = "\n".join(part["text"] for part in content)
    if content is None:
        given = [key for key in message if key not in ("role", "content")]
        raise RowFault(f"{name} has no content" + (f": it has {', '.join(given)}" if given else ""),
                       'write {"role": "user", "content": "…"}')
    if not isinstance(content, str):
        raise RowFault(f"{name}.content is {type(content).__name__}, not text", "write the content as one text")
    if not content.strip() and not message.get("tool_calls") and message["role"] != "tool":
        raise RowFault(f"{name}.content is empty", "fill it or remove the message")
    return content


def _listed(content: Any, name: str) -> list[Any]:
    value = parse_inside(content, f"{name}.content") if isinstance(content, str) else content
    return value if isinstance(value, list) else [value]


def _tool_calls(calls: Any, name: str) -> list[dict[str, Any]]:
    """Tool calls with arguments as objects: chat templates write them as JSON, and text would be quoted twice."""
    checked = []
    calls = parse_inside(calls, f"{name}.tool_calls") if isinstance(calls, str) else calls
    for call in calls if isinstance(calls, list) else [None]:
        call = call if isinstance(call, dict) else {}
        if "function" not in call and "name" in call and "arguments" in call:
            call = {"type": "function", "function": {"name": call["name"], "arguments": call["arguments"]},
                    **{key: value for key, value in call.items() if key not in ("name", "arguments", "type")}}
        function = call.get("function")
        if not isinstance(function, dict) or not isinstance(function.get("name"), str):
            raise RowFault(f"{name}.tool_calls must be a list of calls with a function name",
                           'write [{"type": "function", "function": {"name": …, "arguments": {…}}}]')
        odd = next((key for table, known in ((call, _CALL_KEYS), (function, _FUNCTION_KEYS)) for key in table
                    if key not in known and table[key] is not None), None)
        if odd is not None or call.get("type", "function") != "function":
            what = repr(odd) if odd is not None else f"the type {call['type']!r}"
            raise RowFault(f"{name}.tool_calls: {what} of the call of {function['name']!r} is not read",
                           'write [{"type": "function", "function": {"name": …, "arguments": {…}}}]')
        arguments = function.get("arguments")
        if arguments is None or arguments == "":  # how a call without any is written
            arguments = {}
        if isinstance(arguments, str):
            arguments = parse_inside(arguments, f"{name}.tool_calls: the arguments of {function['name']!r}")
        if not isinstance(arguments, dict):
            raise RowFault(f"{name}.tool_calls: the arguments of {function['name']!r} are no object",
                           'write "arguments": {"name": value, …}')
        checked.append({**call, "function": {**function, "arguments": arguments}})
    return checked


def read_tools(value: Any, column: str) -> tuple[dict[str, Any], ...]:
    """The tools that `column` holds as a list or as JSON; RowFault where it does not."""
    if value is None or value == "":
        return ()
    value = parse_inside(value, f"the column {column!r}") if isinstance(value, str) else value
    if not isinstance(value, list) or not all(isinstance(tool, dict) for tool in value):
        raise RowFault(f"the column {column!r} must hold a list of tools", "write each tool as a JSON schema object")
    return tuple(_tool(tool, f"{column}[{place}]") for place, tool in enumerate(value))


def _tool(tool: dict[str, Any], name: str) -> dict[str, Any]:
    """A tool as chat templates take it: OpenAI's two forms and the function alone are read."""
    if "function" not in tool:
        tool = {"type": tool.get("type", "function"),
                "function": {key: item for key, item in tool.items() if key != "type"}}
    function = tool["function"]
    if not isinstance(function, dict) or not isinstance(function.get("name"), str) or \
            tool.get("type", "function") != "function":
        raise RowFault(f"{name} is no function with a name", _TOOL)
    odd = next((key for key in _OTHER_PARAMETERS if function.get(key) is not None), None)
    if odd is not None:
        raise RowFault(f"{name}: {odd!r} of {function['name']!r} is not read", _TOOL)
    return tool
