"""Who guesses the tokens of a model's answers, and where that leaves them as they are."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING

from ...models.errors import UsageError
from ..engines._batch_exactness import exact_rows
from .prompt_lookup import Lookup
from .speculation import LONGEST, Draft, Speculator

if TYPE_CHECKING:
    from .generator import Generator
    from .run import Run


class Guessing:
    """The guessers of one model, with what they have learned from answer to answer."""

    def __init__(self, model: Generator) -> None:
        self._model = model
        self._drafts: tuple[Generator, Speculator] | None = None

    def join(self, run: Run, draft: Generator | None) -> None:
        """Let `draft`, or the words before, guess the tokens of an answer that has not begun.

        Whatever is drawn, or told of probabilities, must come from the very numbers of passes without guesses: where
        passes of several rows round otherwise, nothing is guessed then.
        Raises UsageError for a draft that does not fit, and for models that cannot go back.
        """
        speculator = self._speculator(run, draft)
        redone = run.options.temperature == 0 and run.options.logprobs is None
        longest = LONGEST if redone else self._exact_rows - 1
        if longest:
            run.speculator, run.longest, run.doubted = speculator, longest, longest >= self._exact_rows
            run.draft = None if draft is None else draft.engine

    def _speculator(self, run: Run, draft: Generator | None) -> Speculator:
        model, name = self._model, "lookup" if draft is None else "draft"
        if (draft is not None and run.options.lookup) or draft is model:
            raise UsageError("generate: draft and lookup cannot both guess, and a model cannot guess for itself",
                             "give one of them")
        if not all(one.engine.rewinds for one in (model, draft) if one is not None):
            raise UsageError(f"{name}: the model keeps a running state, which cannot go back where a guess is wrong",
                             f"leave out {name}")
        if draft is None:
            return self._lookup
        if self._drafts is None or self._drafts[0] is not draft:
            if draft.codec.tokenizer.get_vocab() != model.codec.tokenizer.get_vocab():
                raise UsageError(f"draft: another vocabulary ({draft.codec.vocabulary_size} tokens, this one has "
                                 f"{model.codec.vocabulary_size})", "draft with a model of the same family")
            self._drafts = draft, Speculator(Draft(draft.engine, model.engine.vocabulary_size))
        return self._drafts[1]

    @cached_property
    def _lookup(self) -> Speculator:
        codec = self._model.codec
        return Speculator(Lookup(lambda token: codec.decode([token], False)))

    @cached_property
    def _exact_rows(self) -> int:
        engine = self._model.engine
        with engine.use.alone():
            return exact_rows(engine, LONGEST + 1)
