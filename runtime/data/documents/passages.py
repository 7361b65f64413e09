"""Documents cut into passages, each with where it stands: joined, they are the document again."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from .document import Document, Section

_ENDS = (("\n\n",), ("\n",), (". ", "! ", "? ", "。", "！", "？"), (" ",))
"""Where a text is cut, the best first."""


@dataclass(frozen=True)
class Passage:
    """A piece of a document."""

    document: str
    text: str
    start: int
    """In characters of the document's text, as is `end`, behind it."""
    end: int
    page: int | None = None
    heading: str = ""

    @property
    def place(self) -> str:
        """For people: such as `manual.pdf, page 3`."""
        where = f", page {self.page}" if self.page is not None else f", {self.heading}" if self.heading else ""
        return f"{self.document}{where}"

    def source(self) -> dict[str, Any]:
        """Where it comes from, as the columns of a row."""
        where = {"page": self.page} if self.page is not None else {"heading": self.heading} if self.heading else {}
        return {"passage": self.text, "document": self.document, **where, "start": self.start, "end": self.end}


def passages(document: Document, longest: int) -> Iterator[Passage]:
    """The document's text in pieces of at most `longest` characters, in their order and without gaps: no piece reaches
    over the end of a page, and short sections under headings that follow each other stand together."""
    groups: list[list[Section]] = []
    held = 0
    for section in document.sections:
        held += len(section.text)
        if groups and section.page is None and held <= longest:
            groups[-1].append(section)
        else:
            groups.append([section])
            held = len(section.text)
    start = 0
    for group in groups:
        heading = next((section.heading for section in group if section.heading), "")
        for text in pieces("".join(section.text for section in group), longest):
            yield Passage(document.name, text, start, start + len(text), group[0].page, heading)
            start += len(text)


def pieces(text: str, longest: int) -> Iterator[str]:
    """A text in pieces, cut behind a paragraph, or else a line, a sentence, a blank, in the second half of each."""
    start = 0
    while len(text) - start > longest:
        least, most = start + longest // 2, start + longest
        ends = ([place + len(mark) for mark in marks if (place := text.rfind(mark, least, most)) >= 0]
                for marks in _ENDS)
        end = next((max(found) for found in ends if found), most)
        yield text[start:end]
        start = end
    yield text[start:]
