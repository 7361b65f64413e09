"""What the teacher says, as completions and as streams, and answers that are of no use or look unusual."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Mapping
from typing import Any

from .refusals import Asked, Group

Completion = dict[str, Any]
PIECE = 12  # characters in a chunk of a stream


def tokens(text: str) -> int:
    """Tokens that are billed for a text: one for every four bytes that it begins."""
    return math.ceil(len(text.encode()) / 4)


def prompt_tokens(asked: Asked) -> int:
    """Tokens that are billed for a request's messages."""
    return tokens(json.dumps(asked.body.get("messages", []), ensure_ascii=False))


def completion(asked: Asked) -> Completion:
    """A chat completion as OpenAI returns it."""
    wanted = asked.body.get("logprobs")
    choices = [{"index": index, "message": {"role": "assistant", "content": text, "refusal": None},
                "logprobs": logprobs(text, asked.body.get("top_logprobs") or 0) if wanted else None,
                "finish_reason": "stop"}
               for index, text in enumerate(asked.answers)]
    prompt, answer = prompt_tokens(asked), sum(map(tokens, asked.answers))
    return {"id": f"chatcmpl-{asked.content[:20]}{asked.attempt}", "object": "chat.completion", "created": 1796000000,
            "model": asked.body.get("model", "big"), "system_fingerprint": "fp_44709d6fcb", "service_tier": "default",
            "choices": choices, "usage": {"prompt_tokens": prompt, "completion_tokens": answer,
                                          "total_tokens": prompt + answer}}


def logprobs(text: str, top: int) -> dict[str, Any]:
    """Log-probabilities of the tokens of a text, with `top` alternatives at each."""
    def one(token: str, value: float) -> dict[str, Any]:
        return {"token": token, "logprob": value, "bytes": list(token.encode())}

    others = [one(f" {n}", -5.0 - n) for n in range(1, top)]
    texts = [text[start:start + 4] for start in range(0, len(text), 4)]
    return {"refusal": None, "content": [
        {**one(token, -0.01), "top_logprobs": [one(token, -0.01), *others][:top]} for token in texts]}


def events(asked: Asked, whole: Completion) -> list[bytes]:
    """The same completion as server-sent events."""
    head = {"object": "chat.completion.chunk", "created": whole["created"], "model": whole["model"],
            **({"id": whole["id"]} if "id" in whole else {})}
    usage = (asked.body.get("stream_options") or {}).get("include_usage")

    def event(choices: list[dict[str, Any]], **more: Any) -> bytes:
        return b"data: " + dumped({**head, "choices": choices, **more}) + b"\n\n"

    found = []
    for choice in whole["choices"]:
        message, index = choice["message"], choice["index"]
        found.append(event([{"index": index, "delta": {"role": "assistant", "content": ""}, "finish_reason": None}]))
        for field in ("content", "refusal"):
            text = message.get(field) or ""
            found += [event([{"index": index, "delta": {field: text[start:start + PIECE]}, "finish_reason": None,
                              "logprobs": choice["logprobs"] if not start else None}])
                      for start in range(0, len(text), PIECE)]
        if calls := message.get("tool_calls"):
            delta = {"tool_calls": [{"index": at, **call} for at, call in enumerate(calls)]}
            found.append(event([{"index": index, "delta": delta, "finish_reason": None}]))
        found.append(event([{"index": index, "delta": {}, "finish_reason": choice["finish_reason"]}]))
    if usage and "usage" in whole:
        found.append(event([], usage=whole["usage"]))
    return [*found, b"data: [DONE]\n\n"]


def dumped(value: Any) -> bytes:
    """JSON in UTF-8, characters as they are."""
    return json.dumps(value, ensure_ascii=False).encode()


def parts_of(asked: Asked, whole: Completion) -> list[bytes]:
    """A body in the pieces that it is written in: events, or the two halves of one JSON object."""
    if asked.stream:
        return events(asked, whole)
    data = dumped(whole)
    return [data[:len(data) // 2], data[len(data) // 2:]]


# Another text in a whole answer.
def fenced(text: str) -> str:
    """JSON in a Markdown fence."""
    return f"```json\n{text}\n```"


TEXTS: dict[str, tuple[Group, Callable[[str], str]]] = {
    "fenced": (Group.ODD, fenced),
    "json_cut": (Group.SPOILT, lambda text: text[:-max(len(text) // 2, 1)]),
    "schema_broken": (Group.SPOILT, lambda text: '{"unexpected": [null]}'),
    "blank": (Group.SPOILT, lambda text: " \n"),
}


# Another object in a whole answer.
def first(**fields: Any) -> Callable[[Completion], Completion]:
    """Changes every choice: `finish_reason` in it, the rest in its message."""
    def change(whole: Completion) -> Completion:
        reason = fields.get("finish_reason", "stop")
        message = {name: value for name, value in fields.items() if name != "finish_reason"}
        choices = [{**choice, "finish_reason": reason, "message": {**choice["message"], **message}}
                   for choice in whole["choices"]]
        return {**whole, "choices": choices}
    return change


def length(whole: Completion) -> Completion:
    """Cut at `max_tokens`."""
    choices = [{**choice, "finish_reason": "length", "message": {
        **choice["message"], "content": choice["message"]["content"][:-max(len(choice["message"]["content"]) // 2, 1)]}}
        for choice in whole["choices"]]
    return {**whole, "choices": choices}


CALL = {"id": "call_abc123", "type": "function",
        "function": {"name": "lookup", "arguments": "{\"query\": \"weather\"}"}}
WRONG = {"prompt_tokens": 0, "completion_tokens": -7, "total_tokens": "many"}
OBJECTS: dict[str, tuple[Group, Callable[[Completion], Completion]]] = {
    "empty_choices": (Group.SPOILT, lambda whole: {**whole, "choices": []}),
    "null_content": (Group.SPOILT, first(content=None)),
    "length": (Group.SPOILT, length),
    "length_reasoned": (Group.SPOILT, first(content="", finish_reason="length")),
    "content_filter": (Group.SPOILT, first(content=None, finish_reason="content_filter")),
    "overrun": (Group.SPOILT, first(content="", finish_reason="insufficient_system_resource")),  # DeepSeek's
    "model_length": (Group.SPOILT, first(finish_reason="model_length")),  # Mistral's; the text may look whole
    "refusal": (Group.SPOILT, first(content=None, refusal="I'm sorry, I cannot assist with that request.")),
    "tool_call": (Group.SPOILT, first(content=None, tool_calls=[CALL], finish_reason="tool_calls")),
    "eos": (Group.ODD, first(finish_reason="eos")),  # Together's end of its own
    "usage_missing": (Group.ODD, lambda whole: {name: value for name, value in whole.items() if name != "usage"}),
    "usage_null": (Group.ODD, lambda whole: {**whole, "usage": None}),
    "usage_wrong": (Group.ODD, lambda whole: {**whole, "usage": WRONG}),
    "same_id": (Group.ODD, lambda whole: {**whole, "id": "chatcmpl-123"}),
    "no_id": (Group.ODD, lambda whole: {name: value for name, value in whole.items() if name != "id"}),
    "logprobs_ignored": (Group.CAPABILITY, lambda whole: {
        **whole, "choices": [{**choice, "logprobs": None} for choice in whole["choices"]]}),
}


def told(asked: Asked, number: int) -> str:
    """A teacher that repeats the last message, as the schema's smallest instance where one is asked for."""
    content = asked.body["messages"][-1].get("content") or ""
    text = content if isinstance(content, str) else "".join(part.get("text", "") for part in content)
    form = asked.body.get("response_format") or {}
    schema = (form.get("json_schema") or {}).get("schema")
    if schema is not None:
        return json.dumps(instance(schema, text), ensure_ascii=False)
    return json.dumps({"answer": text}, ensure_ascii=False) if form.get("type") == "json_object" else f"answer: {text}"


def instance(schema: Mapping[str, Any], text: str) -> Any:
    """Something that a JSON schema allows, drawn by a text."""
    if "const" in schema:
        return schema["const"]
    if "enum" in schema:
        return schema["enum"][digest(text) % len(schema["enum"])]
    if options := schema.get("anyOf") or schema.get("oneOf"):
        return instance(options[digest(text) % len(options)], text)
    kind = schema.get("type")
    match kind[0] if isinstance(kind, list) else kind:
        case "object":
            return {name: instance(value, text + name) for name, value in schema.get("properties", {}).items()}
        case "array":
            return [instance(schema.get("items", {}), text)]
        case "integer" | "number":
            return digest(text) % 10
        case "boolean":
            return bool(digest(text) % 2)
        case "null":
            return None
    return text[:40]


def digest(*parts: object) -> int:
    """64 bits that the same parts give everywhere."""
    return int.from_bytes(hashlib.sha256("\0".join(map(str, parts)).encode()).digest()[:8], "big")
