"""The limited process that takes the text out of a stranger's PDF or HTML page."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ....models.errors import DataError, EdgestillError, MissingExtra
from ...files.limited_process import serve
from .document import MOST_CHARACTERS, decoded, too_long
from .page_text import sections_of

_BROKEN = {**dict.fromkeys({*range(32)} - {*map(ord, "\t\n")}, " "), **dict.fromkeys(range(0xD800, 0xE000), "\ufffd")}
"""Controls and halves of surrogate pairs, which no row can hold."""


def text_of(job: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The sections of the file at `path`, as the fields of Section. DataError for a file that cannot be read."""
    path, length = Path(job["path"]), 0
    try:
        for found in pages(path) if job["pdf"] else sections_of(decoded(path, declared=True)):
            length += len(found["text"])
            if length > MOST_CHARACTERS:
                raise too_long(path)
            yield found
    except EdgestillError:
        raise
    except Exception as error:  # a stranger's file: pypdf raises whatever it runs into
        raise DataError(f"{path}: damaged, or made to be: {type(error).__name__}: {str(error)[:200]}",
                        "save it anew, or as text") from None


def pages(path: Path) -> Iterator[dict[str, Any]]:
    """The text of every page of a PDF that has any."""
    try:
        import pypdf
    except ModuleNotFoundError:
        raise MissingExtra("pypdf", "label") from None
    reader = pypdf.PdfReader(path)
    if reader.is_encrypted:
        raise DataError(f"{path}: it is encrypted", "save a copy without a password")
    for number, page in enumerate(reader.pages, 1):
        text = page.extract_text().translate(_BROKEN)
        if text.strip():
            yield {"text": text.rstrip() + "\n\n", "page": number}


if __name__ == "__main__":
    serve(text_of)
