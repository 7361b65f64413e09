"""Guess the next tokens cheaply and check several in one pass of the model; the answer stays the same.

Every position of a checked pass is decided as it would be alone: by the same choice from the model's own logits, under
the same penalties, grammar and draws. A guess that turns out wrong is forgotten, so guesses decide the speed alone.
On a processor a pass over several tokens costs more than one over one. What a guess costs is measured while it runs,
and only those are made that are likely enough to be right; where they lose all the same, guessing rests.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

from .run import common

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from ..engines._base import Engine

LONGEST = 15
"""Most guesses in a pass."""
_FADE, _TRIALS, _PLAIN_EVERY, _STRETCH, _SHORTEST_REST, _LONGEST_REST = 0.98, 32, 64, 3, 32, 1024
_SHARE_FADE, _SUREST = 0.9, 0.999
_CHANCE = 0.8
"""How likely a draft's guesses are held to be right, at least, when an answer begins: what is never tried is never
learned."""
_LEAST, _MOST = 0.05, 0.95
"""The limits of what is believed of a guess's cost, in tokens without one."""
_LINE_FADE, _NO_SPREAD = 0.99, 1e-3


class Drafter(Protocol):
    """Guesses how a text goes on."""

    def propose(self, prompt: list[int], ids: list[int], count: int, least: float) -> list[tuple[int, float]]:
        """Up to `count` tokens after `prompt` and `ids`, each with how likely it and those before it are right, as long
        as that is at least `least`; none where it has no idea."""
        ...


class Share:
    """How often something held, the newest times counting most."""

    def __init__(self, before: float = 0.5) -> None:
        """`before` anything is known."""
        self._held, self._all = 2 * before, 2.0

    def note(self, held: bool) -> None:
        """It did, or did not."""
        self._held = self._held * _SHARE_FADE + held
        self._all = self._all * _SHARE_FADE + 1

    @property
    def value(self) -> float:
        """Between 0 and 1, both excluded: nothing is certain."""
        return min(_SUREST, max(1 - _SUREST, self._held / self._all))


class Draft:
    """Guesses what a smaller model of the same vocabulary would say. How likely a guess is comes from how many were
    right: where the models agree on the likeliest token says little of how likely either finds it."""

    def __init__(self, engine: Engine, vocabulary_size: int) -> None:
        """`vocabulary_size` is that of the model which checks."""
        self._engine, self._vocabulary_size = engine, vocabulary_size
        self._right = Share(_CHANCE)
        self._last: tuple[list[int], int, list[int]] = ([], 0, [])

    def propose(self, prompt: list[int], ids: list[int], count: int, least: float) -> list[tuple[int, float]]:
        """See `Drafter.propose`."""
        engine, text = self._engine, [*prompt, *ids]
        self._learn(prompt, ids)
        share = self._right.value
        if least > 0:
            count = min(count, int(math.log(least) / math.log(share)))
        count = min(count, engine.context_length - len(text))
        if count < 1:
            return []
        engine.truncate(min(common(engine.held, text), len(text) - 1))
        found = [int(engine.prefill(text[engine.position:]).argmax())]
        while len(found) < count:
            found.append(int(engine.decode(found[-1]).argmax()))
        # Models of one vocabulary may be padded to different sizes.
        wrong = next((place for place, token in enumerate(found) if token >= self._vocabulary_size), count)
        self._last = prompt, len(ids), found[:wrong]
        return [(token, share ** (place + 1)) for place, token in enumerate(found[:wrong])]

    def _learn(self, prompt: list[int], ids: list[int]) -> None:
        asked, start, guesses = self._last
        if asked is prompt:
            self._last = prompt, 0, []  # each guess counts once
            for guess, token in zip(guesses, ids[start:], strict=False):
                self._right.note(guess == token)
                if guess != token:
                    break
        elif self._right.value < _CHANCE:
            self._right = Share(_CHANCE)


class Speculator:
    """Takes the steps of answers with guesses, as long as they pay; what it measures stays from answer to answer."""

    def __init__(self, drafter: Drafter) -> None:
        self._drafter = drafter
        self._plain, self._guessed, self._more = _Rate(), _Rate(), _Line()
        self._rest, self._pause = 0, _SHORTEST_REST
        self._steps = self._count = 0
        self._was_plain = False
        self._seconds = 0.0
        self._longest = LONGEST
        self.guessed = self.right = 0
        """Tokens guessed in this answer, and those of them that were right."""

    def begin(self, longest: int) -> None:
        """Begin another answer, with at most `longest` guesses in a pass."""
        self._longest = longest
        self.guessed = self.right = 0

    def step(self, engine: Engine, prompt: list[int], ids: list[int],
             limit: int) -> tuple[Sequence[NDArray[np.float32]] | NDArray[np.float32], list[int]]:
        """Feed the last of `ids` to the engine: logits of it and of each guess after it, and the guesses.

        `limit` is the length at which the answer ends. `settle` must follow when there are guesses.
        """
        start = time.perf_counter()
        room = min(self._longest, limit - len(ids) - 1, engine.context_length - engine.position - 1)
        self._steps += 1
        plain = self._rest > 0 or self._plain.steps < _STRETCH or self._steps % _PLAIN_EVERY < _STRETCH
        guesses: list[int] = []
        if not plain and room > 0:
            guesses = self._worth(self._drafter.propose(prompt, ids, room, self._more.slope))
        rows = engine.extend([ids[-1], *guesses]) if guesses else (engine.decode(ids[-1]),)
        self._seconds, self._count = time.perf_counter() - start, len(guesses)
        if plain:
            self._rest = max(0, self._rest - 1)
            if self._was_plain:  # engines set themselves up anew for a pass of another size
                self._plain.note(self._seconds, 1)
        elif not guesses:
            self._judge(1)  # to look for guesses takes time, too
        self._was_plain = plain
        return rows, guesses

    def settle(self, right: int) -> None:
        """Note how many guesses of the last step were right."""
        self._more.note(self._count, self._seconds / self._plain.seconds_per_token - 1)
        self.guessed += self._count
        self.right += right
        self._judge(right + 1)

    def _judge(self, tokens: int) -> None:
        """Rest, for longer each time, where steps with guesses are slower than those without."""
        self._guessed.note(self._seconds, tokens)
        if self._guessed.steps < _TRIALS:
            return
        if self._guessed.seconds_per_token > self._plain.seconds_per_token:
            self._rest, self._pause = self._pause, min(_LONGEST_REST, 2 * self._pause)
            self._guessed = _Rate()
        else:
            self._pause = _SHORTEST_REST

    def lose(self, seconds: float) -> None:
        """Note time that earlier guesses cost besides."""
        self._guessed.note(seconds, 0)

    def _worth(self, found: Sequence[tuple[int, float]]) -> list[int]:
        """As many of the guesses as gain the most tokens beyond what they cost; none where that is none."""
        best, size, gain = 0.0, 0, 0.0
        for place, (_, likely) in enumerate(found, 1):
            gain += likely
            if gain - self._more(place) > best:
                best, size = gain - self._more(place), place
        return [token for token, _ in found[:size]]


class _Line:
    """What guesses cost, in tokens without: least squares of base + slope * guesses, the newest counting most. It
    begins with two points as if a guess cost a half."""

    def __init__(self) -> None:
        self._sums = [0.0] * 5
        for guesses in (2, 8):
            self.note(guesses, guesses / 2)

    def note(self, guesses: int, cost: float) -> None:
        values = (1.0, guesses, cost, guesses * guesses, guesses * cost)
        self._sums = [_LINE_FADE * total + value for total, value in zip(self._sums, values, strict=True)]
        n, x, y, xx, xy = self._sums
        spread = n * xx - x * x
        slope = (n * xy - x * y) / spread if spread > _NO_SPREAD * xx else y / x
        self.slope = min(_MOST, max(_LEAST, slope))
        self._base = max(0.0, (y - self.slope * x) / n)

    def __call__(self, guesses: int) -> float:
        return self._base + self.slope * guesses


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
