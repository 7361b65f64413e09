"""SentencePiece-style BPE (Llama 2, Mistral, Gemma): blanks are written as U+2581, unknown characters as bytes.

llama.cpp has two ways for it. The usual one merges by a score for each token instead of a rank for each pair, which is
the same only for vocabularies that are closed: every split of a token into two tokens is a merge, and the merges that
make one token stand together. The other merges by rank, one line at a time, and puts no blank before a text.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from ....models.errors import ArtifactError
from ...source.tokenizer_rules import BLANK, Difference, Rules, refused, short, steps

BYTES = frozenset(f"<0x{value:02X}>" for value in range(256))

_FIRST = Difference("text that does not start with an added token, which llama.cpp puts no blank before",
                    lambda pieces: pieces[0] != "")
_NOT_FIRST = Difference("text behind an added token, which llama.cpp puts a blank before",
                        lambda pieces: any(pieces[1:]))
_DROPPED = Difference("blanks at the ends of lines and several in a row, which the tokenizer drops",
                      lambda pieces: any(re.search("(?m)^ | $| {2}", piece) for piece in pieces))
_BLANK_FIRST = Difference("text that starts with a blank, which llama.cpp puts another before",
                          lambda pieces: any(piece[:1] in (" ", BLANK) for piece in pieces if piece))


def rules(table: Mapping[str, Any], has_template: bool) -> Rules:
    """The rules of a SentencePiece-style tokenizer.json; ArtifactError for one that llama.cpp has no equal for."""
    model = table["model"]
    if model.get("ignore_merges"):
        raise refused("ignore_merges = true for SentencePiece-style BPE", "false")
    prefix, differences = _blanks(table, has_template)
    flags, known = {"add_space_prefix": prefix}, BYTES & model["vocab"].keys()
    try:
        if known != BYTES:
            raise refused(f"no token for the byte {min(BYTES - known)}", "all 256")
        scores = _scores(table)
        return Rules("llama", "default", scores=scores, bytes=BYTES, flags=flags, differences=tuple(differences))
    except ArtifactError:
        if prefix or any("\n" in token and token.strip("\n") for token in model["vocab"]):
            raise
    letters = {*model["vocab"], " "}
    if known != BYTES:
        differences.append(Difference("characters without a token, which the tokenizer makes the unknown token",
                                      lambda pieces: any(sign not in letters for piece in pieces for sign in piece)))
    return Rules("gpt2", "sarvam-moe", [f"{left} {right}" for left, right in model["merges"]], bytes=known, flags=flags,
                 differences=tuple(differences))


def _blanks(table: Mapping[str, Any], has_template: bool) -> tuple[bool, list[Difference]]:
    """Whether a text gets a blank before it, and where llama.cpp's blanks differ."""
    prefix, replaced, found = False, False, []
    for rule in steps(table.get("normalizer"), "normalizers"):
        if rule["type"] == "Prepend" and rule["prepend"] == BLANK:
            prefix = True
        elif rule["type"] == "Replace" and rule["pattern"] == {"String": " "} and rule["content"] == BLANK:
            replaced = True
        elif rule["type"] == "Replace" and (rule["pattern"].get("Regex"), rule["content"]) in (
                ("^ +| +$", ""), (" {2,}", " ")):
            found.append(_DROPPED)
        else:
            raise refused(f"the normalizer {short(rule)}", "Prepend and Replace of blanks")
    for step in steps(table.get("pre_tokenizer")):
        if step["type"] == "Split" and step["pattern"] == {"String": " "} and replaced:
            continue  # no blank is left to split at
        if step["type"] != "Metaspace" or step.get("replacement") != BLANK or replaced:
            raise refused(f"the pre-tokenizer step {short(step)}", "none or one Metaspace")
        if step.get("split", True) and any(BLANK in token[1:] for token in table["model"]["vocab"]):
            raise refused("a Metaspace that splits, with blanks inside of tokens", "split = false")
        scheme = step.get("prepend_scheme", "always")
        prefix, replaced = scheme == "always" or (scheme == "first" and not has_template), True
        if scheme == "first":
            found.append(_NOT_FIRST if prefix else _FIRST)
        if prefix:
            found.append(_BLANK_FIRST)
    if not replaced:
        raise refused("blanks that are not written as U+2581", "Replace or Metaspace")
    return prefix, list(dict.fromkeys(found))


def _scores(table: Mapping[str, Any]) -> dict[str, float]:
    """A score for every token so that merging by score is merging by rank: minus the place of its merges."""
    vocabulary: Mapping[str, int] = table["model"]["vocab"]
    added = {token["content"] for token in table["added_tokens"]}
    rank = {(left, right): index for index, (left, right) in enumerate(table["model"]["merges"])}
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
                raise refused(f"the token {token!r}, which is not merged from {pair[0]!r} and {pair[1]!r}", reason)
    order = sorted(spans, key=spans.__getitem__)
    for token, following in zip(order, order[1:], strict=False):
        if spans[token][1] > spans[following][0]:
            raise refused(f"merges into {token!r} on both sides of one into {following!r}", reason)
    return {token: -float(place) for place, token in enumerate(order, 1)}
