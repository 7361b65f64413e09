"""Which of llama.cpp's tokenizers a tokenizer.json's rules are.

Two kinds of BPE are carried. Byte-level BPE (GPT-2, Llama 3, Qwen, SmolLM) needs the name of its splitting rules.
SentencePiece-style BPE (Llama 2, TinyLlama, Mistral) writes blanks as U+2581 and falls back to bytes; llama.cpp merges
by a score for each token instead of a rank for each pair, which is the same only for vocabularies that are closed:
every split of a token into two tokens is a merge, and the merges that make one token stand together.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ..models.errors import ArtifactError

BLANK = "\N{LOWER ONE EIGHTH BLOCK}"
BYTES = frozenset(f"<0x{value:02X}>" for value in range(256))

_GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
_CASELESS = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|NUMBER| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+"
             r"|\s+(?!\S)|\s+")
_ONE_DIGIT, _THREE_DIGITS = (_CASELESS.replace("NUMBER", number) for number in (r"\p{N}", r"\p{N}{1,3}"))

NAMES: dict[tuple[tuple[str, ...], bool], str] = {
    ((_GPT2,), False): "gpt-2",
    (("digit", _GPT2), False): "smollm",
    ((_ONE_DIGIT,), False): "qwen2",
    ((_THREE_DIGITS,), True): "llama-bpe",
    ((_THREE_DIGITS,), False): "smaug-bpe",
}
"""Splitting steps and `ignore_merges` → llama.cpp's name of them."""


@dataclass(frozen=True)
class Rules:
    """How llama.cpp must tokenize."""

    model: str
    """`gpt2` for byte-level BPE, `llama` for SentencePiece-style BPE."""
    pre: str
    merges: list[str] = field(default_factory=list)
    scores: dict[str, float] = field(default_factory=dict)
    bytes: frozenset[str] = frozenset()
    space_prefix: bool | None = None
    notes: list[str] = field(default_factory=list)


def rules_of(table: Mapping[str, Any], has_template: bool) -> Rules:
    """The rules of a tokenizer.json; ArtifactError naming the one that llama.cpp has no equal for."""
    model = table["model"]
    if model.get("type") != "BPE":
        raise _refused(f"a model of type {model.get('type')!r}", "BPE")
    for key in ("dropout", "continuing_subword_prefix", "end_of_word_suffix"):
        if model.get(key):
            raise _refused(f"{key} = {model[key]!r}", "none")
    steps = _steps(table.get("pre_tokenizer"))
    if any(step["type"] == "ByteLevel" for step in steps):
        return _byte_level(table, steps)
    if model.get("byte_fallback"):
        return _sentence_piece(table, steps, has_template)
    raise _refused("BPE that is neither byte-level nor falls back to bytes", "either")


def _byte_level(table: Mapping[str, Any], steps: list[Mapping[str, Any]]) -> Rules:
    notes = []
    normalizer = table.get("normalizer")
    if normalizer is not None:
        if normalizer.get("type") != "NFC":
            raise _refused(f"the normalizer {_short(normalizer)}", "none or NFC")
        notes.append("llama.cpp does not bring text to Unicode's NFC form as the tokenizer does")
    splits: list[str] = []
    for step in steps:
        if step["type"] == "Digits" and step.get("individual_digits"):
            splits.append("digit")
        elif step["type"] == "Split" and step.get("behavior") == "Isolated" and not step.get("invert") \
                and "Regex" in step["pattern"]:
            splits.append(step["pattern"]["Regex"])
        elif step["type"] == "ByteLevel" and not step.get("add_prefix_space") and step is steps[-1]:
            splits += [_GPT2] if step.get("use_regex", True) else []
        else:
            raise _refused(f"the pre-tokenizer step {_short(step)}", "a combination known by name")
    name = NAMES.get((tuple(splits), bool(table["model"].get("ignore_merges"))))
    if name is None:
        raise _refused(f"the pre-tokenizer {splits} with ignore_merges = {table['model'].get('ignore_merges')}",
                       f"the rules of {', '.join(sorted(NAMES.values()))}")
    return Rules("gpt2", name, merges=[f"{left} {right}" for left, right in _pairs(table)], notes=notes)


def _sentence_piece(table: Mapping[str, Any], steps: list[Mapping[str, Any]], has_template: bool) -> Rules:
    vocabulary: Mapping[str, int] = table["model"]["vocab"]
    if not vocabulary.keys() >= BYTES:
        raise _refused(f"no token for the byte {min(BYTES - vocabulary.keys())}", "all 256")
    prefix, notes = _blanks(table.get("normalizer"), steps, vocabulary, has_template)
    return Rules("llama", "default", scores=_scores(table), bytes=BYTES, space_prefix=prefix, notes=notes)


def _blanks(normalizer: Mapping[str, Any] | None, steps: list[Mapping[str, Any]], vocabulary: Mapping[str, int],
            has_template: bool) -> tuple[bool, list[str]]:
    """Whether a text gets a blank before it, and where llama.cpp's blanks differ."""
    prefix, replaced, notes = False, False, []
    for rule in _steps(normalizer, "normalizers"):
        if rule["type"] == "Prepend" and rule["prepend"] == BLANK:
            prefix = True
        elif rule["type"] == "Replace" and rule["pattern"] == {"String": " "} and rule["content"] == BLANK:
            replaced = True
        elif rule["type"] == "Replace" and (rule["pattern"].get("Regex"), rule["content"]) in (
                ("^ +| +$", ""), (" {2,}", " ")):
            notes.append("llama.cpp keeps blanks at the ends of lines and several in a row, which the tokenizer drops")
        else:
            raise _refused(f"the normalizer {_short(rule)}", "Prepend and Replace of blanks")
    for step in steps:
        if step["type"] != "Metaspace" or step.get("replacement") != BLANK or replaced:
            raise _refused(f"the pre-tokenizer step {_short(step)}", "none or one Metaspace")
        if step.get("split", True) and any(BLANK in token[1:] for token in vocabulary):
            raise _refused("a Metaspace that splits, with blanks inside of tokens", "split = false")
        scheme = step.get("prepend_scheme", "always")
        prefix, replaced = scheme == "always" or (scheme == "first" and not has_template), True
        if scheme == "first":
            where = "no piece" if has_template else "every piece"
            notes.append(f"llama.cpp puts a blank before {where} of text between special tokens, the tokenizer before "
                         "the first if the text starts with it")
        elif prefix:
            notes.append("llama.cpp puts a blank also before a text that starts with one")
    if not replaced:
        raise _refused("blanks that are not written as U+2581", "Replace or Metaspace")
    return prefix, list(dict.fromkeys(notes))


def _scores(table: Mapping[str, Any]) -> dict[str, float]:
    """A score for every token so that merging by score is merging by rank: minus the place of its merges."""
    vocabulary: Mapping[str, int] = table["model"]["vocab"]
    added = {token["content"] for token in table["added_tokens"]}
    rank = {pair: index for index, pair in enumerate(_pairs(table))}
    spans: dict[str, tuple[int, int]] = {}
    for (left, right), index in rank.items():
        first, last = spans.get(left + right, (index, index))
        spans[left + right] = (min(first, index), max(last, index))
    reason = "a merge for every split of a token into two, since llama.cpp ranks tokens and not merges"
    for token in vocabulary:
        if token in added or token in BYTES:
            continue
        for cut in range(1, len(token)):
            pair = (token[:cut], token[cut:])
            if pair not in rank and pair[0] in vocabulary and pair[1] in vocabulary:
                raise _refused(f"the token {token!r}, which is not merged from {pair[0]!r} and {pair[1]!r}", reason)
    order = sorted(spans, key=spans.__getitem__)
    for token, following in zip(order, order[1:], strict=False):
        if spans[token][1] > spans[following][0]:
            raise _refused(f"merges into {token!r} on both sides of one into {following!r}", reason)
    return {token: -float(place) for place, token in enumerate(order, 1)}


def _steps(rule: Mapping[str, Any] | None, key: str = "pretokenizers") -> list[Mapping[str, Any]]:
    """A normalizer or pre-tokenizer as a flat list."""
    if rule is None:
        return []
    if rule["type"] == "Sequence":
        return [step for part in rule[key] for step in _steps(part, key)]
    return [rule]


def _pairs(table: Mapping[str, Any]) -> list[tuple[str, str]]:
    return [(pair[0], pair[1]) for pair in table["model"]["merges"]]


def _short(rule: Mapping[str, Any]) -> str:
    return ", ".join(f"{key} {value!r}" for key, value in rule.items())


def _refused(what: str, wanted: str) -> ArtifactError:
    return ArtifactError(f"tokenizer.json has {what}; llama.cpp carries only {wanted}",
                         "export to ONNX, which keeps tokenizer.json as it is, or take a tokenizer of a known kind")
