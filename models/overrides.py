"""Keys of a run file that are set from outside: `table.key=value`, with a TOML value or plain text."""

from __future__ import annotations

import tomllib
from typing import Any

from .errors import UsageError


def apply(table: dict[str, Any], override: str) -> None:
    """Set the key that `override` names; UsageError for what is no `table.key=value`, and for a key of no table."""
    key, separator, text = override.partition("=")
    if not separator:
        raise UsageError(f"--set {override!r}: no '=' in it", "write --set table.key=value")
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except (ValueError, RecursionError):
        value = text
    *path, last = key.strip().split(".")
    for part in path:
        table = table.setdefault(part, {})
        if not isinstance(table, dict):
            raise UsageError(f"--set {override!r}: {part} is not a table", "only keys of tables can be set")
    table[last] = value
