"""Guess the next tokens cheaply and check several in one pass of the model; the answer stays the same.

Every position of a checked pass is decided as it would be alone: by the same choice from the model's own logits, under
the same penalties, grammar and draws. A guess that turns out wrong is forgotten, so guesses decide the speed alone.
On a processor a pass over several tokens costs more than one over one, so what guessing gains is measured while it
runs, and it rests where it loses.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Protocol

from .decoding import common
from .engine import EXTEND

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from .engine import Engine

_GRAMS = (3, 2)
_REMEMBERED = 8192
_FIRST, _LONGEST = 3, EXTEND - 1
_FADE, _TRIALS, _PLAIN_EVERY, _SHORTEST_REST, _LONGEST_REST = 0.9, 4, 64, 32, 1024


class Drafter(Protocol):
    """Guesses how a text goes on."""

    def propose(self, prompt: list[int], ids: list[int], count: int) -> list[int]:
        """Up to `count` tokens after `prompt` and `ids`; none where it has no idea."""
        ...


class Lookup:
    """Guesses that a text goes on as it did after the same words before, in the prompt or in former answers.

    Words, not tokens, are compared: a name at the beginning of a JSON string lacks the blank that it has in a text
    (after prompt lookup decoding, Saxena 2023).
    """

    def __init__(self, word: Callable[[int], str]) -> None:
        """`word` gives a token's text."""
        self._word = word
        self._names: dict[int, str] = {}
        self._tokens: list[int] = []
        self._words: list[str] = []
        self._places: dict[tuple[str, ...], int] = {}
        self._alone: dict[str, int] = {}
        self._prompt: list[int] | None = None
        self._read = 0

    def propose(self, prompt: list[int], ids: list[int], count: int) -> list[int]:
        """See `Drafter.propose`."""
        if prompt is not self._prompt:
            self._begin(prompt)
        for token in ids[self._read:]:
            self._add(token)
        self._read = len(ids)
        for size in _GRAMS:
            place = self._places.get(tuple(self._words[-size:]))
            if place is not None:
                break
        else:
            place = self._alone.get(self._words[-1], -1)
        return self._following(place, count) if place >= 0 else []

    def _begin(self, prompt: list[int]) -> None:
        if len(self._tokens) > _REMEMBERED:
            self._tokens, self._words, self._places = [], [], {}
        self._prompt, self._read, self._alone = prompt, 0, {}
        self._tokens.append(-1)  # nothing is said across it
        self._words.append("")
        for token in prompt:
            self._add(token)

    def _add(self, token: int) -> None:
        name = self._names.get(token)
        if name is None:
            # A token that is no word of its own, such as a blank, keeps its identity.
            name = self._names[token] = self._word(token).strip() or f"\0{token}"
        words, place = self._words, len(self._tokens)
        for size in _GRAMS:
            self._places[tuple(words[-size:])] = place
        # One word alone says little, unless it occurs but once in the prompt.
        self._alone[words[-1]] = -1 if words[-1] in self._alone else place
        self._tokens.append(token)
        words.append(name)

    def _following(self, place: int, count: int) -> list[int]:
        found = self._tokens[place:place + count]
        return found[:found.index(-1)] if -1 in found else found


class Draft:
    """Guesses what a smaller model of the same vocabulary would say."""

    def __init__(self, engine: Engine, vocabulary_size: int) -> None:
        """`vocabulary_size` is that of the model which checks."""
        self._engine, self._vocabulary_size = engine, vocabulary_size

    def propose(self, prompt: list[int], ids: list[int], count: int) -> list[int]:
        """See `Drafter.propose`."""
        engine, text = self._engine, [*prompt, *ids]
        count = min(count, engine.context_length - len(text))
        if count < 1:
            return []
        engine.truncate(min(common(engine.held, text), len(text) - 1))
        found = [int(engine.prefill(text[engine.position:]).argmax())]
        while len(found) < count:
            found.append(int(engine.decode(found[-1]).argmax()))
        # Models of one vocabulary may be padded to different sizes.
        wrong = next((place for place, token in enumerate(found) if token >= self._vocabulary_size), count)
        return found[:wrong]


class Speculator:
    """Takes the steps of answers with guesses, as long as they pay; what it measures stays from answer to answer."""

    def __init__(self, drafter: Drafter) -> None:
        self._drafter = drafter
        self._size = _FIRST
        self._plain, self._guessed = _Rate(), _Rate()
        self._rest, self._pause = 0, _SHORTEST_REST
        self._steps = self._count = 0
        self._seconds = 0.0
        self.guessed = self.right = 0
        """Tokens guessed in this answer, and those of them that were right."""

    def begin(self) -> None:
        """Begin another answer."""
        self.guessed = self.right = 0

    def step(self, engine: Engine, prompt: list[int], ids: list[int],
             limit: int) -> tuple[Sequence[NDArray[np.float32]] | NDArray[np.float32], list[int]]:
        """Feed the last of `ids` to the engine: logits of it and of each guess after it, and the guesses.

        `limit` is the length at which the answer ends. `settle` must follow when there are guesses.
        """
        start = time.perf_counter()
        room = min(self._size, limit - len(ids) - 1, engine.context_length - engine.position - 1)
        self._steps += 1
        guesses: list[int] = []
        if self._rest > 0:
            self._rest -= 1
        elif room > 0 and self._plain.steps >= 2 and self._steps % _PLAIN_EVERY:
            guesses = self._drafter.propose(prompt, ids, room)
        rows = engine.extend([ids[-1], *guesses]) if guesses else (engine.decode(ids[-1]),)
        self._seconds, self._count = time.perf_counter() - start, len(guesses)
        if not guesses:
            self._plain.note(self._seconds, 1)
        return rows, guesses

    def settle(self, right: int) -> None:
        """Note how many guesses of the last step were right."""
        self._guessed.note(self._seconds, right + 1)
        self.guessed += self._count
        self.right += right
        # Guesses that all held call for more of them, guesses that failed for fewer.
        self._size = min(_LONGEST, 2 * self._count) if right == self._count else max(_FIRST - 1, right + 1)
        if self._guessed.steps < _TRIALS:
            return
        if self._guessed.seconds_per_token > self._plain.seconds_per_token:
            self._rest, self._pause = self._pause, min(_LONGEST_REST, 2 * self._pause)
            self._guessed = _Rate()
        else:
            self._pause = _SHORTEST_REST


class _Rate:
    """Seconds a token, the newest steps counting most."""

    def __init__(self) -> None:
        self.steps = 0
        self._seconds = self._tokens = 0.0

    def note(self, seconds: float, tokens: int) -> None:
        self.steps += 1
        self._seconds = self._seconds * _FADE + seconds
        self._tokens = self._tokens * _FADE + tokens

    @property
    def seconds_per_token(self) -> float:
        return self._seconds / self._tokens
