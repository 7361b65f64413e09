"""Guess that a text goes on as it, its prompt and former answers did after the same words, as far as that is likely.

After prompt lookup decoding (Saxena 2023). What is added here is how likely a guess is: every short row of words keeps
count of how often what followed it last followed it again, and guesses end where they no longer pay.
"""

from __future__ import annotations

from collections.abc import Callable

from .speculation import Share

_SAID, _ASKED = (3, 2), (2, 1)
"""Words before a guess: as former answers and this one had them, and as the prompt has them. One word says little,
unless it occurs but once in the prompt."""
_REMEMBERED = 16384


class Lookup:
    """A drafter, see `Drafter`.

    Words, not tokens, are compared: a name at the beginning of a JSON string lacks the blank that it has in a text.
    """

    def __init__(self, word: Callable[[int], str]) -> None:
        """`word` gives a token's text."""
        self._word = word
        self._names: dict[int, str] = {}
        self._said: dict[tuple[str, ...], _Follower] = {}
        self._asked: dict[tuple[str, ...], int | None] = {}
        self._held = {size: Share() for size in _ASKED}
        self._words: list[str] = []
        self._prompt: list[int] | None = None
        self._ids: list[int] = []
        self._read = 0

    def propose(self, prompt: list[int], ids: list[int], count: int, least: float) -> list[tuple[int, float]]:
        """See `Drafter.propose`."""
        if prompt is not self._prompt:
            self._catch_up()  # with the end of the answer before
            self._begin(prompt)
        self._ids = ids
        self._catch_up()
        words, likely = self._words[-max(_SAID):], 1.0
        found: list[tuple[int, float]] = []
        while len(found) < count:
            token, share = self._next(words)
            likely *= share
            if likely < least or token is None:
                break
            found.append((token, likely))
            words.append(self._name(token))
        return found

    def _begin(self, prompt: list[int]) -> None:
        if len(self._said) > _REMEMBERED:
            self._said.clear()
        self._prompt, self._ids, self._read = prompt, [], 0
        self._words, self._asked = [], {}
        for token in prompt:
            for size in _ASKED:
                key = tuple(self._words[-size:])
                # Where two things follow, neither is a guess.
                self._asked[key] = token if self._asked.get(key, token) == token else None
            self._words.append(self._name(token))

    def _catch_up(self) -> None:
        words, said = self._words, self._said
        for token in self._ids[self._read:]:
            for size in _SAID:
                key = tuple(words[-size:])
                if key in said:
                    said[key].note(token)
                else:
                    said[key] = _Follower(token)
            for size in _ASKED:
                guess = self._asked.get(tuple(words[-size:]))
                if guess is not None:
                    self._held[size].note(guess == token)
                    break
            words.append(self._name(token))
        self._read = len(self._ids)

    def _next(self, words: list[str]) -> tuple[int | None, float]:
        """What follows these words most likely, and how likely."""
        best, share = None, 0.0
        for size in _SAID:
            follower = self._said.get(tuple(words[-size:]))
            if follower is not None:
                best, share = follower.token, follower.share.value
                break
        for size in _ASKED:
            token = self._asked.get(tuple(words[-size:]))
            if token is not None:
                if self._held[size].value > share:
                    best, share = token, self._held[size].value
                break
        return best, share

    def _name(self, token: int) -> str:
        name = self._names.get(token)
        if name is None:
            # A token that is no word of its own, such as a blank, keeps its identity.
            name = self._names[token] = self._word(token).strip() or f"\0{token}"
        return name


class _Follower:
    """The token that followed some words, and how sure it follows again."""

    def __init__(self, token: int) -> None:
        self.token, self.share = token, Share()

    def note(self, token: int) -> None:
        self.share.note(token == self.token)
        if token != self.token and self.share.value < 1 / 3:
            self.token, self.share = token, Share()
