"""Byte-level BPE (GPT-2, Llama 3, Qwen, SmolLM …): llama.cpp knows its splitting rules by name only."""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping
from typing import Any

from .gguf_rules import Difference, Rules, refused, short, steps

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


def rules(table: Mapping[str, Any]) -> Rules:
    """The rules of a byte-level tokenizer.json; ArtifactError naming the one that llama.cpp has no equal for."""
    differences = []
    normalizer = table.get("normalizer")
    if normalizer is not None:
        if normalizer.get("type") != "NFC":
            raise refused(f"the normalizer {short(normalizer)}", "none or NFC")
        differences.append(Difference(
            "text that is not in Unicode's NFC form, which the tokenizer brings it to",
            lambda pieces: not all(unicodedata.is_normalized("NFC", piece) for piece in pieces)))
    splits: list[str] = []
    parts = steps(table.get("pre_tokenizer"))
    for step in parts:
        if step["type"] == "Digits" and step.get("individual_digits"):
            splits.append("digit")
        elif step["type"] == "Split" and step.get("behavior") == "Isolated" and not step.get("invert") \
                and "Regex" in step["pattern"]:
            splits.append(step["pattern"]["Regex"])
        elif step["type"] == "ByteLevel" and not step.get("add_prefix_space") and step is parts[-1]:
            splits += [_GPT2] if step.get("use_regex", True) else []
        else:
            raise refused(f"the pre-tokenizer step {short(step)}", "a combination known by name")
    name = NAMES.get((tuple(splits), bool(table["model"].get("ignore_merges"))))
    if name is None:
        raise refused(f"the pre-tokenizer {splits} with ignore_merges = {table['model'].get('ignore_merges')}",
                      f"the rules of {', '.join(sorted(NAMES.values()))}")
    return Rules("gpt2", name, [f"{left} {right}" for left, right in table["model"]["merges"]],
                 differences=tuple(differences))
