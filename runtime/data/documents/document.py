"""A document: its text, in sections that say where they stand."""

from __future__ import annotations

import codecs
import os
import re
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ....models.errors import DataError, UsageError
from ...files import limited_process

MOST_BYTES = 64 * 2**20
"""Of a file."""
MOST_CHARACTERS = 16_000_000
"""Of a document's text."""
SECONDS = 60.0
"""For the text of one PDF or HTML page."""
MEMORY = 2**30
"""Bytes of address space for it, the interpreter's included."""
CHILD = f"{__package__}.child"
PLAIN, MARKDOWN, HTML, PDF = (".txt", ".text", ".rst"), (".md", ".markdown"), (".html", ".htm", ".xhtml"), (".pdf",)
SUFFIXES = (*PLAIN, *MARKDOWN, *HTML, *PDF)
_MARKS = {codecs.BOM_UTF8: "utf-8", codecs.BOM_UTF16_LE: "utf-16-le", codecs.BOM_UTF16_BE: "utf-16-be"}
_CHARSET = re.compile(rb"""<meta[^>]{0,200}?charset\s{0,9}=\s{0,9}["']?([\w.:-]{1,40})""", re.IGNORECASE)
_HEADING = re.compile(r" {0,3}#{1,6}[ \t]+(.*?)(?:[ \t]+#+)?[ \t]*$")
_FENCE = re.compile(r" {0,3}(```+|~~~+)")


@dataclass(frozen=True)
class Section:
    """A part of a document."""

    text: str
    page: int | None = None
    """From 1, of a PDF."""
    heading: str = ""
    """Above it, in Markdown and HTML."""


@dataclass(frozen=True)
class Document:
    """A text; its sections joined are the whole of it."""

    name: str
    sections: tuple[Section, ...]

    @property
    def text(self) -> str:
        """All of it: of text and Markdown the file's own characters, of HTML and PDF what was taken out of them."""
        return "".join(section.text for section in self.sections)


def find(paths: Sequence[Path]) -> list[Path]:
    """The files, and those below the folders whose names end as documents do, by name; says how many
    others are there. UsageError for a file of another kind, and for a folder without any."""
    found: list[Path] = []
    for path in paths:
        if path.is_dir():
            every = sorted(_below(path))
            inside = [file for file in every if file.suffix.lower() in SUFFIXES]
            if not inside:
                raise UsageError(f"{path}: no document in this folder", f"known: {', '.join(SUFFIXES)}")
            if others := [file for file in every if file.suffix.lower() not in SUFFIXES]:
                sys.stderr.write(f"{path}: not read, since their kinds are not known here: {len(others)} files, as "
                                 f"{others[0]}\n")
            found += inside
        elif path.suffix.lower() not in SUFFIXES:
            raise UsageError(f"{path}: {path.suffix or 'a name without a suffix'!r} is no kind of document known here",
                             f"known: {', '.join(SUFFIXES)}")
        else:
            found.append(path)
    return list(dict.fromkeys(found))


def _below(folder: Path) -> Iterator[Path]:
    """The files in a folder and those in it, also behind links, of which circles are gone through once."""
    seen = set[str]()
    for here, folders, names in os.walk(folder, followlinks=True):
        if (place := os.path.realpath(here)) in seen:
            folders.clear()
            continue
        seen.add(place)
        yield from (file for file in (Path(here, name) for name in names) if file.is_file())


def read(path: Path) -> Document:
    """A document. Raises DataError, with the file's name, for one that is missing, too large, damaged, encrypted,
    without a text, in another encoding than it says, or not read within SECONDS and MEMORY; MissingExtra without pypdf.
    """
    kind = path.suffix.lower()
    if not path.is_file():
        raise DataError(f"{path}: no such file", "check the path")
    if (size := path.stat().st_size) > MOST_BYTES:
        raise DataError(f"{path}: {size:,} bytes, and documents of up to {MOST_BYTES:,} are read", "split it")
    if kind in PDF or kind in HTML:
        sections = _apart(path)
    else:
        text = decoded(path)
        sections = list(_markdown(text)) if kind in MARKDOWN else [Section(text)]
    document = Document(path.name, tuple(section for section in sections if section.text))
    if not document.text.strip():
        raise DataError(f"{path}: there is no text in it", "a scanned page needs character recognition (OCR) first"
                        if kind in PDF else "leave it out")
    return document


def decoded(path: Path, declared: bool = False) -> str:
    """The text of a file: UTF-8, or as its byte order mark, or with `declared` its <meta charset>, says. DataError for
    bytes that are none, and for NUL characters, which no text has."""
    content = path.read_bytes()
    mark = next((mark for mark in _MARKS if content.startswith(mark)), b"")
    found = _CHARSET.search(content[:4096]) if declared and not mark else None
    name = found[1].decode("ascii") if found else _MARKS.get(mark, "utf-8")
    try:
        text = content[len(mark):].decode(name)
    except (LookupError, UnicodeError) as error:
        place = f" at byte {error.start + len(mark)}" if isinstance(error, UnicodeDecodeError) else ""
        raise DataError(f"{path}: not {name}{place}", "save it as UTF-8") from None
    if "\0" in text:
        raise DataError(f"{path}: a NUL character at {text.index(chr(0))}: this is no text", "save it as UTF-8")
    if len(text) > MOST_CHARACTERS:
        raise too_long(path)
    return text


def too_long(path: Path) -> DataError:
    """Of a document with more text than is read."""
    return DataError(f"{path}: more than {MOST_CHARACTERS:,} characters of text", "split it")


def _apart(path: Path) -> list[Section]:
    """The sections of a file that could do anything to its reader: in a process of its own."""
    job: dict[str, Any] = {"path": str(path), "pdf": path.suffix.lower() in PDF}
    outcome = limited_process.run(CHILD, job, seconds=SECONDS, memory=MEMORY)
    if outcome.error is not None:
        raise outcome.error
    if outcome.crash:
        raise DataError(f"{path}: its text cannot be taken out within {SECONDS:g} s and {MEMORY // 2**20} MiB: "
                        f"{outcome.crash}", "save it anew, or as text")
    return [Section(**found) for found in outcome.found]


def _markdown(text: str) -> Iterator[Section]:
    """A section for each heading, outside fenced code."""
    heading, lines, fence = "", list[str](), ""
    for line in text.splitlines(keepends=True):
        found = _FENCE.match(line)
        if found and (not fence or found[1].startswith(fence)):
            fence = "" if fence else found[1]
        above = None if fence else _HEADING.match(line.rstrip("\r\n"))
        if above:
            yield Section("".join(lines), heading=heading)
            heading, lines = above[1], []
        lines.append(line)
    yield Section("".join(lines), heading=heading)
