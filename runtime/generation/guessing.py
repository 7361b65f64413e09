"""Who guesses the tokens of a model's answers, and where that leaves them as they are."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING

from ...models.errors import UsageError
from ..engines._batch_exactness import exact_rows
from .prompt_lookup import Lookup
from .speculation import GUESSES, Draft, Speculator

if TYPE_CHECKING:
    from ...models.artifact import Artifact
    from ..engines._base import Engine
    from ..text.codec import Codec
    from .run import Run

SMALLEST = 50_000_000
"""Parameters below which a token costs too little for the prompt to be searched: lookup is off."""


class Guessing:
    """Lets a draft, or the text before, guess the answers of one engine."""

    def __init__(self, engine: Engine, codec: Codec, artifact: Artifact | None) -> None:
        """The model's, which says how many parameters it has."""
        self._engine, self._codec = engine, codec
        self._parameters = artifact.manifest.dimensions.get("parameters") if artifact is not None else None

    def join(self, run: Run, draft: Engine | None = None, codec: Codec | None = None) -> None:
        """Let `draft`, whose codec is `codec`, or the text before guess the tokens of an answer that has not begun.

        Whatever is drawn, or told of probabilities, must come from the very numbers of passes without guesses: where
        passes of several rows round otherwise, nothing is guessed then.
        Raises UsageError for a draft that does not fit, and for models that cannot go back.
        """
        if draft is not None and (run.options.lookup or draft is self._engine):
            raise UsageError("generate: draft and lookup cannot both guess, and a model cannot guess for itself",
                             "give one of them")
        if codec is not None and codec.tokenizer.get_vocab() != self._codec.tokenizer.get_vocab():
            raise UsageError(f"draft: another vocabulary ({codec.vocabulary_size} tokens, this one has "
                             f"{self._codec.vocabulary_size})", "draft with a model of the same family")
        if not all(one.rewinds for one in (self._engine, draft) if one is not None):
            name = "lookup" if draft is None else "draft"
            raise UsageError(f"{name}: the model keeps a running state, which cannot go back where a guess is wrong",
                             f"leave out {name}")
        if draft is None and self._parameters is not None and self._parameters < SMALLEST:
            return
        redone = run.options.temperature == 0 and run.options.logprobs is None
        most = GUESSES if redone else self._exact_rows - 1
        if most:
            drafter = Lookup() if draft is None else Draft(draft, self._engine.vocabulary_size)
            run.speculator, run.doubted, run.draft = Speculator(drafter, most), most >= self._exact_rows, draft

    @cached_property
    def _exact_rows(self) -> int:
        with self._engine.use.alone():
            return exact_rows(self._engine, GUESSES + 1)
