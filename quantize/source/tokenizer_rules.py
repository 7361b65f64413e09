"""What a GGUF file says of a tokenizer, and which texts llama.cpp then tokenizes otherwise than tokenizers does."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ...models.errors import ArtifactError

BLANK = "\N{LOWER ONE EIGHTH BLOCK}"


@dataclass(frozen=True)
class Difference:
    """A class of texts that llama.cpp tokenizes otherwise, since it has no equal of one of the tokenizer's rules."""

    name: str
    holds: Callable[[Sequence[str]], bool]
    """Of a text's pieces: before, between and behind its added tokens, the empty ones too."""
    rare: bool = False
    """Nobody needs to be told: it hardly occurs."""


@dataclass(frozen=True)
class Rules:
    """How llama.cpp must tokenize."""

    model: str
    """`gpt2` for byte-level BPE, `llama` for SentencePiece-style BPE, `bert` for WordPiece, `t5` for Unigram."""
    pre: str
    merges: list[str] = field(default_factory=list)
    scores: Mapping[str, float] = field(default_factory=dict)
    bytes: frozenset[str] = frozenset()
    spelled: Mapping[str, str] = field(default_factory=dict)
    """Tokens whose text in the file is another than in tokenizer.json."""
    flags: Mapping[str, bool] = field(default_factory=dict)
    """Settings below `tokenizer.ggml.`."""
    charsmap: Sequence[int] = b""
    """The normalizer as a table, in SentencePiece's form: bytes."""
    differences: tuple[Difference, ...] = ()


def steps(rule: Mapping[str, Any] | None, key: str = "pretokenizers") -> list[Mapping[str, Any]]:
    """A normalizer or pre-tokenizer as a flat list."""
    if rule is None:
        return []
    if rule["type"] == "Sequence":
        return [step for part in rule[key] for step in steps(part, key)]
    return [rule]


def short(rule: Mapping[str, Any]) -> str:
    """A rule on one line."""
    return ", ".join(f"{key} {value!r}" for key, value in rule.items())


def refused(what: str, wanted: str) -> ArtifactError:
    """The error for a rule that llama.cpp cannot carry."""
    return ArtifactError(f"tokenizer.json has {what}; llama.cpp carries only {wanted}",
                         "export to ONNX, which keeps tokenizer.json as it is, or take a tokenizer of a known kind")
