"""An answer, whole or in pieces, and how it came about."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from ...models.errors import DataError
from .logprobs import TokenLogprob
from .run import Run


@dataclass(frozen=True)
class Generation:
    """An answer and how it came about."""

    text: str
    ids: list[int]
    """The tokens that were made, without the one that ended the turn."""
    prompt_tokens: int
    finish_reason: str
    """stop: a stop token, a stop string or a complete structure; length: the limit of tokens or of the context;
    cancelled: by the caller."""
    ttft_ms: float
    """From the call to the first token: rendering, tokenizing, prefill and choice."""
    decode_tokens_per_s: float
    """Tokens after the first, by the time they took; 0 when there was only one."""
    cached_tokens: int = 0
    """Tokens of the prompt that had been read before."""
    guessed_tokens: int = 0
    accepted_tokens: int = 0
    """Tokens that speculation guessed, and those of them that were right."""
    logprobs: list[TokenLogprob] = field(default_factory=list)
    """One a token, where they were asked for."""
    parsed: Any = None
    """The answer as a value (of the class that was given as schema) once it is complete JSON."""


@dataclass(frozen=True)
class Piece:
    """A part of a streamed answer; the last one carries the whole answer's numbers."""

    text: str
    done: Generation | None = None
    logprobs: Sequence[TokenLogprob] = ()
    """Of the tokens since the piece before, where they were asked for."""


def generation(run: Run, text: str) -> Generation:
    """The answer so far."""
    seconds, guesses = run.last - run.first, run.speculator
    return Generation(text, run.ids, len(run.prompt), run.finish_reason, max(0.0, run.first - run.started) * 1000,
                      run.steps / seconds if run.steps and seconds > 0 else 0.0, run.cached,
                      guesses.guessed if guesses else 0, guesses.right if guesses else 0, run.logprobs)


def parsed(text: str, schema: Any) -> Any:
    """A complete answer as a value: of the pydantic class `schema`, or what its JSON says; None for other text."""
    import json

    if not hasattr(schema, "model_validate_json"):
        try:
            return json.loads(text)
        except ValueError:
            return None
    try:
        return schema.model_validate_json(text)
    except ValueError as error:
        raise DataError(f"the answer satisfies the JSON schema of {schema.__name__} and not the class: {error}",
                        "say in the schema what the class checks, or read Generation.text") from error
