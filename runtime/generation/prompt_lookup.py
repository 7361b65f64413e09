"""Guess that a text goes on as it did after the same tokens before: prompt lookup decoding (Saxena 2023)."""

from __future__ import annotations

SAME = 3
"""Tokens that must have stood before a guess, too."""


class Lookup:
    """A drafter for one answer, see `Drafter`."""

    def __init__(self) -> None:
        self._text: list[int] = []
        self._behind: dict[tuple[int, ...], int] = {}
        """Where the text went on after these tokens, the last time."""

    def propose(self, prompt: list[int], ids: list[int], count: int) -> list[int]:
        """See `Drafter.propose`."""
        text = self._text
        for token in [*prompt, *ids][len(text):]:
            if len(text) >= SAME:
                self._behind[tuple(text[-SAME:])] = len(text)
            text.append(token)
        place = self._behind.get(tuple(text[-SAME:]), len(text))
        return text[place:place + count]
