"""Byte-level BPE (GPT-2, Llama 3, Qwen, SmolLM, GPT-4o …): llama.cpp knows its splitting rules by name only."""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ...source.tokenizer_rules import Difference, Rules, refused, short, steps
from . import splitters
from .splitters import DIGIT, GPT2, LONG_S, SPLITTERS, Splitter

if TYPE_CHECKING:
    from tokenizers import Tokenizer

_NOT_NFC = Difference("text that is not in Unicode's NFC form, which the tokenizer brings it to",
                      lambda pieces: not all(unicodedata.is_normalized("NFC", piece) for piece in pieces))
NEWER = Difference("characters that Unicode got after version 15",
                   lambda pieces: any(unicodedata.category(sign) == "Cn" for piece in pieces for sign in piece),
                   rare=True)


def rules(table: Mapping[str, Any], tokenizer: Tokenizer) -> Rules:
    """The rules of a byte-level tokenizer.json; ArtifactError naming the one that llama.cpp has no equal for."""
    from tokenizers.pre_tokenizers import ByteLevel

    model, differences = table["model"], [NEWER]
    for step in steps(table.get("normalizer"), "normalizers"):
        if step["type"] != "NFC":
            raise refused(f"the normalizer {short(step)}", "none or NFC")
        differences.append(_NOT_NFC)
    missing = set(ByteLevel.alphabet()) - model["vocab"].keys()
    if missing and model.get("unk_token"):
        raise refused(f"an unknown token for the byte {min(missing)!r}, which has no token", "no unknown token")
    splits = _splits(table.get("pre_tokenizer"))
    splitter = splitters.find(splits, bool(model.get("ignore_merges")), lambda: _merges_suffice(table))
    if splitter is None:
        known = ", ".join(sorted({known.name for known in SPLITTERS}))
        raise refused(f"the pre-tokenizer {splits} with ignore_merges = {model.get('ignore_merges')}",
                      f"the rules of {known}")
    if splitter.llama:
        differences.append(Difference(splitter.differs, _split_otherwise(tokenizer, splitter),
                                      splitter.differs == LONG_S))
    return Rules("gpt2", splitter.name, [f"{left} {right}" for left, right in model["merges"]],
                 differences=tuple(differences))


def _splits(pre_tokenizer: Mapping[str, Any] | None) -> list[str]:
    splits: list[str] = []
    parts = steps(pre_tokenizer)
    for step in parts:
        if step["type"] == "Digits" and step.get("individual_digits"):
            splits.append(DIGIT)
        elif step["type"] == "Split" and step.get("behavior") == "Isolated" and not step.get("invert") \
                and "Regex" in step["pattern"]:
            splits.append(step["pattern"]["Regex"])
        elif step["type"] == "ByteLevel" and not step.get("add_prefix_space") and step is parts[-1]:
            splits += [GPT2] if step.get("use_regex", True) else []
        else:
            raise refused(f"the pre-tokenizer step {short(step)}", "a combination known by name")
    return splits


def _merges_suffice(table: Mapping[str, Any]) -> bool:
    """Whether merging makes every token of its own text, so that taking words whole changes nothing."""
    from tokenizers import Tokenizer

    model = Tokenizer.from_str(json.dumps({**table, "model": {**table["model"], "ignore_merges": False}})).model
    added = {token["content"] for token in table["added_tokens"]}
    return all(len(model.tokenize(token)) == 1 for token in table["model"]["vocab"] if token not in added)


def _split_otherwise(tokenizer: Tokenizer, splitter: Splitter) -> Callable[[Sequence[str]], bool]:
    """Whether llama.cpp's rules cut a piece of text into other words than the tokenizer's own do."""
    from tokenizers import Regex, pre_tokenizers

    rules = [pre_tokenizers.Split(Regex(rule), "isolated") for rule in splitter.llama]
    llama = pre_tokenizers.Sequence([*rules, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    own = tokenizer.pre_tokenizer
    return lambda pieces: any(own.pre_tokenize_str(piece) != llama.pre_tokenize_str(piece) for piece in pieces)
