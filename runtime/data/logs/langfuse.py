"""Langfuse's observations, exported from the table (JSON, CSV) or to blob storage (JSON lines, JSON, CSV, Parquet).

Written from langfuse.com/docs/api-and-data-platform/features/blob-storage-export-fields: `type`, `input`, `output`
(text, or text that is JSON), `model_parameters`, `metadata`, `usage_details` and `cost_details` (input, output and
other keys), `total_cost` in US dollars, `level` (DEBUG, DEFAULT, WARNING, ERROR), `tool_definitions`; the table's
export writes the same names in camel case. What stands in `input` and `output` is what Langfuse's own wrapper of
OpenAI's client puts there: messages, or an object of messages and tools, or the Responses API's `input` with
`instructions`; the answer's message or items. It keeps the `response_format` in `metadata`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..calls.exchange import Exchange, Place, failed, number, table, unpacked
from ..messages import compact_json

TYPES = ("SPAN", "GENERATION", "EVENT", "AGENT", "TOOL", "CHAIN", "RETRIEVER", "EVALUATOR", "EMBEDDING", "GUARDRAIL")
_ITEMS = ("message", "function_call", "reasoning")
_SPEAKERS = ("assistant", "ai", "model")
_CALLS = {"tool_calls", "function_call"}


def matches(record: Mapping[str, Any]) -> bool:
    """An observation of a trace."""
    return record.get("type") in TYPES and ("trace_id" in record or "traceId" in record)


def exchange(place: Place, record: Mapping[str, Any]) -> Exchange:
    """A generation; observations of other types are no calls of a model."""
    record = {_snake(name): value for name, value in record.items()}
    details = table(record.get("usage_details"))
    usage = {f"{side}_tokens": sum(int(number(count) or 0) for name, count in details.items() if name.startswith(side))
             for side in ("input", "output")}
    cost = number(record.get("total_cost"))
    failure = ""
    if record["type"] != "GENERATION":
        failure = f"no call of a model: an observation of the type {record['type']}"
    elif record.get("level") == "ERROR":
        failure = failed()
    parameters, metadata = table(record.get("model_parameters")), table(record.get("metadata"))
    form = metadata.get("response_format") or parameters.get("response_format")
    request = {**_request(unpacked(record.get("input"))), **({"response_format": form} if form else {})}
    if not request.get("tools") and not request.get("functions"):
        request["tools"] = [{"name": name, **table(told)}
                            for name, told in table(record.get("tool_definitions")).items()]
    return Exchange(place, request, _response(record.get("output")), failure, usage, cost)


def _request(asked: Any) -> dict[str, Any]:
    if isinstance(asked, Mapping):
        return dict(asked)
    if isinstance(asked, list):
        items = any(table(item).get("type") in _ITEMS and "role" not in table(item) for item in asked)
        return {"input" if items else "messages": asked}
    return {"messages": [{"role": "user", "content": asked}]} if asked else {}


def _response(output: Any) -> Any:
    """The output as a response: what is no message and no item is a structured answer."""
    said = unpacked(output)
    if not said:
        return None
    if isinstance(said, Mapping) and said.get("object") in ("chat.completion", "response"):
        return said
    found = said if isinstance(said, list) else [said]
    if all(isinstance(one, Mapping) and one.get("type") in _ITEMS for one in found):
        return {"output": found}
    if all(isinstance(one, Mapping) and (one.get("role") in _SPEAKERS or one.keys() & _CALLS) for one in found):
        return {"choices": [{"message": one} for one in found]}
    words = output if isinstance(output, str) else compact_json(said)
    return {"choices": [{"message": {"content": words}}]}


def _snake(name: str) -> str:
    return "".join(f"_{letter.lower()}" if letter.isupper() else letter for letter in name)
