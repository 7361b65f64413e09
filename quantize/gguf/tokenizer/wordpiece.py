"""BERT's WordPiece as llama.cpp has it.

llama.cpp cuts a text into words by itself (no rule of it stands in the file), marks a word's first piece with U+2581
where tokenizer.json marks the pieces behind it with `##`, and takes the longest known piece each time, as tokenizers
does. Its cutting differs for some characters, which are found here one by one.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Mapping
from functools import cache
from typing import TYPE_CHECKING, Any

from ...source.tokenizer_rules import BLANK, Difference, Rules, refused, short

if TYPE_CHECKING:
    from tokenizers import Tokenizer

_IDEOGRAPHS = ((0x3400, 0x4DBF), (0x4E00, 0x9FFF), (0xF900, 0xFAFF), (0x20000, 0x2A6DF), (0x2A700, 0x2B73F),
               (0x2B740, 0x2B81F), (0x2B920, 0x2CEAF), (0x2F800, 0x2FA1F))


def rules(table: Mapping[str, Any], tokenizer: Tokenizer) -> Rules:
    """The rules of a WordPiece tokenizer.json; ArtifactError naming the one that llama.cpp has no equal for."""
    model, normalizer = table["model"], table.get("normalizer") or {"type": None}
    if normalizer["type"] != "BertNormalizer":
        raise refused(f"WordPiece with the normalizer {short(normalizer)}", "BertNormalizer")
    for key in ("clean_text", "handle_chinese_chars"):
        if not normalizer.get(key, True):
            raise refused(f"a BertNormalizer with {key} = false", f"{key} = true")
    if (table.get("pre_tokenizer") or {}).get("type") != "BertPreTokenizer":
        raise refused(f"WordPiece with the pre-tokenizer {table.get('pre_tokenizer')}", "BertPreTokenizer")
    lowercase = bool(normalizer.get("lowercase", True))
    strip = normalizer.get("strip_accents")
    strip = lowercase if strip is None else bool(strip)
    for token in table["added_tokens"]:
        if token["normalized"] and lowercase and token["content"].upper() != token["content"].lower():
            raise refused(f"the added token {token['content']!r} that is also found in capitals", "normalized = false")
    added = {token["content"] for token in table["added_tokens"]}
    prefix, limit = model["continuing_subword_prefix"], model["max_input_chars_per_word"]
    spelled = {token: _spelled(token, prefix) for token in model["vocab"] if token not in added}

    def too_long(text: str) -> bool:
        return len(text) > limit and any(len(word) > limit for word in _words(tokenizer, text))
    odd = _odd(tokenizer, lowercase, strip)
    names = ", Hangul, spacing vowel signs" if strip else ""
    return Rules("bert", "default", spelled=spelled, differences=(
        Difference(f"characters that llama.cpp cuts or cleans otherwise (rare controls and punctuation{names})",
                   lambda pieces: any(map(odd, set("".join(pieces))))),
        Difference(f"words of more than {limit} characters, which become the unknown token",
                   lambda pieces: any(map(too_long, pieces)))),
        flags={"normalizer.lowercase": lowercase, "normalizer.strip_accents": strip})


def _spelled(token: str, prefix: str) -> str:
    """A token's text in the file. A piece that holds U+2581 would be taken for a word's first: it stays unreachable."""
    if not token.startswith(prefix) or len(token) == len(prefix):
        return BLANK + token
    return token if BLANK in token else token[len(prefix):]


def _words(tokenizer: Tokenizer, text: str) -> list[str]:
    return [word for word, _ in tokenizer.pre_tokenizer.pre_tokenize_str(tokenizer.normalizer.normalize_str(text))]


def _odd(tokenizer: Tokenizer, lowercase: bool, strip: bool) -> Callable[[str], bool]:
    """Whether a character between two letters makes other words in llama.cpp than in tokenizers."""
    @cache
    def odd(character: str) -> bool:
        return character == BLANK or _words(tokenizer, f"a{character}b") != _llama_words(character, lowercase, strip)
    return odd


def _llama_words(character: str, lowercase: bool, strip: bool) -> list[str]:
    """What llama.cpp makes of a character between a and b, written from its behaviour on every code point.

    It strips accents by keeping the first character of the decomposition, and strips marks of every kind.
    """
    if character.isspace() and character not in "\x1c\x1d\x1e\x1f":
        return ["a", "b"]
    first = unicodedata.normalize("NFD", character)[0] if strip else character
    kind = unicodedata.category(first)[0]
    if first == "\ufffd" or kind == "C" or (strip and kind == "M"):
        return ["ab"]
    shown = first.lower()[0] if lowercase else first
    alone = kind == "P" or (kind == "S" and first.isascii()) or any(
        low <= ord(first) <= high for low, high in _IDEOGRAPHS)
    return ["a", shown, "b"] if alone else [f"a{shown}b"]
