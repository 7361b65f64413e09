"""What was asked and what was answered, as messages of a row: nothing but what the model read and wrote is taken along.

Written from the types of OpenAI's Python client, version 3.52 (types/chat and types/responses).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ...text.chat_template import REASONING
from ..messages import TEXT_PARTS, Message
from .exchange import NO_ANSWER, Unusable, failed, table, unpacked

CUT_OFF = "answer cut off by a limit of tokens"
FILTERED = "stopped by a content filter"
REFUSED = "the model refused to answer"
EMPTY = "empty answer"
STREAM = "a piece of a stream, not the whole answer"
SEVERAL = "several choices: which one was used is not known"
NOT_WHOLE = "the question is not whole in the log ({})"
NO_QUESTION = "no messages in what was asked"
HOSTED = "a tool that the provider runs"
OTHER = "no chat: a text completion, embedding or the like"
_ENDS = {"length": CUT_OFF, "model_length": CUT_OFF, "max_output_tokens": CUT_OFF, "content_filter": FILTERED}
"""Why an answer ended, where it is not to be learned from."""
_GOOD_ENDS = (None, "stop", "eos", "tool_calls", "function_call")
_PARTS = {"image_url": "an image", "input_image": "an image", "image": "an image", "input_audio": "audio",
          "audio": "audio", "file": "a file", "input_file": "a file"}
_ELSEWHERE: Mapping[str, Any] = {"previous_response_id": str, "conversation": (str, Mapping), "prompt": Mapping}
"""What a request to the Responses API names instead of sending it along."""


@dataclass(frozen=True)
class Question:
    """What the model was given."""

    messages: tuple[Message, ...]
    tools: tuple[dict[str, Any], ...]
    schema: Mapping[str, Any] | None
    """The JSON schema that the answer had to satisfy."""
    names: int
    """Names of participants, which are not taken along."""


def question(request: Mapping[str, Any]) -> Question:
    """What a request asks; Unusable where it holds what no row can."""
    given = request.get("messages")
    if given is None:
        named = next((name for name, form in _ELSEWHERE.items() if isinstance(request.get(name), form)), "")
        if named:
            raise Unusable(NOT_WHOLE.format(named))
        if "input" not in request:
            raise Unusable(OTHER if request.keys() & {"prompt", "documents", "query"} else NO_QUESTION)
        given, instructions = request["input"], request.get("instructions")
        given = [{"role": "user", "content": given}] if isinstance(given, str) else given
        given = [{"role": "system", "content": instructions}, *_list(given)] if instructions else given
    messages = _turns(_list(given))
    tools = tuple(_tool(tool) for tool in (*_list(request.get("tools") or []), *_list(request.get("functions") or [])))
    people = [item for item in map(table, _list(given)) if item.get("role") not in (None, "tool", "function")]
    form = request.get("response_format") or table(request.get("text")).get("format")
    return Question(messages, tools, schema(form), sum(bool(item.get("name")) for item in people))


def answer(response: Any) -> Message:
    """The assistant's message of a response; Unusable where it is none to learn from."""
    response = unpacked(response)
    if isinstance(response, str) and response.lstrip().startswith(("data:", "event:")) or (
            isinstance(response, list) and response):
        raise Unusable(STREAM)
    if not isinstance(response, Mapping):
        raise Unusable(NO_ANSWER)
    if response.get("error"):
        raise Unusable(failed(table(response["error"]).get("code")))
    if str(response.get("object", "")).endswith(".chunk") or str(response.get("type", "")).startswith("response."):
        raise Unusable(STREAM)
    if "choices" in response:
        found = _of_chat(_list(response["choices"]))
    elif "output" in response:
        found = _of_response(response)
    else:
        raise Unusable(OTHER if response.get("object") in ("list", "text_completion") else NO_ANSWER)
    if not found["content"].strip() and not found.get("tool_calls"):
        raise Unusable(EMPTY)
    return found


def schema(form: Any) -> Mapping[str, Any] | None:
    """The schema of a `response_format`, of `text.format`, or given alone; None for another form."""
    form = table(form)
    found = table(form.get("json_schema") or form).get("schema")
    if isinstance(found, Mapping):
        return found
    return form if form.get("properties") else None


def _of_chat(choices: Sequence[Any]) -> Message:
    if len(choices) != 1:
        raise Unusable(SEVERAL if choices else NO_ANSWER)
    choice = table(choices[0])
    if "message" not in choice:
        raise Unusable(STREAM if "delta" in choice else OTHER)
    _check_end(choice.get("finish_reason"))
    given = table(choice["message"])
    if given.get("refusal"):
        raise Unusable(REFUSED)
    if given.get("audio"):
        raise Unusable("audio in a message")
    return message({**given, "role": "assistant"})


def _of_response(response: Mapping[str, Any]) -> Message:
    status = response.get("status", "completed")
    if status == "incomplete":
        _check_end(table(response.get("incomplete_details")).get("reason") or "incomplete")
    elif status != "completed":
        raise Unusable(failed() if status == "failed" else "not finished when it was logged")
    found = _turns(_list(response["output"]))
    if len(found) > 1:
        raise Unusable("several messages in one answer")
    return found[0] if found else {"role": "assistant", "content": ""}


def _check_end(reason: Any) -> None:
    if str(reason) in _ENDS:
        raise Unusable(_ENDS[str(reason)])
    if reason not in _GOOD_ENDS:
        raise Unusable("an answer that ended for another reason than its own end")


def _turns(items: Sequence[Any]) -> tuple[Message, ...]:
    """Messages, or items of the Responses API: thoughts, words and calls that follow each other are one message."""
    found: list[Message] = []
    for item in items:
        one = _item(item)
        last = found[-1] if found else {}
        item_of_turn = table(item).get("type") in ("function_call", "message", "reasoning")
        joins = item_of_turn and one["role"] == "assistant" == last.get("role") and (
            not one["content"] or not (last["content"] or last.get("tool_calls")))
        if joins:
            calls = [*last.get("tool_calls", ()), *one.get("tool_calls", ())]
            found[-1] = {**last, **one, "content": last["content"] + one["content"],
                         **({"tool_calls": calls} if calls else {})}
        else:
            found.append(one)
    return tuple(found)


def _item(item: Any) -> Message:
    item = table(item)
    kind = item.get("type") or "message"
    if kind == "message":
        return message(item)
    if kind == "function_call":
        call = {"id": item.get("call_id"), "type": "function", "function": item}
        return {"role": "assistant", "content": "", "tool_calls": [_call(call)]}
    if kind == "function_call_output":
        return message({"role": "tool", "tool_call_id": item.get("call_id"), "content": item.get("output")})
    if kind == "reasoning":  # its summary is written for people: it is not what the model thought
        texts = [table(part).get("text") for part in _list(item.get("content") or [])]
        thoughts = "\n".join(text for text in texts if isinstance(text, str))
        return {"role": "assistant", "content": "", **({"reasoning_content": thoughts} if thoughts else {})}
    if kind == "item_reference":
        raise Unusable(NOT_WHOLE.format(kind))
    raise Unusable(HOSTED if str(kind).endswith(("_call", "_call_output")) else "an item that is no message")


def message(given: Mapping[str, Any]) -> Message:
    """A message with what a chat template reads, and without ids, names of people and what clients wrote beside it."""
    role = given.get("role")
    found: Message = {"role": role, "content": _words(given.get("content"))}
    for name in ("tool_call_id", "name") if role in ("tool", "function") else ():
        if given.get(name):
            found[name] = given[name]
    thoughts = next((given[name] for name in REASONING if isinstance(given.get(name), str) and given[name]), "")
    if thoughts:
        found["reasoning_content"] = thoughts
    if calls := [*_list(given.get("tool_calls") or []), *filter(None, [given.get("function_call")])]:
        found["tool_calls"] = [_call(call) for call in calls]
    return found


def _words(content: Any) -> str:
    """Content as one text; its parts are joined as rows' and requests' are."""
    if content is None:
        return ""
    if isinstance(content, str):
        return content
    parts = [part for part in map(table, _list(content)) if part.get("type") != "thinking"]  # Mistral's thoughts
    for part in parts:
        if part.get("type") == "refusal":
            raise Unusable(REFUSED)
        if part.get("type") not in TEXT_PARTS or not isinstance(part.get("text"), str):
            raise Unusable(f"{_PARTS.get(str(part.get('type')), 'a part that is no text')} in a message")
    return "\n".join(part["text"] for part in parts)


def _call(call: Any) -> dict[str, Any]:
    call = table(call)
    if (call.get("type") or "function") != "function":
        raise Unusable("a call that is no call of a function")
    function = table(call.get("function") or call)
    made: dict[str, Any] = {"type": "function",
                            "function": {name: function.get(name) for name in ("name", "arguments")}}
    return {"id": call["id"], **made} if isinstance(call.get("id"), str) else made


def _tool(tool: Any) -> dict[str, Any]:
    tool = table(tool)
    if (tool.get("type") or "function") != "function":
        raise Unusable(HOSTED if tool["type"] != "custom" else "a tool that is no function")
    function = table(tool.get("function") or tool)
    return {"type": "function", "function": {name: function[name] for name in ("name", "description", "parameters")
                                             if function.get(name) is not None}}


def _list(value: Any) -> Sequence[Any]:
    value = unpacked(value)
    if not isinstance(value, (list, tuple)):
        raise Unusable("a record of another form than its API has")
    return value


def spoken(messages: Iterable[Message]) -> Iterable[str]:
    """All texts of messages, the arguments of calls included."""
    for one in messages:
        yield str(one["content"])
        yield from (str(call["function"].get("arguments")) for call in one.get("tool_calls", ()))
