"""Unigram (T5, XLM-RoBERTa, ALBERT, Pegasus …): the cut of a text with the highest sum of its tokens' scores.

llama.cpp cuts in the same way. It normalizes by a table of characters, writes blanks as U+2581, and either keeps every
blank or one before each word. It has no other rules, so what it makes of a text is worked out here beside what the
tokenizer makes of it, and texts where the two are not the same are told apart by the reason.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Mapping, Sequence
from functools import cache, lru_cache
from typing import TYPE_CHECKING, Any

from ...source.corpus import TEXTS
from ...source.tokenizer_rules import BLANK, Difference, Rules, refused, short, steps
from .charsmap import Charsmap
from .sentencepiece import BYTES

if TYPE_CHECKING:
    from tokenizers import Tokenizer

BLANKS = "".join(map(chr, (9, 10, 11, 12, 13, 32, 0x85, 0xA0, 0x1680, *range(0x2000, 0x200B), 0x2028, 0x2029, 0x202F,
                           0x205F, 0x3000)))
"""What tokenizers takes for blanks."""
LONGEST_RUN = 32
"""Blanks in a row that the table makes one of."""
NEVER = "\U0010ffff"
"""Begins the name of a token that no text holds."""
RARE = 0.02
"""A reason for less than this share of the corpus's texts is a rare one."""

_SIGNS = "characters that its normalizer changes only together, or by what stands beside them"
_ENDS = "blanks at the ends of a text, several in a row or behind an added token, and U+2581 itself"
_BYTES = "characters without a token, which the tokenizer writes as bytes and llama.cpp as the unknown token"
_SPECIAL = "the text of a special token that only the normalizer makes, or of a token for a byte"
_UNKNOWN = "characters without a token that are part of longer tokens, or side by side in several words"
_SCORES = "two cuts with scores so near that single precision cannot tell them apart"
_BESIDE = "blanks that are no blanks to llama.cpp, beside an added token that takes them"
REASONS = (_SIGNS, _ENDS, _BYTES, _SPECIAL, _UNKNOWN, _SCORES)

CHANGING = ("Precompiled", "Replace", "NFC", "NFD", "NFKC", "NFKD", "Nmt", "Lowercase", "StripAccents")
"""Normalizers that a table can stand for."""


def rules(table: Mapping[str, Any], tokenizer: Tokenizer, has_template: bool) -> Rules:
    """The rules of a Unigram tokenizer.json; ArtifactError naming the one that llama.cpp has no equal for."""
    model = table["model"]
    if model.get("unk_id") is None:
        raise refused("a Unigram model without an unknown token", "one with it")
    scheme = _scheme(table)
    further = steps(table.get("normalizer"), "normalizers")
    words = any(step["type"] == "WhitespaceSplit" for step in steps(table.get("pre_tokenizer")))
    prefix = scheme == "always" or (scheme == "first" and not has_template) or any(
        step["type"] == "Prepend" for step in further)
    merge = prefix and _written(tokenizer, "a  b") == _written(tokenizer, "a b")
    charsmap, packed = _charsmap(json.dumps([step for step in further if step["type"] in CHANGING]), words, merge)
    if scheme is None and charsmap.applied(" ") != BLANK:
        raise refused("blanks that are not written as U+2581", "Replace or Metaspace")
    twin = _twin(table)
    why = _reasons(table, tokenizer, charsmap, twin, prefix, merge)
    shares = {reason: sum(reason == why(text) for text in TEXTS) / len(TEXTS) for reason in REASONS}
    differences = [Difference(reason, _holds(why, reason), share < RARE) for reason, share in shares.items()]
    if any(token["lstrip"] or token["rstrip"] for token in table["added_tokens"]):
        foreign = "".join(blank for blank in BLANKS if charsmap.applied(blank) != " ")
        differences.append(Difference(_BESIDE, lambda pieces: any(
            piece[-1:] in foreign for piece in pieces[:-1] if piece) or any(
            piece[:1] in foreign for piece in pieces[1:] if piece), rare=True))
    return Rules("t5", "default", scores=dict(model["vocab"]), differences=tuple(differences), charsmap=packed,
                 bytes=BYTES & {token for token, _ in model["vocab"]} if model.get("byte_fallback") else frozenset(),
                 flags={"add_space_prefix": prefix, "remove_extra_whitespaces": merge})


def _scheme(table: Mapping[str, Any]) -> str | None:
    """Where a blank is put before words that have none: always, first, never; None without a Metaspace."""
    for step in steps(table.get("normalizer"), "normalizers"):
        if step["type"] not in (*CHANGING, "Strip") and (step["type"] != "Prepend"
                                                         or step["prepend"] not in (" ", BLANK)):
            raise refused(f"the normalizer {short(step)}", f"{', '.join(CHANGING)}, Strip and Prepend of a blank")
    found, before = None, False
    for step in steps(table.get("pre_tokenizer")):
        if step["type"] == "WhitespaceSplit" and found is None:
            before = True
        elif step["type"] == "Metaspace" and step.get("replacement") == BLANK and found is None:
            found = str(step.get("prepend_scheme", "always"))
            if step.get("split", True) and any(BLANK in token[1:] for token, _ in table["model"]["vocab"]):
                raise refused("a Metaspace that splits, with blanks inside of tokens", "split = false")
        else:
            raise refused(f"the pre-tokenizer step {short(step)}", "WhitespaceSplit and one Metaspace")
    if before and found != "always":
        raise refused(f"a WhitespaceSplit with prepend_scheme = {found!r} of the Metaspace behind it", "'always'")
    return found


@cache
def _charsmap(normalizers: str, words: bool, merge: bool) -> tuple[Charsmap, bytes]:
    """The table for a list of normalizers, as it is and as a file holds it; `words` are all between two blanks.

    Where llama.cpp does not `merge` blanks by itself, the table does for as many as a text has in a row.
    """
    from tokenizers import Tokenizer, models

    parts = json.loads(normalizers)
    if not parts and not words:
        return Charsmap({}, 1), b""
    empty = json.loads(Tokenizer(models.BPE()).to_str())
    normalizer = Tokenizer.from_str(json.dumps(
        {**empty, "normalizer": {"type": "Sequence", "normalizers": parts}})).normalizer
    blank = str.maketrans(dict.fromkeys(BLANKS, " ")) if words else {}
    replaced = [step["pattern"]["String"] for step in parts
                if step["type"] == "Replace" and "String" in step["pattern"]]
    runs = [] if merge else [" " * length for length in range(2, LONGEST_RUN + 1)]
    found = Charsmap.of(lambda text: normalizer.normalize_str(text).translate(blank), ["\r\n", *replaced, *runs])
    return found, found.packed()


def _written(tokenizer: Tokenizer, text: str) -> str:
    """A text as it is cut into tokens."""
    normal = tokenizer.normalizer.normalize_str(text) if tokenizer.normalizer else text
    if tokenizer.pre_tokenizer is None:
        return str(normal)
    return "".join(word for word, _ in tokenizer.pre_tokenizer.pre_tokenize_str(normal))


def llama_text(charsmap: Charsmap, text: str, prefix: bool, merge: bool) -> str:
    """A text as llama.cpp cuts it into tokens."""
    written, word, first = [], False, True
    for sign in charsmap.applied(text):
        if sign == " ":
            word = False
            written += [] if merge else [BLANK]
            continue
        if not word and (merge or (prefix and first)):
            written.append(BLANK)
            first = False
        word = True
        written.append(sign)
    return "".join(written)


def _twin(table: Mapping[str, Any]) -> Any:
    """llama.cpp's model: scores in single precision, no bytes, and none but plain tokens; ids stay as they are.

    Added tokens that are not special are plain tokens of score 0, also where the vocabulary has no score for them.
    """
    from tokenizers import models

    model = table["model"]
    vocabulary = [(text, _single(score)) for text, score in model["vocab"]]
    hidden = {model["unk_id"]} | {index for index, (text, _) in enumerate(vocabulary)
                                  if model.get("byte_fallback") and text in BYTES}
    for token in table["added_tokens"]:
        while token["id"] >= len(vocabulary):
            vocabulary.append((f"{NEVER}{len(vocabulary)}", 0.0))
        vocabulary[token["id"]] = (token["content"], 0.0)
        if token["special"]:
            hidden.add(token["id"])
    return models.Unigram([(f"{NEVER}{index}" if index in hidden else text, 0.0 if index in hidden else score)
                           for index, (text, score) in enumerate(vocabulary)], model["unk_id"], False)


def _single(score: float) -> float:
    return float(struct.unpack("<f", struct.pack("<f", score))[0])


def _reasons(table: Mapping[str, Any], tokenizer: Tokenizer, charsmap: Charsmap, twin: Any, prefix: bool,
             merge: bool) -> Callable[..., str]:
    """Why llama.cpp makes other ids of a piece of text, as a function; empty where it makes the same ones."""
    from tokenizers import Tokenizer, pre_tokenizers

    model = table["model"]
    inner = tokenizer  # of text behind an added token
    metaspace = next((step for step in steps(table.get("pre_tokenizer")) if step["type"] == "Metaspace"), {})
    if metaspace.get("prepend_scheme") == "first":
        inner = Tokenizer.from_str(tokenizer.to_str())
        inner.pre_tokenizer = pre_tokenizers.Metaspace(BLANK, "never", metaspace.get("split", True))
    bytes_of = {index for index, (text, _) in enumerate(model["vocab"]) if model.get("byte_fallback") and text in BYTES}
    special = [token["content"] for token in table["added_tokens"] if token["special"]]
    special += [model["vocab"][index][0] for index in (*bytes_of, model["unk_id"])]

    @lru_cache(4096)
    def why(piece: str, first: bool = True) -> str:
        own = tokenizer if first else inner
        ids = own.encode(piece, add_special_tokens=False).ids
        text = llama_text(charsmap, piece, prefix, merge)
        other = [token.id for token in twin.tokenize(text)]
        if ids == other:
            return ""
        written = _written(own, piece)
        if any(name in text for name in special):
            return _SPECIAL
        if written != text:
            return _ENDS if written.replace(BLANK, "") == text.replace(BLANK, "") else _SIGNS
        if not bytes_of.isdisjoint(ids):
            return _BYTES
        return _UNKNOWN if model["unk_id"] in (*ids, *other) else _SCORES
    return why


def _holds(why: Callable[..., str], reason: str) -> Callable[[Sequence[str]], bool]:
    return lambda pieces: any(why(piece, index == 0) == reason for index, piece in enumerate(pieces) if piece)
