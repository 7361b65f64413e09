"""Records of .json files, which are read whole: an array of objects, alone or below a key, or JSON lines."""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ...models.errors import DataError
from .faults import BadRow, RowFault
from .file_kinds import refuse_other
from .formats import DECODER, Record, decoded, faults, json_object, jsonl_records
from .unpacked import chunks

LIMIT = 1024 * 1024 * 1024
"""Bytes of a file that is held whole, unpacked."""
ROW_KEYS = ("data", "rows", "examples", "instances", "records")
"""Keys below which a file's one object may hold its rows."""
_BLANKS = re.compile(r"[ \t\n\r]*")
_PLACE = "line {0.lineno}, column {0.colno}"
_REMEDY = "correct it there; a file holds one array of objects, or one object a line"
_OPEN = ("{", "[", ",", ":")
"""What the first line of an object ends with that is written over several."""


def read_json(path: Path) -> Iterator[tuple[int, Record]]:
    """Stream (number of the row, record). Raises DataError for a fault of the whole file, with its line and column."""
    content = _whole(path)
    start = content.lstrip()[:1]
    if start not in (b"[", b"{"):
        yield from jsonl_records(path)
        return
    try:
        text = decoded(content, 0)
    except RowFault as fault:
        if start == b"[":
            raise DataError(f"{path}: {fault.reason}", fault.remedy) from None
        yield from jsonl_records(path)  # which names the line
        return
    del content
    found = _array(path, text) if start == b"[" else _object(path, text)
    if found is None:
        yield from jsonl_records(path)
        return
    for number, value in found:
        try:
            yield number, json_object(value)
        except RowFault as fault:
            yield number, BadRow(str(path), number, fault.reason, fault.remedy)


def _whole(path: Path) -> bytes:
    parts, size = [], 0
    for chunk in chunks(path):
        size += len(chunk)
        if size > LIMIT:
            raise DataError(f"{path}: longer than {LIMIT // 2**20} MiB, and an array is held whole",
                            "write one object a line, in a .jsonl file")
        parts.append(chunk)
    content = b"".join(parts).removeprefix(codecs.BOM_UTF8)
    refuse_other(path, content)
    return content


def _array(path: Path, text: str) -> Iterator[tuple[int, Any]]:
    """Row by row, so that a mistake is told with the row it stands in."""
    number, place = 0, _skip(text, _skip(text, 0) + 1)
    while number or text[place:place + 1] != "]":
        number += 1
        try:
            with faults(_REMEDY, _PLACE):
                value, place = DECODER.raw_decode(text, place)
        except RowFault as fault:
            raise DataError(f"{path}: row {number}: {fault.reason}", fault.remedy) from None
        yield number, value
        place = _skip(text, place)
        if text[place:place + 1] == "]":
            break
        if text[place:place + 1] != ",":
            raise _broken(path, text, place, f"row {number} ends, and ',' or ']' was expected")
        place = _skip(text, place + 1)
    place = _skip(text, place + 1)
    if place < len(text):
        raise _broken(path, text, place, "the array has ended before")


def _object(path: Path, text: str) -> Iterator[tuple[int, Any]] | None:
    """The rows of a file that is one object; None for JSON lines."""
    start = _skip(text, 0)
    try:
        with faults(_REMEDY, _PLACE):
            value, end = DECODER.raw_decode(text, start)
    except RowFault as fault:
        if text[start:].partition("\n")[0].rstrip().endswith(_OPEN):
            raise DataError(f"{path}: {fault.reason}", fault.remedy) from None
        return None
    if _skip(text, end) < len(text):
        return None
    rows = next((key for key in ROW_KEYS if isinstance(value.get(key), list)
                 and all(isinstance(row, dict) for row in value[key])), None)
    if rows is None:
        return iter([(1, value)])
    beside = next((key for key, other in value.items() if key != rows and isinstance(other, (list, dict)) and other),
                  None)
    if beside is not None:
        raise DataError(f"{path}: rows below {rows!r}, and {beside!r} beside them, which would be lost",
                        "write the rows alone: an array of objects, or one object a line")
    return iter(list(enumerate(value[rows], 1)))


def _broken(path: Path, text: str, place: int, reason: str) -> DataError:
    return DataError(f"{path}: broken JSON at {_PLACE.format(json.JSONDecodeError(reason, text, place))}: {reason}",
                     _REMEDY)


def _skip(text: str, place: int) -> int:
    found = _BLANKS.match(text, place)
    return found.end() if found else place
