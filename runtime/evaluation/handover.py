"""What another model is asked in a model's place: the whole request and what the task adds to it, in OpenAI's words."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from ..encoders.classifier import Classifier
from ..generation.generator import Generator
from ..generation.structure import task_schema


def request(model: Generator | Classifier, asked: Mapping[str, Any], system: str = "") -> dict[str, Any]:
    """`asked` (messages, tools, response_format, …) as a model that knows nothing of the task must be asked it: with
    `system`, or else the task's system message or its labels, where the messages have none, with the task's schema
    where nothing else binds the answer, and at temperature 0 where none is given, which is what our own models take.
    """
    found, messages = {"temperature": 0, **asked}, list(asked["messages"])
    schema = None
    if isinstance(model, Classifier):
        labels = ", ".join(model.labels)
        system = system or f"Answer with the one of these labels that fits, and nothing else: {labels}"
    else:
        system, schema = system or model.codec.system, task_schema(model.artifact)
    if system and not any(message.get("role") in ("system", "developer") for message in messages):
        messages.insert(0, {"role": "system", "content": system})
    if schema is not None and not found.keys() & {"response_format", "structured_outputs", "tools"}:
        found["response_format"] = response_format(schema)
    return {**found, "messages": messages}


def sent(messages: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """A row's messages as OpenAI takes them: there the arguments of calls are text, and answers name their call."""
    found: list[dict[str, Any]] = []
    unanswered: list[str] = []
    for message in messages:
        kept = ("role", "content", "name", "tool_call_id")
        told = {name: message[name] for name in kept if message.get(name) is not None}
        if calls := message.get("tool_calls"):
            unanswered = [str(call.get("id") or f"call_{len(found)}_{place}") for place, call in enumerate(calls)]
            told["tool_calls"] = [{"type": "function", "id": id, "function": {
                "name": call["function"]["name"], "arguments": _text(call["function"].get("arguments") or {})}}
                for id, call in zip(unanswered, calls, strict=True)]
        elif told.get("role") == "tool" and unanswered:
            told.setdefault("tool_call_id", unanswered.pop(0))
        found.append(told)
    return found


def response_format(schema: Mapping[str, Any]) -> dict[str, Any]:
    """A JSON schema as OpenAI takes it; strict where it is one that OpenAI can be strict about."""
    strict = {"strict": True} if schema.get("type") == "object" and _closed(schema) else {}
    return {"type": "json_schema", "json_schema": {"name": "answer", "schema": dict(schema), **strict}}


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _closed(schema: Any) -> bool:
    """Whether every object in a schema names all its fields and needs each."""
    if isinstance(schema, list):
        return all(map(_closed, schema))
    if not isinstance(schema, Mapping):
        return True
    fields = schema.get("properties")
    if (schema.get("type") == "object" or isinstance(fields, Mapping)) and not (
            schema.get("additionalProperties") is False and isinstance(fields, Mapping)
            and set(fields) == set(schema.get("required") or ())):
        return False
    return all(map(_closed, schema.values()))
