"""LiteLLM's StandardLoggingPayload, which its callbacks write (S3, GCS, files and the like).

Written from docs.litellm.ai/docs/proxy/logging_spec: `call_type`, `status` (success, failure), `messages`, `response`,
`model_parameters` (tools, response_format and the rest of the request), `prompt_tokens`, `completion_tokens`,
`response_cost` in US dollars, `error_information` {error_code, error_class}. It may stand below
`standard_logging_object`, as callbacks are given it. Where message logging is off, texts are `redacted-by-litellm`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..calls.exchange import Exchange, Place, failed, number, table, unpacked

_WRAPPED = "standard_logging_object"
_REDACTED = "redacted-by-litellm"
CHATS = ("completion", "acompletion", "responses", "aresponses")


def matches(record: Mapping[str, Any]) -> bool:
    """The payload, or a callback's arguments with it."""
    return _WRAPPED in record or {"call_type", "model_parameters"} <= record.keys()


def exchange(place: Place, record: Mapping[str, Any]) -> Exchange:
    """The request is put together from its messages and parameters. Unusable for redacted texts and for calls that are
    no chats, such as embeddings."""
    record = table(record.get(_WRAPPED) or record)
    asked, response = unpacked(record.get("messages")), unpacked(record.get("response"))
    usage = {name: record.get(name) for name in ("prompt_tokens", "completion_tokens")}
    cost = number(record.get("response_cost"))
    if str(record.get("call_type") or CHATS[0]) not in CHATS:
        failure = "no chat: a call of another type"
    elif record.get("status", "success") != "success":
        error = table(record.get("error_information"))
        failure = failed(error.get("error_code") or error.get("error_class"))
    else:
        failure = "texts redacted by LiteLLM" if _REDACTED in str([asked, response]) else ""
    asks = "input" if str(record.get("call_type")) in CHATS[2:] else "messages"
    return Exchange(place, {**table(record.get("model_parameters")), asks: asked}, response, failure, usage, cost)
