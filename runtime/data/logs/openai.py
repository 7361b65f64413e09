"""Requests with their responses: {"request": …, "response": …} a record, as programs and proxies write them down.

OpenAI documents no file of this kind; the two bodies are those of its API reference (/v1/chat/completions,
/v1/responses). Either may stand below `body`, beside its headers and its `status_code`, and may be text that is JSON.
The request's own keys may also stand beside `response`. A response alone is of this kind, too: it has no question.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..calls.exchange import Exchange, Place, failed, number, table, unpacked

_REQUEST, _RESPONSE = ("request", "request_body"), ("response", "response_body")
_ASKED = {"messages", "input", "prompt"}
_ANSWERED = {"choices", "output"}
_STATUS = ("status_code", "status")


def matches(record: Mapping[str, Any]) -> bool:
    """A request, a response, or both."""
    return bool(record.keys() & {*_REQUEST, *_RESPONSE}
                or ("model" in record and record.keys() & {*_ASKED, *_ANSWERED}))


def exchange(place: Place, record: Mapping[str, Any]) -> Exchange:
    """The two bodies, and whether the call failed."""
    asked = table(_first(record, _REQUEST))
    request = _body(asked) if asked else record if record.keys() & _ASKED else {}
    outer = unpacked(_first(record, _RESPONSE))
    response = record if outer is None and record.keys() & _ANSWERED else _body(outer)
    codes = [source.get(name) for source in (record, outer) if isinstance(source, Mapping) for name in _STATUS]
    status = next((code for code in codes if isinstance(code, int)), 200)
    failure = failed(f"HTTP {status}") if status >= 400 else ""
    if not failure and record.get("error"):
        failure = failed(table(record["error"]).get("code"))
    return Exchange(place, request, response, failure, table(record.get("usage")), number(record.get("cost")))


def _first(record: Mapping[str, Any], names: tuple[str, ...]) -> Any:
    return next((record[name] for name in names if record.get(name) is not None), None)


def _body(value: Any) -> Any:
    """What was sent, without what was sent along with it."""
    return unpacked(value["body"]) if isinstance(value, Mapping) and "body" in value else value
