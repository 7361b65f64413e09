"""Text from a decoder: greedy or sampled, streamed, under stop strings or a JSON schema."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

from ..models.errors import UsageError
from ..models.strict import build
from .sampling import Sampler, Sampling, greedy
from .stream import StopStrings

if TYPE_CHECKING:
    from types import TracebackType

    from ..models.artifact import Artifact
    from .constrain import Constraint, Grammars
    from .engine import Engine
    from .text import Codec


@dataclass(frozen=True)
class Generation:
    """An answer and how it came about."""

    text: str
    ids: list[int]
    """The tokens that were made, without the one that ended the turn."""
    prompt_tokens: int
    finish_reason: str
    """stop: a stop token, a stop string or a complete schema; length: the limit of tokens or of the context."""
    ttft_ms: float
    """From the call to the first token: rendering, tokenizing, prefill and choice."""
    decode_tokens_per_s: float
    """Tokens after the first, by the time they took; 0 when there was only one."""


@dataclass(frozen=True)
class Piece:
    """A part of a streamed answer; the last one carries the whole answer's numbers."""

    text: str
    done: Generation | None = None


@dataclass
class _Run:
    """The tokens of one answer, one at a time."""

    engine: Engine
    prompt: Sequence[int]
    limit: int
    stop_ids: frozenset[int]
    choose: Callable[[Any], int]
    constraint: Constraint | None
    started: float
    finish_reason: str = "length"
    ids: list[int] = field(default_factory=list)
    first: float = 0.0
    steps: int = 0

    def __iter__(self) -> Iterator[int]:
        engine, choose, stop_ids, ids = self.engine, self.choose, self.stop_ids, self.ids
        engine.truncate(0)
        engine.reserve(len(self.prompt) + self.limit)
        logits = engine.prefill(self.prompt)
        while True:
            if self.constraint is not None:
                self.constraint.mask(logits)
            token = choose(logits)
            if not self.first:
                self.first = time.perf_counter()
            if token in stop_ids:
                self.finish_reason = "stop"
                return
            ids.append(token)
            if self.constraint is not None:
                self.constraint.accept(token)
            yield token
            if self.constraint is not None and self.constraint.done:
                self.finish_reason = "stop"
                return
            if len(ids) >= self.limit:
                return
            logits = engine.decode(token)
            self.steps += 1

    def generation(self, text: str) -> Generation:
        """The answer so far."""
        seconds = time.perf_counter() - self.first
        return Generation(text, self.ids, len(self.prompt), self.finish_reason, (self.first - self.started) * 1000,
                          self.steps / seconds if self.steps and seconds > 0 else 0.0)


class Generator:
    """A loaded decoder. Not for use by two threads at once: it has one cache."""

    def __init__(self, engine: Engine, codec: Codec, artifact: Artifact | None = None,
                 max_new_tokens: int = 256) -> None:
        """`max_new_tokens` is the default limit of an answer."""
        self.engine, self.codec, self.artifact = engine, codec, artifact
        self._max_new_tokens = max_new_tokens

    def generate(self, prompt: str = "", **options: Any) -> Generation:
        """Answer a prompt, or `messages`; options and errors as in `stream`."""
        done = None
        for piece in self.stream(prompt, **options):
            done = piece.done or done
        assert done is not None  # every stream ends with it
        return done

    def chat(self, messages: Sequence[Mapping[str, Any]], **options: Any) -> Generation:
        """The assistant's next turn in a conversation; options and errors as in `stream`."""
        return self.generate(messages=messages, **options)

    def stream(self, prompt: str = "", *, messages: Sequence[Mapping[str, Any]] | None = None,
               tools: Sequence[Mapping[str, Any]] = (), max_new_tokens: int | None = None, temperature: float = 0.0,
               top_k: int = 0, top_p: float = 1.0, min_p: float = 0.0, seed: int = 0, stop: Sequence[str] = (),
               schema: Mapping[str, Any] | None = None) -> Iterator[Piece]:
        """Answer a prompt, or `messages`, piece by piece; pieces are valid UTF-8 and sum to the answer's text.

        A prompt is the user's turn where the model has a chat template, else plain text to go on from. `stop` are
        texts before which the answer ends. Raises UsageError for settings out of range, a prompt that does not fit
        into the context or a schema that cannot be enforced; MissingExtra for a schema without llguidance.
        """
        started = time.perf_counter()
        if (messages is None) == (not prompt):
            raise UsageError("generate: give a prompt or messages, and not both", "generate('text') or chat([…])")
        sampling = {"temperature": temperature, "top_k": top_k, "top_p": top_p, "min_p": min_p, "seed": seed}
        ids = self.codec.prompt_ids(
            [{"role": "user", "content": prompt}] if messages is None else messages, tools)
        run = self._run(ids, max_new_tokens, sampling, schema, started)
        return self._pieces(run, [stop] if isinstance(stop, str) else stop)

    def generate_ids(self, ids: Sequence[int], max_new_tokens: int | None = None,
                     schema: Mapping[str, Any] | None = None, **sampling: Any) -> Generation:
        """Go on from token ids, without text on either side (`Generation.text` is empty). Errors as in `stream`."""
        run = self._run(ids, max_new_tokens, sampling, schema, time.perf_counter())
        for _ in run:
            pass
        return run.generation("")

    def close(self) -> None:
        """Free the model."""
        self.engine.close()

    def __enter__(self) -> Generator:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:
        self.close()

    @cached_property
    def _grammars(self) -> Grammars:
        from .constrain import Grammars

        return Grammars(self.codec, self.engine.vocabulary_size)

    def _run(self, ids: Sequence[int], max_new_tokens: int | None, sampling: Mapping[str, Any],
             schema: Mapping[str, Any] | None, started: float) -> _Run:
        settings = build(Sampling, sampling, "generate")
        limit = self._max_new_tokens if max_new_tokens is None else max_new_tokens
        if limit < 1:
            raise UsageError(f"max_new_tokens: {limit} is below the limit 1", "use 1 or more")
        room = self.engine.context_length - len(ids)
        if room < 1:
            raise UsageError(f"the prompt has {len(ids)} tokens, the context holds {self.engine.context_length} "
                             "with the answer", "shorten the prompt, or load the model with a larger context")
        constraint = None if schema is None else self._grammars.compile(schema)
        choose = Sampler(settings) if settings.temperature > 0 else greedy
        return _Run(self.engine, ids, min(limit, room), self.codec.stop_ids, choose, constraint, started)

    def _pieces(self, run: _Run, stop: Sequence[str]) -> Iterator[Piece]:
        stream, watch, parts = self.codec.stream(), StopStrings(stop), []
        for token in run:
            text = watch.push(stream.push(token))
            if text:
                parts.append(text)
                yield Piece(text)
            if watch.hit:
                run.finish_reason = "stop"
                break
        text = "" if watch.hit else watch.push(stream.flush())
        text += watch.flush()
        if watch.hit:
            run.finish_reason = "stop"
        parts.append(text)
        yield Piece(text, run.generation("".join(parts)))
