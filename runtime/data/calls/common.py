"""What all calls have in common, and what follows for the task: a system prompt, a schema, labels."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..row import Row
from .exchange import Place

SYSTEMS = ("system", "developer")


@dataclass(frozen=True)
class Call:
    """A call that can be learned from."""

    place: Place
    record: dict[str, Any]
    """The row as it is written: messages, and tools where there are any."""
    row: Row
    """The same as our reader reads it."""
    schema: Mapping[str, Any] | None


@dataclass(frozen=True)
class Common:
    """What stands in every call."""

    system: str
    """The one system message, the first of every conversation; empty where there are several, or none."""
    systems: int
    """Different beginnings by system messages, none being one."""
    schema: Mapping[str, Any] | None
    schemas: int
    labels: tuple[str, ...]
    """Where the schema has room for one name alone, out of a list: the names that were answered."""
    unseen: tuple[str, ...]
    """Names of that list that were never answered."""


def common(calls: Sequence[Call]) -> Common:
    """What can be taken out of the rows, since it is the same in each."""
    prompts = {_system(call.row) for call in calls}
    system = next(iter(prompts)) if len(prompts) == 1 else None
    schemas = {json.dumps(call.schema, sort_keys=True) for call in calls}
    schema = calls[0].schema if len(schemas) == 1 and calls else None
    key, names = choice(schema)
    said = {_label(call.row, key) for call in calls}
    labelled = (system is not None and len(said) > 1 and said <= set(names)
                and all(_asks_once(call.row) for call in calls))
    labels = [name for name in names if name in said] if labelled else []
    return Common(system or "", len(prompts), schema, len(schemas), tuple(labels),
                  tuple(name for name in names if name not in said) if labelled else ())


def choice(schema: Mapping[str, Any] | None) -> tuple[str, tuple[str, ...]]:
    """The one property of a schema, and the texts out of which its value is one; ("", ()) for another schema."""
    properties = (schema or {}).get("properties")
    if not isinstance(properties, dict) or len(properties) != 1:
        return "", ()
    key, value = next(iter(properties.items()))
    names = value.get("enum") if isinstance(value, dict) else None
    if not isinstance(names, list) or not all(isinstance(name, str) and name.strip() for name in names):
        return "", ()
    return key, tuple(dict.fromkeys(names))


def rows(calls: Sequence[Call], found: Common, labels: bool) -> list[dict[str, Any]]:
    """The rows to write: text and label, or conversations without what stands in all of them."""
    if labels:
        key = choice(found.schema)[0]
        return [{"text": call.row.question, "label": _label(call.row, key)} for call in calls]
    return [{**call.record, "messages": call.record["messages"][bool(found.system):]} for call in calls]


def _system(row: Row) -> str | None:
    """The system message of a conversation that begins with it and has no other: "" without one; None for others."""
    places = [place for place, message in enumerate(row.messages) if message["role"] in SYSTEMS]
    return "" if not places else str(row.messages[0]["content"]) if places == [0] else None


def _asks_once(row: Row) -> bool:
    spoke = [message["role"] for message in row.messages if message["role"] not in SYSTEMS]
    return not row.tools and spoke == ["user", "assistant"]


def _label(row: Row, key: str) -> str | None:
    """The name that an answer says."""
    try:
        value = json.loads(row.answer)
    except ValueError:
        return None
    said = value.get(key) if isinstance(value, dict) and value.keys() == {key} else None
    return said if isinstance(said, str) else None
