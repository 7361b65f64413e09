"""Text from a decoder: greedy or sampled, streamed, under stop strings, a schema or a grammar."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

from ...models.errors import ContextError, UsageError
from ..data.answers import apart
from ..engines._base import EXTEND, check_ids
from ..text.token_stream import StopStrings
from .context_shift import common, shifted
from .logprobs import Places, TokenLogprob, token_logprob
from .options import Options
from .result import Generation, Piece, generation, parsed
from .run import Cancel, Run

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

    from ...models.artifact import Artifact
    from ..engines._base import Engine
    from ..text.codec import Codec
    from ..text.tool_calls import ToolCall, ToolFormat
    from .constraints import Constraint, Grammars
    from .guessing import Guessing
    from .prompt_cache import Prefix

Messages = Sequence[Mapping[str, Any]]


class Generator:
    """A loaded decoder with one cache: while it makes an answer, whoever asks it for another gets a UsageError."""

    def __init__(self, engine: Engine, codec: Codec, artifact: Artifact | None = None,
                 max_new_tokens: int = 256) -> None:
        """`max_new_tokens` is the default limit of an answer."""
        self.engine, self.codec, self.artifact = engine, codec, artifact
        self._max_new_tokens = max_new_tokens

    @property
    def threads(self) -> int:
        """Threads that the engine computes with."""
        return self.engine.threads

    def generate(self, prompt: str = "", **options: Any) -> Generation:
        """Answer a prompt, or `messages`; options and errors as in `stream`."""
        done = None
        for piece in self.stream(prompt, **options):
            done = piece.done or done
        assert done is not None  # every stream ends with it
        return done

    def chat(self, messages: Messages, **options: Any) -> Generation:
        """The assistant's next turn in a conversation; options and errors as in `stream`."""
        return self.generate(messages=messages, **options)

    def generate_all(self, prompts: Sequence[str | Messages], n: int = 1, **options: Any) -> list[Generation]:
        """Answer several prompts (texts or conversations) one after the other, each `n` times, those of one prompt
        together and drawn with the seeds from `seed` on. Options and errors as in `stream`."""
        if n < 1:
            raise UsageError(f"generate.n: {n} is below the limit 1", "use 1 or more")
        seed = Options.of({"seed": options.pop("seed", 0)}).seed
        return [self.generate(prompt, seed=seed + draw, **options) if isinstance(prompt, str)
                else self.chat(prompt, seed=seed + draw, **options) for prompt in prompts for draw in range(n)]

    def stream(self, prompt: str = "", *, messages: Messages | None = None, tools: Messages = (),
               prefix: Prefix | None = None, draft: Generator | None = None, cancel: Cancel | None = None,
               **options: Any) -> Iterator[Piece]:
        """Answer a prompt, or `messages`, piece by piece; pieces are valid UTF-8 and sum to the answer's text.

        A prompt is the user's turn where the model has a chat template, else plain text to go on from. `prefix` comes
        before either. `draft` is a smaller model of the same vocabulary whose guesses are checked; the answer stays
        this model's. The fields of `Options` are `options`. The answer ends early when the iterator is closed or
        `cancel` is set; until then the model makes no other one.
        Raises UsageError for settings out of range, a prompt that does not fit into the context or a structure that
        cannot be enforced; MissingExtra for a structure without llguidance.
        """
        started = time.perf_counter()
        if (messages is None) == (not prompt):
            raise UsageError("generate: give a prompt or messages, and not both", "generate('text') or chat([…])")
        chat = [{"role": "user", "content": prompt}] if messages is None else _checked(messages)
        if prefix is not None:
            self._check_prefix(prefix, "prefix")
            chat = prefix.joined(chat)
        settings = Options.of(options)
        tools = () if settings.tool_choice == "none" else tools
        if settings.overflow == "refuse":
            texts = (text for message in chat if isinstance(text := message.get("content"), str))
            self.codec.check_length(sum(map(len, texts)), self.engine.context_length)
        constraint = self._constraint(settings, bool(tools), tools)
        # What binds an answer leaves no room for thoughts before it.
        ids = self.codec.prompt_ids(chat, tools, settings.template_options, direct=constraint is not None)
        run = self._run(ids, settings, constraint, started, cancel, chat)
        run.prefix = prefix
        self._let_guess(run, draft)
        return self._pieces(run, None if tools else settings.schema)

    def generate_ids(self, ids: Sequence[int], max_new_tokens: int | None = None, *, draft: Generator | None = None,
                     cancel: Cancel | None = None, **options: Any) -> Generation:
        """Go on from token ids, without text on either side (`Generation.text` is empty, `stop` is not looked for,
        the task's schema does not bind). Options and errors as in `stream`."""
        settings = Options.of({**options, "max_new_tokens": max_new_tokens})
        run = self._run(list(ids), settings, self._constraint(settings, True), time.perf_counter(), cancel)
        self._let_guess(run, draft)
        for _ in run:
            pass
        return generation(run, "")

    def stream_ids(self, ids: Sequence[int], *, cancel: Cancel | None = None, **options: Any) -> Iterator[Piece]:
        """Go on from token ids piece by piece; the task's schema does not bind. Options and errors as in `stream`."""
        settings = Options.of(options)
        run = self._run(list(ids), settings, self._constraint(settings, True), time.perf_counter(), cancel)
        self._let_guess(run, None)
        return self._pieces(run, settings.schema)

    def prefix(self, text: str = "", *, messages: Messages | None = None, tools: Messages = ()) -> Prefix:
        """Read the beginning of prompts once: a text before the user's words, or the first messages of conversations.

        Give it to later calls as `prefix`, with the same tools; `Prefix.save` keeps it in a file. Errors as in
        `stream`.
        """
        from .prompt_cache import Prefix

        if (messages is None) == (not text):
            raise UsageError("prefix: give a text or messages, and not both", "prefix('text') or prefix(messages=[…])")
        found = Prefix(text, [dict(message) for message in messages or ()], [], [], self._digest)
        # Whatever is asked, these tokens come first.
        asked = [self.codec.prompt_ids(found.joined([{"role": "user", "content": word}]), tools) for word in "a0\n"]
        size = min(common(asked[0], other) for other in asked[1:])
        ids = asked[0][:size // self.engine.block * self.engine.block]
        with self.engine.use.alone():
            self.engine.truncate(0)
            if ids:
                self.engine.prefill(ids)
            return replace(found, ids=ids, arrays=self.engine.saved())

    def load_prefix(self, path: Path | str) -> Prefix:
        """What `Prefix.save` wrote; UsageError for another model's, ArtifactError for a damaged file."""
        from .prompt_cache import Prefix

        found = Prefix.load(path)
        self._check_prefix(found, str(path))
        return found

    def tool_calls(self, answer: Generation) -> tuple[str, list[ToolCall]]:
        """The words before the first tool call of an answer, and its calls; what it thought of before is neither.
        Raises UsageError for a template that writes none or in an unknown form, DataError for a call that is broken.
        """
        return self.tool_format.parse(apart(self.codec, answer.ids, answer.text)[2])

    def score(self, ids: Sequence[int], top: int = 0, cancel: Cancel | None = None,
              ahead: bool = False) -> list[TokenLogprob]:
        """Log-probabilities of `ids` after the first, each given those before it, with the `top` likeliest tokens;
        with `ahead` also of the likeliest token after them. Those so far when `cancel` is set."""
        check_ids(ids, 0, self.engine.context_length, self.engine.vocabulary_size)
        scores: list[TokenLogprob] = []
        with self.engine.use.alone():
            self.engine.truncate(0)
            for start in range(0, len(ids) - 1, EXTEND):
                if cancel is not None and cancel.is_set():
                    return scores
                rows = self.engine.extend(ids[start:min(start + EXTEND, len(ids) - 1)])
                scores += [token_logprob(row, token, top) for row, token in zip(rows, ids[start + 1:], strict=False)]
            if ahead:
                logits = self.engine.decode(ids[-1])
                scores.append(token_logprob(logits, int(logits.argmax()), top))
        return scores

    def logits(self, ids: Sequence[int]) -> NDArray[np.float32]:
        """Logits [n, vocabulary] of `ids`, each given those before it."""
        with self.engine.use.alone():
            return self.engine.logits(ids)

    def close(self) -> None:
        """Free the model, once the pass it computes is over: an answer that is not whole ends in a UsageError, as
        does whatever is asked of the model afterwards."""
        self.engine.close()

    def __enter__(self) -> Generator:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    @cached_property
    def _grammars(self) -> Grammars:
        from .constraints import Grammars

        return Grammars(self.codec, self.engine.vocabulary_size)

    @property
    def tool_format(self) -> ToolFormat:
        """How the model writes tool calls; errors as in `tool_calls`."""
        return self.codec.tool_format

    @cached_property
    def _schema(self) -> dict[str, Any] | None:
        from .structure import task_schema

        return task_schema(self.artifact)

    @cached_property
    def _digest(self) -> str:
        from .prompt_cache import model_digest

        return model_digest(self.artifact)

    def _check_prefix(self, prefix: Prefix, name: str) -> None:
        if prefix.model != self._digest:
            raise UsageError(f"{name}: made by another model or version of its engine ({prefix.model[:12]}…, this "
                             f"one is {self._digest[:12]}…)", "make it again with this model: model.prefix(…)")

    def _let_guess(self, run: Run, draft: Generator | None) -> None:
        if draft is not None or run.options.lookup:
            self._guessing.join(run, *((draft.engine, draft.codec) if draft is not None else ()))

    @cached_property
    def _guessing(self) -> Guessing:
        from .guessing import Guessing

        return Guessing(self.engine, self.codec, self.artifact)

    def _constraint(self, options: Options, free: bool, tools: Messages = ()) -> Constraint | None:
        """What binds the answer; the task's schema does not when it is `free`."""
        from .structure import structure
        from .tool_grammar import grammar

        if options.called is not None:
            if not tools:
                raise UsageError("generate.tool_choice: there are no tools to choose from", "give tools")
            calls = grammar(self.tool_format, self.codec, tools, options.called, options.parallel_tool_calls)
            return self._grammars.compile(calls, "tools")
        found = structure(options, None if free else self._schema)
        if tools and found is not None and found[0] == "schema":  # an answer of calls, or else one of this schema
            calls = grammar(self.tool_format, self.codec, tools, "", options.parallel_tool_calls, found[1])
            return self._grammars.compile(calls, "tools")
        return None if found is None else self._grammars.compile(found[1], found[0])

    def _run(self, ids: list[int], options: Options, constraint: Constraint | None, started: float,
             cancel: Cancel | None, chat: Messages | None = None) -> Run:
        limit = self._max_new_tokens if options.max_new_tokens is None else options.max_new_tokens
        size = self.engine.context_length

        def head() -> int:
            """Tokens before the first words of a conversation that are not the system's."""
            if chat is None:
                return int(ids[:1] == [self.codec.bos_id])
            kept = [message for message in chat[:1] if message.get("role") == "system"]
            return common(ids, self.codec.prompt_ids([*kept, {"role": "user", "content": "\n\n"}]))

        if options.overflow == "shift":
            ids = shifted(ids, head(), size) if len(ids) + 1 > size else ids
        elif len(ids) + 1 > size:
            raise ContextError(f"the prompt has {len(ids)} tokens, the context holds {size} with the answer",
                               "shorten the prompt, load the model with a larger context, or use overflow='shift'",
                               size)
        else:
            limit = min(limit, size - len(ids))
        check_ids(ids, 0, size, self.engine.vocabulary_size)
        return Run(self.engine, ids, limit, self.codec.stop_ids.union(options.stop_ids), options, constraint, started,
                   head, cancel)

    def _pieces(self, run: Run, schema: Any) -> Iterator[Piece]:
        stream, parts, shown, marks, places = self.codec.stream(), [], 0, self.codec.marks, Places(self.codec)
        watch = StopStrings((*run.options.stop, self.codec.turn_end))
        with closing(iter(run)) as tokens:
            for token in tokens:
                if run.logprobs:
                    run.logprobs[-1] = replace(run.logprobs[-1], offset=places.push(token))
                text = watch.push(stream.push(token), marks.get(token, ""))
                if text:
                    parts.append(text)
                    yield Piece(text, None, run.logprobs[shown:])
                    shown = len(run.logprobs)
                if watch.hit:
                    run.finish_reason = "stop"
                    break
        text = ("" if watch.hit else watch.push(stream.flush())) + watch.flush()
        if watch.hit:
            run.finish_reason = "stop"
        parts.append(text)
        done = generation(run, "".join(parts))
        if run.constraint is not None and run.constraint.json and run.constraint.complete and not watch.hit:
            done = replace(done, parsed=parsed(done.text, schema))
        yield Piece(text, done, run.logprobs[shown:])


def _checked(messages: Any) -> Messages:
    if isinstance(messages, Sequence) and all(isinstance(message, Mapping) for message in messages):
        return messages
    raise UsageError(f"messages: {str(messages)[:60]!r} is no list of messages",
                     'write [{"role": "user", "content": "…"}]')
