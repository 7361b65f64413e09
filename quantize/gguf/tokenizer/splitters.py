"""llama.cpp's names of byte-level splitting rules, and what it does under a name where that is not the same.

A splitter is the list of steps that tokenizer.json's pre-tokenizer takes: regular expressions, each cutting the parts
that the one before left, `digit` for single digits. Source of the names: llama.cpp's table in src/llama-vocab.cpp.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

DIGIT = "digit"
GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
_CASELESS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_CASES = r"(?:'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])"
_BLANKS = r"|\s*[\r\n]+|\s+(?!\S)|\s+"
_SIGNS = r"| ?[^\s\p{L}\p{N}]+[\r\n]*"
_WORDS = r"[^\r\n\p{L}\p{N}]?\p{L}+"
_QWEN = f"{_CASELESS}|{_WORDS}|\\p{{N}}{_SIGNS}{_BLANKS}"
_LLAMA3 = f"{_CASELESS}|{_WORDS}|\\p{{N}}{{1,3}}{_SIGNS}{_BLANKS}"
_UPPER, _LOWER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
_ODD = r"[^\r\n\p{L}\p{N}]?"
_PATHS = r"| ?[^\s\p{L}\p{N}]+[\r\n/]*"
_HAN = r"[一-龥\u3040-\u309F゠-ヿ]+"
_DEEPSEEK = (r"[!\"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+"
             r"| ?[\p{P}\p{S}]+[\r\n]*" + _BLANKS)


def _camel(upper: str, lower: str, ending: str, digits: str) -> str:
    """Words that end where a capital follows a small letter, as GPT-4o and Tekken have them."""
    return f"{_ODD}{upper}*{lower}+{ending}|{_ODD}{upper}+{lower}*{ending}|{digits}{_PATHS}{_BLANKS}"


_UP, _LOW = r"(?:(?=\p{L})[^a-z])", r"(?:(?=\p{L})[^A-Z])"


@dataclass(frozen=True)
class Splitter:
    """One name of llama.cpp's."""

    name: str
    steps: tuple[str, ...]
    """What tokenizer.json says."""
    ignores_merges: bool = False
    """A word that is a token is taken whole, whatever the merges say."""
    llama: tuple[str, ...] = ()
    """What llama.cpp does, where that is not the same."""
    differs: str = ""
    """The class of texts that it splits otherwise."""
    also: tuple[str, ...] = ()
    """Its other names of the same rules, for other models."""


LONG_S = "an apostrophe before the long s"
_MIXED = "marks that combine with letters, and capitals beside letters outside ASCII"
SPLITTERS = (
    Splitter("gpt-2", (GPT2,), also=("phi-2", "gigachat", "mellum", "exaone4", "olmo", "mpt", "jais", "trillion")),
    Splitter("smollm", (DIGIT, GPT2), also=("starcoder", "refact", "command-r", "codeshell", "exaone", "minerva-7b")),
    Splitter("qwen2", (_QWEN,), False, (_QWEN.replace(_CASELESS, _CASES),), LONG_S,
             ("deepseek-r1-qwen", "kormo", "megrez", "stablelm2")),
    Splitter("llama-bpe", (_LLAMA3,), True, (_LLAMA3.replace(_CASELESS, _CASES),), LONG_S,
             ("llama3", "llama-v3", "falcon3", "falcon-h1", "pixtral", "midm-2.0", "lfm2")),
    Splitter("smaug-bpe", (_LLAMA3,), False, (_LLAMA3.replace(_CASELESS, _CASES),), LONG_S),
    Splitter("qwen35", (_QWEN.replace(r"\p{L}+", r"[\p{L}\p{M}]+").replace(r"^\s\p{L}", r"^\s\p{L}\p{M}"),), False,
             (_QWEN.replace(r"\p{L}+", r"[\p{L}\p{M}]+").replace(r"^\s\p{L}", r"^\s\p{L}\p{M}")
              .replace(_CASELESS, _CASES),), LONG_S),
    Splitter("gpt-4o", (_camel(_UPPER, _LOWER, f"{_CASELESS}?", r"\p{N}{1,3}"),), False,
             (_camel(_UP, _LOW, f"{_CASES}?", r"\p{N}{1,3}"),), _MIXED),
    Splitter("tekken", (_camel(_UPPER, _LOWER, "", r"\p{N}"),), True, (_camel(_UP, _LOW, "", r"\p{N}"),), _MIXED),
    Splitter("seed-coder", (f"{_CASELESS}|{_WORDS}|\\p{{N}}{{1}}| ?[^\\s\\p{{L}}\\p{{N}}\\r\\n]+{_BLANKS}",), False,
             (f"{_CASES}|{_WORDS}|\\p{{N}}{{1}}| ?[^\\s\\p{{L}}\\p{{N}}\\r\\n]+{_BLANKS}",), LONG_S),
    Splitter("ufakzeka", (f"{_WORDS}|\\p{{N}}{_SIGNS}{_BLANKS}",)),
    Splitter("deepseek-v3", (r"\p{N}{1,3}", _HAN, _DEEPSEEK)),
    Splitter("deepseek-coder", (r"[\r\n]", r"\s?\p{L}+", r"\s?\p{P}+", "[一-龥ࠀ-一가-퟿]+", DIGIT)),
)
"""The first with the same steps is taken."""


def find(steps: list[str], ignores_merges: bool, merges_suffice: Callable[[], bool]) -> Splitter | None:
    """The splitter of a pre-tokenizer's steps. Whether merges are ignored only matters for a vocabulary with a token
    that its merges do not make."""
    wanted = list(map(canonical, steps))
    same = [splitter for splitter in SPLITTERS if list(map(canonical, splitter.steps)) == wanted]
    exact = [splitter for splitter in same if splitter.ignores_merges == ignores_merges]
    if not exact and same and merges_suffice():
        exact = same
    return exact[0] if exact else None


def named(name: str) -> Splitter | None:
    """The splitter that llama.cpp has under a name."""
    return next((splitter for splitter in SPLITTERS if name in (splitter.name, *splitter.also)), None)


def canonical(regex: str) -> str:
    """A regular expression without the spellings that change nothing.

    A quantifier is possessive only before what it cannot take, and `\\s*` takes line ends before `[\\r\\n]` does.
    """
    regex = re.sub(r"(?<=[?+*])\+|(?<=\d\})\+", "", regex)
    for spelled, plain in (("'(?i:[sdmt]|ll|ve|re)", _CASELESS), (r"|\s*[\r\n]|", r"|\s*[\r\n]+|")):
        regex = regex.replace(spelled, plain)
    return regex
