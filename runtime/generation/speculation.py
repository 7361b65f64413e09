"""Guess the next tokens cheaply and check several in one pass of the model; the answer stays the same.

Every position of a checked pass is decided as it would be alone: by the same choice from the model's own logits, under
the same penalties, grammar and draws. A guess that turns out wrong is forgotten, so guesses decide the speed alone
(Leviathan et al. 2022).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

from .context_shift import common

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from ..engines._base import Engine

GUESSES = 4
"""Guesses in a pass: on a processor each costs a fifth to a half of a token, so many of them lose more than they gain.
"""


class Drafter(Protocol):
    """Guesses how a text goes on."""

    def propose(self, prompt: list[int], ids: list[int], count: int) -> list[int]:
        """Up to `count` tokens after `prompt` and `ids`; none where it has no idea."""
        ...


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
    """Takes the steps of one answer with guesses."""

    def __init__(self, drafter: Drafter, most: int = GUESSES) -> None:
        """At most `most` guesses in a pass."""
        self._drafter, self._most = drafter, most
        self.guessed = self.right = 0
        """Tokens guessed in this answer, and those of them that were right."""

    def step(self, engine: Engine, prompt: list[int], ids: list[int],
             limit: int) -> tuple[Sequence[NDArray[np.float32]] | NDArray[np.float32], list[int]]:
        """Feed the last of `ids` to the engine: logits of it and of each guess after it, and the guesses.

        `limit` is the length at which the answer ends.
        """
        room = min(self._most, limit - len(ids) - 1, engine.context_length - engine.position - 1)
        guesses = self._drafter.propose(prompt, ids, room) if room > 0 else []
        self.guessed += len(guesses)
        return (engine.extend([ids[-1], *guesses]) if guesses else (engine.decode(ids[-1]),)), guesses
