"""The tokens of one answer, one at a time."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from ...models.errors import EdgestillError, UsageError
from .context_shift import common, shifted
from .logprobs import TokenLogprob, token_logprob
from .options import Options
from .sampling import Chooser, greedy, lead

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from ..engines._base import Engine
    from ..engines._exclusive_use import Use
    from .constraints import Constraint
    from .prompt_cache import Prefix
    from .speculation import Speculator

NEAR = 0.1
"""Nats between the likeliest two tokens below which a pass over several rows may have them the other way round: over
10,000 tokens in onnxruntime their distance differed by up to .07."""
_PIECE = 128
"""Tokens of a prompt between two looks at whether the answer is still wanted; whole blocks of every engine."""


class Cancel(Protocol):
    """Says that an answer is no longer wanted, such as a threading.Event."""

    def is_set(self) -> bool:
        """Whether to stop."""
        ...


@dataclass
class Run:
    """One answer in the making; iterating it yields its tokens."""

    engine: Engine
    prompt: list[int]
    limit: int
    stop_ids: frozenset[int]
    options: Options
    constraint: Constraint | None
    started: float
    head: Callable[[], int]
    """Leading tokens of the prompt that a shifted context keeps."""
    cancel: Cancel | None = None
    prefix: Prefix | None = None
    speculator: Speculator | None = None
    draft: Engine | None = None
    """Guesses, and is as busy as `engine` meanwhile."""
    doubted: bool = False
    """Whether passes with guesses round otherwise: tokens that are nearly as likely are then chosen again without."""
    finish_reason: str = "length"
    ids: list[int] = field(default_factory=list)
    steps: int = 0
    """Tokens that were made after the first, the one that ended the turn included."""
    logprobs: list[TokenLogprob] = field(default_factory=list)
    cached: int = 0
    """Tokens of the prompt that were in the cache already."""
    first: float = 0.0
    last: float = 0.0

    def __post_init__(self) -> None:
        """UsageError for options that name tokens which do not exist."""
        size, last = self.engine.vocabulary_size, max(self.options.stop_ids, default=0)
        if last >= size:
            raise UsageError(f"generate.stop_ids: token {last}, the vocabulary has {size}",
                             "give token ids of this model")
        self._chooser = Chooser(self.options, self.constraint, self.prompt, self.engine.vocabulary_size)

    def __iter__(self) -> Generator[int, None, None]:
        uses = [engine.use for engine in (self.engine, self.draft) if engine is not None]
        with ExitStack() as held:
            for use in uses:
                held.enter_context(use.answer())
            held.callback(self.engine.rest)
            tokens = self._tokens()
            while (token := self._next(tokens, *uses)) is not None:
                yield token

    def _next(self, tokens: Iterator[int], use: Use, *others: Use) -> int | None:
        with use.passing:
            use.check()
            if others:
                return self._next(tokens, *others)
            try:
                return next(tokens, None)
            except BaseException:  # an interrupt may come in the middle of a pass: what the cache holds is unknown
                with suppress(EdgestillError):
                    self.engine.truncate(0)
                raise

    def _tokens(self) -> Iterator[int]:
        engine, stop_ids, ids, constraint = self.engine, self.stop_ids, self.ids, self.constraint
        choose = greedy if self._chooser.plain else self._chooser
        accept = None if self._chooser.plain else self._chooser.accept
        top = self.options.logprobs
        first = self._begin()
        if first is None:
            return
        rows: Any = (first,)
        place = drafts = 0  # guesses of the last pass that turned out right, and all of them
        guesses: Sequence[int] = ()
        sure, doubt = engine.position, False  # the cache is as without guesses up to here
        since: list[Sequence[int]] = []  # what was said from there on
        while True:
            logits = rows[place]
            raw = None if top is None else logits.copy()
            token = choose(logits)
            if doubt and lead(logits, token) < NEAR:
                rows, place, drafts = (self._again(sure, since, place if drafts else 0),), 0, 0
                sure, since, doubt = engine.position, [], False
                token = choose(rows[0])
            self.last = time.perf_counter()
            if not self.first:
                self.first = self.last
            self.steps = len(ids)
            if token in stop_ids:
                self.finish_reason = "stop"
                return
            if accept is not None:
                accept(token)
            if raw is not None:
                self.logprobs.append(token_logprob(raw, token, top or 0))
            made: tuple[int, ...] = (token,)
            if constraint is not None and raw is None:
                forced = constraint.forced()
                self._chooser.note(forced)
                made = (token, *forced)
            feed: list[int] = []
            said = made[:self.limit - len(ids)]
            if self.doubted:
                since.append(said)
            for token in said:
                ids.append(token)
                yield token
                if place < drafts and not feed and guesses[place] == token:
                    place += 1  # the cache holds it already
                else:
                    feed.append(token)
            if constraint is not None and constraint.done and len(said) == len(made):
                self.finish_reason = "stop"
                return
            if len(ids) >= self.limit:
                return
            if self.cancel is not None and self.cancel.is_set():
                self.finish_reason = "cancelled"
                return
            if not feed:
                continue
            if drafts and self.speculator is not None:
                self.speculator.right += place
                if place < drafts:
                    engine.truncate(engine.position - (drafts - place))
                place = drafts = 0
            if engine.position + len(feed) > engine.context_length:
                feed, doubt = self._shift(feed), False
            if len(feed) > 1:
                rows = (engine.prefill(feed),)
            elif self.speculator is None:
                rows = (engine.decode(token),)
            else:
                rows, guesses = self.speculator.step(engine, self.prompt, ids, self.limit)
                drafts = len(guesses)
                doubt |= self.doubted and drafts > 0
            if self.doubted and not doubt:
                sure, since = engine.position, []

    def _again(self, sure: int, since: Sequence[Sequence[int]], right: int) -> NDArray[np.float32]:
        """Read what was said since `sure` again, in the passes of an answer without guesses; logits of the last token.
        `right` guesses of a last pass were right."""
        assert self.speculator is not None  # or there would be no doubt
        self.speculator.right += right
        self.engine.truncate(sure)
        for said in since:
            logits = self.engine.decode(said[0]) if len(said) == 1 else self.engine.prefill(said)
        return logits

    def _begin(self) -> NDArray[np.float32] | None:
        """Read the prompt, or what the cache lacks of it; logits of its last token, None when it is cancelled."""
        engine, prompt = self.engine, self.prompt
        exact = self.options.reuse != "all"
        usable = 0 if self.options.reuse == "none" else min(common(engine.held, prompt), len(prompt) - 1)
        engine.rewind(usable, exact)
        if self.prefix is not None:
            shared = min(common(self.prefix.ids, prompt), len(prompt) - 1)
            if shared > engine.position:
                self.prefix.restore(engine)
                engine.rewind(shared, exact)
        self.cached = engine.position
        engine.reserve(min(len(prompt) + self.limit, engine.context_length))
        rest, logits = prompt[self.cached:], None
        size = len(rest) if self.cancel is None else _PIECE
        for start in range(0, len(rest), size):
            if self.cancel is not None and self.cancel.is_set():
                self.finish_reason = "cancelled"
                return None
            logits = engine.prefill(rest[start:start + size])
        return logits

    def _shift(self, feed: list[int]) -> list[int]:
        """Forget the oldest half of what the cache holds behind the head; what is to be read now, `feed` at its end."""
        kept = shifted([*self.engine.held, *feed], self.head(), self.engine.context_length)
        self.engine.rewind(min(common(self.engine.held, kept), len(kept) - 1))
        return kept[self.engine.position:]
