"""Values as C++ source."""

from __future__ import annotations

from collections.abc import Iterable

_PIECE = 100
"""Characters of source to a line, or little more."""


def text(value: str) -> str:
    """A string literal; what is not plain ASCII is written as octal bytes, which end after three digits."""
    escaped = {ord('"'): '\\"', ord("\\"): "\\\\", ord("?"): "\\?", ord("\n"): "\\n"}
    return '"' + "".join(escaped.get(byte) or (chr(byte) if 0x20 <= byte < 0x7F else f"\\{byte:03o}")
                         for byte in value.encode()) + '"'


def long_text(value: str) -> str:
    """A string literal in pieces, one a line: compilers limit the length of one."""
    pieces = [value[start:start + _PIECE] for start in range(0, len(value), _PIECE)] or [""]
    return "\n    ".join(text(piece) for piece in pieces)


def array(type: str, name: str, items: Iterable[str]) -> str:
    """A constant array, filled line by line; C++ has no empty arrays, so `items` holds one or more."""
    lines, line = [], "   "
    for item in items:
        if len(line) > _PIECE:
            lines.append(line)
            line = "   "
        line += f" {item},"
    return "\n".join([f"static const {type} {name} = {{", *lines, line, "};"])
