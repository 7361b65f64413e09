"""Files of OpenAI's Batch API: requests {custom_id, method, url, body}, answers {id, custom_id, response: {status_code,
request_id, body}, error}, and files of errors, which look like answers.

Written from the API reference ("The request input object", "The request output object"). Answers come in any order:
they are joined to their requests by `custom_id`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..calls.exchange import Exchange, Place, failed, table


def matches(record: Mapping[str, Any]) -> bool:
    """A line with `custom_id` and one of the two sides."""
    return "custom_id" in record and bool(record.keys() & {"body", "response", "error"})


def exchange(place: Place, record: Mapping[str, Any]) -> Exchange:
    """One side of a call."""
    key = str(record["custom_id"])
    if "body" in record:
        return Exchange(place, table(record["body"]), key=key)
    response, error = table(record.get("response")), table(record.get("error"))
    status = response.get("status_code")
    failure = failed(error.get("code")) if error else ""
    if not failure and isinstance(status, int) and status >= 400:
        failure = failed(f"HTTP {status}")
    return Exchange(place, None, response.get("body") or {}, failure, key=key)
