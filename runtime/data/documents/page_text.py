"""The text of an HTML page: what a reader sees of it, in paragraphs, a section for each heading."""

from __future__ import annotations

import re
from collections.abc import Iterator
from html.parser import HTMLParser
from typing import Any

_UNSEEN = ("script", "style", "template", "noscript", "svg", "math", "title", "iframe", "object", "select", "textarea")
_LINES = ("br", "dd", "dt", "li", "tr")
_BLOCKS = ("address", "article", "aside", "blockquote", "body", "div", "dl", "fieldset", "figcaption", "figure",
           "footer", "form", "header", "hr", "main", "nav", "ol", "p", "pre", "section", "table", "ul")
_HEADINGS = ("h1", "h2", "h3", "h4", "h5", "h6")


def sections_of(source: str) -> Iterator[dict[str, Any]]:
    """The sections of a page, as the fields of Section."""
    parser = _Text()
    parser.feed(source)
    parser.close()
    for heading, parts in parser.sections:
        if text := "".join(parts).strip():
            yield {"text": f"{text}\n\n", "heading": " ".join("".join(heading).split())}


class _Text(HTMLParser):
    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.sections: list[tuple[list[str], list[str]]] = [([], [])]
        """Each with the pieces of its heading, and of its text, the heading included."""
        self._unseen: list[str] = []
        self._in_heading = False
        self._as_it_is = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if self._unseen or tag in _UNSEEN:
            if tag in _UNSEEN:
                self._unseen.append(tag)
        elif tag in _HEADINGS:
            self.sections.append(([], []))
            self._in_heading = True
        elif tag in ("td", "th"):
            self.handle_data(" ")
        elif tag in (*_LINES, *_BLOCKS):
            self._break(1 if tag in _LINES else 2)
            self._as_it_is = self._as_it_is or tag == "pre"
            if tag == "li":
                self._parts.append("- ")

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in _UNSEEN:
            self.handle_starttag(tag, attrs)

    def handle_endtag(self, tag: str) -> None:
        if self._unseen:
            if tag == self._unseen[-1]:
                self._unseen.pop()
        elif tag in (*_LINES, *_BLOCKS, *_HEADINGS):
            self._in_heading = self._in_heading and tag not in _HEADINGS
            self._as_it_is = self._as_it_is and tag != "pre"
            self._break(1 if tag in _LINES else 2)

    def handle_data(self, data: str) -> None:
        if self._unseen:
            return
        if not self._as_it_is:
            data = re.sub(r"\s+", " ", data)
            data = data.lstrip() if self._end[-1:] in ("", " ", "\n") else data
        elif self._end[-1:] in ("", "\n"):
            data = data.removeprefix("\n")  # as the first one in <pre>
        if data:
            self._parts.append(data)
            if self._in_heading:
                self.sections[-1][0].append(data)

    @property
    def _parts(self) -> list[str]:
        return self.sections[-1][1]

    @property
    def _end(self) -> str:
        """The last two characters so far; each piece has at least one."""
        return "".join(self._parts[-2:])[-2:]

    def _break(self, lines: int) -> None:
        """End a line (1) or a paragraph (2), which may have been ended."""
        if self._end[-1:] == " ":
            self._parts[-1] = self._parts[-1][:-1]
            if not self._parts[-1]:
                self._parts.pop()
        if missing := "\n" * (lines - len(self._end) + len(self._end.rstrip("\n"))) if self._end else "":
            self._parts.append(missing)
