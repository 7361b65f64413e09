"""What is wrong with one row of a data file, and what is found out about all of them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from ...models.errors import DataError

EXAMPLES = 5
"""Places named for each finding."""


class RowFault(Exception):
    """One row cannot be used; the reader knows the file and line and adds them."""

    def __init__(self, reason: str, remedy: str) -> None:
        super().__init__(reason)
        self.reason = reason
        self.remedy = remedy


@dataclass(frozen=True)
class BadRow:
    """A row that was left out, or at which reading stopped. `line` counts from 1; in tables it is the row."""

    file: str
    line: int
    reason: str
    remedy: str

    def error(self) -> DataError:
        """The error that refuses the file because of this row."""
        hint = f"{self.remedy}; or leave bad rows out with --skip-bad (data.skip_bad = true)"
        return DataError(f"{self.file}:{self.line}: {self.reason}", hint)


@dataclass(frozen=True)
class Finding:
    """Something to look at."""

    level: str
    """error, warning or note."""
    check: str
    """Such as leakage_exact."""
    split: str
    message: str
    examples: list[str] = field(default_factory=list)
    """Up to EXAMPLES places and texts."""


def twice(names: Iterable[str]) -> str | None:
    """The first name that stands twice; None where none does."""
    seen: set[str] = set()
    for name in names:
        if name in seen:
            return name
        seen.add(name)
    return None


def check_strings(value: object, depth: int = 0) -> None:
    """Refuse NUL, lone surrogates and nesting beyond 100 levels anywhere inside a value made of JSON types.

    JSON escapes can smuggle in both kinds of character; no tokenizer, file or engine downstream takes them.
    """
    if depth > 100:
        raise RowFault("values are nested deeper than 100 levels", "flatten the row")
    if isinstance(value, str):
        if "\0" in value:
            raise RowFault("a text holds a NUL character", "remove the NUL characters: tr -d '\\000' < FILE > CLEAN")
        if not value.isascii():
            try:
                value.encode("utf-8")
            except UnicodeEncodeError:
                raise RowFault("a text holds half of a surrogate pair (\\ud800 to \\udfff)",
                               "write the file again with whole characters, as UTF-8") from None
    elif isinstance(value, dict):
        for key, item in value.items():
            check_strings(key, depth + 1)
            check_strings(item, depth + 1)
    elif isinstance(value, (list, tuple)):
        for item in value:
            check_strings(item, depth + 1)
