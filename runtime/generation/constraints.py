"""Answers that satisfy a JSON schema, a regular expression, a list of choices or a grammar: every token that would
break it is ruled out before one is chosen."""

from __future__ import annotations

import importlib
import json
from collections import OrderedDict
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import numpy as np

from ...models.errors import MissingExtra, UsageError
from ..files.import_submodule import submodule

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ..text.codec import Codec

SIZE_LIMIT, NESTING_LIMIT, SYMBOL_LIMIT, KEPT = 262_144, 100, 20_000, 32
"""Most characters and nested brackets of a grammar, most symbols of what it is compiled to (the time for thousands of
optional properties grows with their square), and most compiled grammars that are kept."""
_REASON = 200


class Grammars:
    """Compiles grammars for one tokenizer; the tokenizer's own tables are built once, each grammar once."""

    def __init__(self, codec: Codec, vocabulary_size: int) -> None:
        """`vocabulary_size` is the model's, which may be larger than the tokenizer's.

        Raises MissingExtra without llguidance, UsageError for a tokenizer it cannot read.
        """
        self._library = _library()
        try:
            self._tokenizer = self._library.LLTokenizer(_readable(codec.tokenizer.to_str()), n_vocab=vocabulary_size,
                                                        eos_token=sorted(codec.stop_ids) or None)
        except ValueError as error:
            raise UsageError(f"schema: this model's tokenizer cannot be constrained: {error}",
                             "generate without a schema") from error
        self._compiled: OrderedDict[tuple[str, str], Any] = OrderedDict()

    def compile(self, value: Any, kind: str = "schema") -> Constraint:
        """A constraint at its start; `kind` is one of STRUCTURES, or tools for a grammar of calls.

        UsageError for what is invalid, beyond the limits, or asks for what cannot be enforced.
        """
        key = (kind, _text(kind, value))
        if key not in self._compiled:
            self._compiled[key] = self._matcher(*key)
            if len(self._compiled) > KEPT:
                self._compiled.popitem(last=False)
        self._compiled.move_to_end(key)
        return Constraint(self._compiled[key].deep_copy(), self._tokenizer.vocab_size, kind == "schema")

    def _matcher(self, kind: str, text: str) -> Any:
        depth, library = _nesting(text), self._library
        if len(text) > SIZE_LIMIT or depth > NESTING_LIMIT:
            raise UsageError(f"{kind}: {len(text)} characters with {depth} nested brackets, the limits are "
                             f"{SIZE_LIMIT} and {NESTING_LIMIT}", f"write a smaller {kind}")
        try:
            if kind == "schema":
                # Compact JSON: models are trained on it, and blanks cost tokens.
                grammar = library.LLMatcher.grammar_from_json_schema(text, overrides={"whitespace_flexible": False})
            elif kind == "regex":
                grammar = library.LLMatcher.grammar_from_regex(text)
            else:
                grammar = library.LLMatcher.grammar_from_lark(_lark(kind, text))
            limits = library.LLParserLimits(max_grammar_size=SYMBOL_LIMIT)
            matcher = library.LLMatcher(self._tokenizer, grammar, log_level=0, limits=limits)
            problem = matcher.get_error()
        except (TypeError, ValueError, RecursionError) as error:
            problem = str(error)
        if problem:
            raise UsageError(f"{kind}: {' '.join(problem.split())[:_REASON]}",
                             f"correct the {kind}; an answer is never generated without it")
        return matcher


def _library() -> Any:
    """llguidance, or its compiled module alone: the rest of the package costs 50 ms and is not used here."""
    with suppress(ModuleNotFoundError):
        return submodule("llguidance", "_lib")
    try:
        return importlib.import_module("llguidance")  # another version, which names its module otherwise
    except ModuleNotFoundError as error:
        raise MissingExtra("llguidance", "structure") from error


class Constraint:
    """The state of one answer under a grammar."""

    def __init__(self, matcher: Any, vocabulary_size: int, json: bool) -> None:
        """`matcher` is llguidance's, at its start; `json` says that complete answers are JSON."""
        self._matcher, self.json = matcher, json
        self._words = np.zeros((vocabulary_size + 31) // 32, np.int32)
        self._size = vocabulary_size

    @property
    def done(self) -> bool:
        """Whether the answer is complete and nothing can follow it."""
        return bool(self._matcher.is_stopped())

    @property
    def complete(self) -> bool:
        """Whether the answer may end here."""
        return bool(self._matcher.is_accepting())

    def allows(self, token: int) -> bool:
        """Whether `token` may come next."""
        return bool(self._matcher.validate_tokens([token]))

    def mask(self, logits: NDArray[np.float32]) -> None:
        """Set the logits [vocabulary] of all tokens that break the grammar to -inf, in place."""
        self._matcher.unsafe_compute_mask_ptr(self._words.ctypes.data, self._words.nbytes)
        self._check()
        allowed = np.unpackbits(self._words.view(np.uint8), bitorder="little", count=self._size)
        logits[allowed == 0] = -np.inf

    def accept(self, token: int) -> None:
        """Move on by a token that is allowed."""
        if not self._matcher.consume_token(token):
            self._check()

    def forced(self) -> list[int]:
        """Move on by all tokens that must come next, as the tokenizer writes their text; often there are none."""
        tokens: list[int] = self._matcher.compute_ff_tokens()
        if tokens and not self._matcher.consume_tokens(tokens):
            self._check()
        return tokens

    def _check(self) -> None:
        if self._matcher.is_error():
            raise UsageError(f"the constraint failed: {self._matcher.get_error().splitlines()[0][:_REASON]}",
                             "simplify the schema or grammar")


def _readable(tokenizer: str) -> str:
    """tokenizer.json as llguidance reads it: it knows U+2581 for a blank as a replacement, not as a Metaspace."""
    table = json.loads(tokenizer)
    decoder = table.get("decoder") or {}
    if decoder.get("type") != "Metaspace":
        return tokenizer
    blank = {"type": "Replace", "pattern": {"String": decoder["replacement"]}, "content": " "}
    return json.dumps({**table, "decoder": {"type": "Sequence", "decoders": [
        blank, {"type": "ByteFallback"}, {"type": "Fuse"}]}})


def _text(kind: str, value: Any) -> str:
    """The grammar's source, which is also the name it is kept under."""
    if kind == "choices":
        if not value or not all(isinstance(choice, str) and choice for choice in value):
            raise UsageError(f"choices: {value!r}, texts that are not empty are needed", "give at least one text")
        return json.dumps(value, ensure_ascii=False)
    if kind != "schema":
        return str(value)
    try:
        return json.dumps(value, ensure_ascii=False)
    except (TypeError, ValueError) as error:
        raise UsageError(f"schema: no JSON: {error}",
                         "correct the schema; an answer is never generated without it") from error
    except RecursionError as error:
        raise UsageError(f"schema: nested too deeply, the limit is {NESTING_LIMIT} brackets",
                         "write a smaller schema") from error


def _lark(kind: str, text: str) -> str:
    """A grammar in llguidance's Lark syntax."""
    if kind == "choices":
        return "start: " + " | ".join(json.dumps(choice, ensure_ascii=False) for choice in json.loads(text))
    if kind == "grammar" and "::=" in text:
        from llguidance.gbnf_to_lark import GbnfToLarkError, gbnf_to_lark

        try:
            return str(gbnf_to_lark(text))
        except (GbnfToLarkError, IndexError, AssertionError) as error:
            raise ValueError(f"no GBNF: {error}") from error
    return text


def _nesting(text: str) -> int:
    """Brackets that are open at once, at most; those behind a backslash do not count."""
    depth = deepest = 0
    escaped = False
    for letter in text:
        if escaped:
            escaped = False
        elif letter == "\\":
            escaped = True
        elif letter in "([{":
            depth += 1
            deepest = max(deepest, depth)
        elif letter in ")]}":
            depth -= 1
    return deepest
