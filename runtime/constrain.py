"""Answers that satisfy a JSON schema: every token that would break it is ruled out before one is chosen."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from ..models.errors import EdgestillError, MissingExtra, UsageError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from .text import Codec


class Grammars:
    """Compiles JSON schemas for one tokenizer; the tokenizer's own tables are built once."""

    def __init__(self, codec: Codec, vocabulary_size: int) -> None:
        """`vocabulary_size` is the model's, which may be larger than the tokenizer's.

        Raises MissingExtra without llguidance, UsageError for a tokenizer it cannot read.
        """
        try:
            from llguidance import LLTokenizer
        except ImportError as error:
            raise MissingExtra("llguidance", "structure") from error
        try:
            self._tokenizer = LLTokenizer(codec.tokenizer.to_str(), n_vocab=vocabulary_size,
                                          eos_token=sorted(codec.stop_ids) or None)
        except ValueError as error:
            raise UsageError(f"schema: this model's tokenizer cannot be constrained: {error}",
                             "generate without a schema") from error

    def compile(self, schema: Mapping[str, Any]) -> Constraint:
        """A constraint at its start. UsageError for a schema that is invalid or asks for what cannot be enforced."""
        from llguidance import LLMatcher

        try:
            # Compact JSON: models are trained on it, and blanks cost tokens.
            grammar = LLMatcher.grammar_from_json_schema(json.dumps(schema), overrides={"whitespace_flexible": False})
            problem = LLMatcher.validate_grammar(grammar, self._tokenizer)
        except (TypeError, ValueError) as error:
            problem = str(error)
        if problem:
            raise UsageError(f"schema: {problem}", "correct the JSON schema; an answer is never generated without it")
        return Constraint(LLMatcher(self._tokenizer, grammar, log_level=0), self._tokenizer.vocab_size)


class Constraint:
    """The state of one answer under a schema."""

    def __init__(self, matcher: Any, vocabulary_size: int) -> None:
        """`matcher` is llguidance's, at its start."""
        self._matcher = matcher
        self._words = np.zeros((vocabulary_size + 31) // 32, np.int32)
        self._size = vocabulary_size

    @property
    def done(self) -> bool:
        """Whether the answer is complete and nothing can follow it."""
        return bool(self._matcher.is_stopped())

    def mask(self, logits: NDArray[np.float32]) -> None:
        """Set the logits [vocabulary] of all tokens that break the schema to -inf, in place."""
        self._matcher.unsafe_compute_mask_ptr(self._words.ctypes.data, self._words.nbytes)
        self._check()
        allowed = np.unpackbits(self._words.view(np.uint8), bitorder="little", count=self._size)
        logits[allowed == 0] = -np.inf

    def accept(self, token: int) -> None:
        """Move on by a token that `mask` allowed."""
        self._matcher.consume_token(token)
        self._check()

    def _check(self) -> None:
        if self._matcher.is_error():
            raise EdgestillError(f"schema: the constraint failed: {self._matcher.get_error().splitlines()[0]}",
                                 "simplify the JSON schema")
