"""Records of data files: JSON lines, JSON arrays, CSV, TSV and plain text, also packed with gzip or zstd.

Every reader streams `(line, record)`, where a record is a dictionary of columns or the `BadRow` found in its
place. A fault that makes all later rows doubtful (encoding of a CSV file, an open quote) refuses the file.
"""

from __future__ import annotations

import codecs
import csv
import json
import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ...models.errors import DataError
from .faults import BadRow, RowFault, check_strings, twice
from .file_kinds import refuse_other
from .unpacked import chunks


class Described(dict[str, Any]):
    """A record of a file that says which of its columns hold names of classes: `classes`."""

    classes: frozenset[str] = frozenset()


Record = dict[str, Any] | BadRow
LINE_LIMIT = 8 * 1024 * 1024
"""Bytes of one line or cell; a longer one is a file without line ends, a quote that is never closed, or a bomb."""
SUFFIXES = (".jsonl", ".ndjson", ".json", ".csv", ".tsv", ".txt")
PACKED = (".gz", ".zst")


def format_of(path: Path) -> str:
    """The suffix that says how to read `path`, such as ".jsonl"; empty when it is none of ours."""
    suffixes = [suffix.lower() for suffix in path.suffixes]
    if suffixes and suffixes[-1] in PACKED:
        suffixes.pop()
    return suffixes[-1] if suffixes and suffixes[-1] in SUFFIXES else ""


def read_records(path: Path) -> Iterator[tuple[int, Record]]:
    """Stream the records of a text file, one of .json as JSON lines. Raises DataError for a fault of the whole file."""
    suffix = format_of(path)
    if suffix in (".csv", ".tsv"):
        return _csv_records(path, "," if suffix == ".csv" else "\t")
    if suffix == ".txt":
        return _text_records(path)
    return jsonl_records(path)


def parse_json(text: str) -> Any:
    """Parse JSON strictly: RowFault for broken JSON, a key given twice, NaN, infinity or absurd nesting."""
    with faults("each line must hold one whole JSON object"):
        return DECODER.decode(text)


def parse_inside(text: str, name: str) -> Any:
    """`parse_json` of a text that stands inside a row, such as "the column 'tools'", which every fault then names."""
    try:
        with faults("correct the JSON in that text", "character {1} of its text"):
            value = DECODER.decode(text)
        check_strings(value)  # escapes that the row's own check cannot see
    except RowFault as fault:
        raise RowFault(f"{name}: {fault.reason}", fault.remedy) from None
    return value


@contextmanager
def faults(remedy: str, place: str = "") -> Iterator[None]:
    """What DECODER raises, as RowFault; `place` words a JSONDecodeError's place, by default as line and column."""
    try:
        yield
    except json.JSONDecodeError as error:
        place = place or ("column {0.colno}" if error.lineno == 1 else "line {0.lineno}, column {0.colno}")
        raise RowFault(f"broken JSON at {place.format(error, error.pos + 1)}: {error.msg}", remedy) from None
    except RecursionError:
        raise RowFault("JSON is nested too deeply", "flatten the row") from None
    except ValueError:  # Python's limit of 4,300 digits for one integer
        raise RowFault("a number has too many digits", "write long numbers as text, in quotes") from None


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    table = dict(pairs)
    if len(table) != len(pairs):
        name = twice(name for name, _ in pairs)
        raise RowFault(f"the JSON key {name!r} stands twice in one object", "keep one of the two values")
    return table


def _no_constant(name: str) -> Any:
    raise RowFault(f"{name} is not JSON", "write a number, or null")


def _finite(digits: str) -> float:
    number = float(digits)
    if not math.isfinite(number):
        raise RowFault(f"the number {digits[:40]} is too large", "write a number below 1.8e308, or text")
    return number


DECODER = json.JSONDecoder(object_pairs_hook=_unique, parse_constant=_no_constant, parse_float=_finite)


def _lines(path: Path) -> Iterator[tuple[int, int, bytes]]:
    """Stream `(line, offset of its first byte, bytes with the line end)`."""
    number, offset, pending = 0, 0, b""
    for chunk in chunks(path):
        *whole, pending = (pending + chunk).split(b"\n")
        for line in whole:
            number += 1
            _check_line(path, number, line)
            yield number, *_unmarked(offset, line + b"\n")
            offset += len(line) + 1
        _check_line(path, number + 1, pending if len(pending) > LINE_LIMIT else b"")
    if pending:
        _check_line(path, number + 1, pending)
        yield number + 1, *_unmarked(offset, pending)


def _unmarked(offset: int, line: bytes) -> tuple[int, bytes]:
    """A line without the UTF-8 byte order mark that spreadsheets write before the first one."""
    mark = len(codecs.BOM_UTF8) if offset == 0 and line.startswith(codecs.BOM_UTF8) else 0
    return offset + mark, line[mark:]


def _check_line(path: Path, number: int, line: bytes) -> None:
    if len(line) > LINE_LIMIT:
        raise DataError(f"{path}:{number}: the line is longer than {LINE_LIMIT // 2**20} MiB",
                        "write one row a line; a whole JSON array belongs in a .json file")
    if number == 1:
        refuse_other(path, line)


def decoded(line: bytes, offset: int) -> str:
    """Bytes at `offset` of a file as text; RowFault for NUL and what is no UTF-8."""
    if b"\0" in line:
        raise RowFault(f"NUL byte at byte {offset + line.index(0)} of the file",
                       "the file is binary, UTF-16 or damaged: save it as UTF-8 text")
    try:
        return line.decode("utf-8")
    except UnicodeDecodeError as error:
        raise RowFault(f"not UTF-8: byte 0x{line[error.start]:02x} at byte {offset + error.start} of the file",
                       "convert it, such as: iconv -f LATIN1 -t UTF-8 FILE > NEW") from None


def jsonl_records(path: Path) -> Iterator[tuple[int, Record]]:
    """Stream JSON lines."""
    blank = 0
    for number, offset, line in _lines(path):
        if not line.strip():
            blank = blank or number
            continue
        for empty in range(blank or number, number):  # at the end of a file they are harmless, between rows not
            yield empty, BadRow(str(path), empty, "the line is empty", "remove the empty line")
        blank = 0
        try:
            yield number, json_object(parse_json(decoded(line, offset).strip()))
        except RowFault as fault:
            if _ends_in_cr(number, line):
                raise _cr(path, number) from None
            array = number == 1 and line.lstrip()[:1] == b"["
            remedy = "name the file .json: there an array of objects is read whole" if array else fault.remedy
            yield number, BadRow(str(path), number, fault.reason, remedy)


def _ends_in_cr(number: int, line: bytes) -> bool:
    """Whether a whole file is one line for us, and several for those who end lines in CR alone."""
    return number == 1 and not line.endswith(b"\n") and b"\r" in line.rstrip(b"\r")


def _cr(path: Path, number: int) -> DataError:
    return DataError(f"{path}:{number}: a line ends in CR alone",
                     "end lines in LF or CR LF: tr '\\r' '\\n' < FILE > NEW")


def json_object(value: Any) -> dict[str, Any]:
    """A record; RowFault for what is none."""
    if not isinstance(value, dict):
        raise RowFault(f"a JSON object was expected, this is {type(value).__name__}",
                       'write each row as an object: {"text": …, "label": …}')
    check_strings(value)
    return value


def _csv_records(path: Path, delimiter: str) -> Iterator[tuple[int, Record]]:
    csv.field_size_limit(LINE_LIMIT)  # Python's own limit is 128 KiB
    reader = csv.reader(_csv_lines(path), delimiter=delimiter, strict=True)
    header = next(_csv_rows(path, reader), (1, []))[1]
    _check_header(path, header, delimiter)
    blank = 0
    for number, cells in _csv_rows(path, reader):
        if not cells:
            blank = blank or number
            continue
        for empty in range(blank or number, number):
            yield empty, BadRow(str(path), empty, "the line is empty", "remove the empty line")
        blank = 0
        if len(cells) != len(header):
            yield number, BadRow(str(path), number, f"{len(cells)} cells, the header has {len(header)} columns",
                                 "put quotes around cells that hold the delimiter or a line end")
        else:
            yield number, dict(zip(header, cells, strict=True))


def _csv_lines(path: Path) -> Iterator[str]:
    for number, offset, line in _lines(path):
        try:
            yield decoded(line, offset)
        except RowFault as fault:
            raise DataError(f"{path}:{number}: {fault.reason}", fault.remedy) from None


def _csv_rows(path: Path, reader: Any) -> Iterator[tuple[int, list[str]]]:
    """`(first line, cells)`; broken quotes refuse the file, since they swallow rows silently."""
    while True:
        first = reader.line_num + 1
        try:
            yield first, next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            reason = str(error) if "field limit" not in str(error) else f"a cell longer than {LINE_LIMIT // 2**20} MiB"
            if "new-line character" in reason:
                raise _cr(path, first) from None
            cells = "; cells stand apart by commas in .csv and by tabs in .tsv files" if first == 1 else ""
            raise DataError(f"{path}:{first}: broken CSV: {reason}{cells}",
                            'close every quote, and write a quote inside a quoted cell as ""') from None


def _check_header(path: Path, header: list[str], delimiter: str) -> None:
    if not header:
        return  # an empty file, which the caller refuses
    again = twice(header)
    if again is not None:
        raise DataError(f"{path}:1: the column {again!r} stands twice in the header", "rename one of the two columns")
    if header[0].lstrip().startswith(('{"', "[{")):
        raise DataError(f"{path}:1: the header seems to be JSON: {header[0][:60]!r}",
                        "name the file .jsonl (one object a line) or .json (an array of objects)")
    other = next((mark for mark in (",", ";", "\t", "|") if mark != delimiter and mark in header[0]), None)
    if len(header) == 1 and other is not None:
        raise DataError(f"{path}:1: the header is one cell, {header[0][:60]!r}: the delimiter seems to be {other!r}",
                        "separate by commas in .csv and by tabs in .tsv files")


def _text_records(path: Path) -> Iterator[tuple[int, Record]]:
    """Plain text: one record a paragraph, split where lines are blank."""
    paragraph: list[str] = []
    first = size = 0
    for number, offset, line in _lines(path):
        if _ends_in_cr(number, line):
            raise _cr(path, number)
        try:
            text = decoded(line, offset)
        except RowFault as fault:
            yield number, BadRow(str(path), number, fault.reason, fault.remedy)
            continue
        if text.strip():
            first, size = (first, size + len(line)) if paragraph else (number, len(line))
            if size > LINE_LIMIT:
                raise DataError(f"{path}:{first}: a paragraph longer than {LINE_LIMIT // 2**20} MiB",
                                "part the texts by empty lines")
            paragraph.append(text)
        elif paragraph:
            yield first, {"text": "".join(paragraph).rstrip("\r\n")}
            paragraph = []
    if paragraph:
        yield first, {"text": "".join(paragraph).rstrip("\r\n")}
