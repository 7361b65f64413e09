"""Tables and dataclasses as TOML text: Python's own library only reads it."""

from __future__ import annotations

from dataclasses import fields, is_dataclass
from typing import Any


def to_toml(value: Any) -> str:
    """A run file (or any dataclass of tables) as TOML that `runfile.read` reads back to the same value."""
    table = _plain(value)
    lines = [f"{key} = {inline(item)}" for key, item in table.items() if not _is_table(item)]
    for key, item in table.items():
        if isinstance(item, dict):
            lines += ["", f"[{key}]"] + [f"{k} = {inline(v)}" for k, v in item.items()]
        elif _is_table(item):
            for row in item:
                lines += ["", f"[[{key}]]"] + [f"{k} = {inline(v)}" for k, v in row.items()]
    return "\n".join(lines).strip() + "\n"


def _plain(value: Any) -> Any:
    if is_dataclass(value):
        held = {item.name: _plain(getattr(value, item.name)) for item in fields(value)}
        return {name: item for name, item in held.items() if item is not None}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return value


def _is_table(item: Any) -> bool:
    return isinstance(item, dict) or (isinstance(item, list) and bool(item) and isinstance(item[0], dict))


def inline(value: Any) -> str:
    """A value as it stands behind `key =`."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return _quote(value)
    if isinstance(value, dict):
        return "{" + ", ".join(f"{_quote(k)} = {inline(v)}" for k, v in value.items()) + "}"
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(inline(item) for item in value) + "]"
    return repr(value)


def _quote(text: str) -> str:
    escapes = {'"': '\\"', "\\": "\\\\", "\n": "\\n", "\t": "\\t", "\r": "\\r", "\b": "\\b", "\f": "\\f"}
    return '"' + "".join(
        escapes.get(c) or (f"\\u{ord(c):04X}" if ord(c) < 32 or ord(c) == 127 else c) for c in text) + '"'
