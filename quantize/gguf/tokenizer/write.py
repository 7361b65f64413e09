"""A tokenizer.json as llama.cpp's vocabulary.

llama.cpp knows pre-tokenizers by name only. The name is derived from the rules in tokenizer.json themselves, so a
trimmed or retrained vocabulary keeps the name of the rules it was made with; a rule set without a name is refused.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ....models.errors import ArtifactError, DataError
from ....runtime.text.codec import Codec
from ...source.tokenizer_rules import BLANK, Difference, Rules, refused, steps
from . import byte_level, sentencepiece, unigram, wordpiece

if TYPE_CHECKING:
    from gguf import GGUFWriter

NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = 1, 2, 3, 4, 5, 6
"""llama.cpp's token types."""

UNUSED_SCORE = -10_000.0
"""Of a row without a token: Unigram would find its name in a text."""

ENDING_TEXTS = frozenset({
    "<|eot_id|>", "<|im_end|>", "<|end|>", "<|return|>", "<|call|>", "<|flush|>", "<|calls|>", "<end_of_turn>",
    "<|endoftext|>", "</s>", "<|eom_id|>", "<EOT>", "_<EOT>", "[EOT]", "[EOS]", "<|end_of_text|>", "<end_of_utterance>",
    "<eos>", "<turn|>", "<|tool_response>", "<｜end▁of▁sentence｜>", "[e~[",
})
"""Tokens that llama.cpp takes for the end of generation by their text alone (llama-cpp-python 0.3.36)."""

PHI3_KEEPS = frozenset({"<unk>", "<s>", "<|endoftext|>"})
"""The special tokens of Phi-3 that leave the blanks behind them; all others take them."""

ENDING_KEYS = ("eot", "eom", "fim_pad", "fim_rep", "fim_sep")
"""Keys beside `eos` whose token llama.cpp takes for an end of generation; the last three are for code models, which
mark the borders of a file with them, and serve any model that has more ends than the first three can name."""

_TRIMMED = Difference("blanks outside ASCII behind an added token, which llama.cpp leaves",
                      lambda pieces: any(not sign.isascii() for piece in pieces[1:]
                                         for sign in piece[:len(piece) - len(piece.lstrip())]), rare=True)
_WRITTEN_BLANKS = Difference(f"the sign {BLANK} itself, which is a blank in llama.cpp, and runs of it a token",
                             lambda texts: any(BLANK in text for text in texts), rare=True)


@dataclass(frozen=True)
class Vocabulary:
    """What stands below `tokenizer.` in a GGUF file."""

    rules: Rules
    tokens: list[str]
    types: list[int]
    ids: dict[str, int]
    """Special ids by key: bos, eos, eot, unknown, padding …"""
    add_bos: bool
    add_eos: bool
    template: str | None
    notes: list[str]
    """What the user should know of the file's tokenizer."""
    trims: bool
    """All special tokens take the blanks behind them, as Phi-3's do."""


def read(source: Path, size: int) -> Vocabulary:
    """The vocabulary of the Hugging Face folder `source`, padded to `size` rows of the embedding.

    Raises ArtifactError as `plan` does.
    """
    return plan(Codec.from_folder(source), size)


def plan(codec: Codec, size: int) -> Vocabulary:
    """The same of a tokenizer that was read before, whose template may be a stranger's.

    Raises ArtifactError naming the rule that llama.cpp cannot carry, for ids beyond `size`, or when no token ends an
    answer.
    """
    table = json.loads(codec.tokenizer.to_str())
    rules = _rules(table, codec)
    trims, stripped = _check_added(table, rules, codec)
    _check_template(codec, stripped)
    tokens, types = _tokens(table, size, rules)
    before, after = _frame(codec)
    unknown = _unknown(table["model"])
    if rules.model == "bert":
        if before is None or after is None:
            raise refused("WordPiece without [CLS] and [SEP] around a text", "both")
        if unknown not in tokens:
            raise refused(f"the unknown token {unknown!r}, which is none of its added tokens", "one that is")
        ids = {"bos": before, "seperator": after, "unknown": tokens.index(unknown)}
        ids |= {"padding": codec.pad_id} if codec.pad_id is not None else {}
    else:
        ids = _ids(codec, tokens, before, after, unknown)
    notes = [f"llama.cpp tokenizes otherwise: {found.name}"
             for found in (*rules.differences, *stripped) if not found.rare]
    return Vocabulary(rules, tokens, types, ids, before is not None, after is not None, codec.template, notes, trims)


def differences(codec: Codec) -> Callable[[str], list[str]]:
    """Why llama.cpp makes other ids of a text than this tokenizer, as a function of the text; mostly it says nothing.

    Raises ArtifactError for a tokenizer that llama.cpp does not carry at all.
    """
    table = json.loads(codec.tokenizer.to_str())
    rules = _rules(table, codec)
    added = sorted((token.content for token in codec.tokenizer.get_added_tokens_decoder().values()), key=len)
    border = re.compile("|".join(map(re.escape, reversed(added))) or "$.")
    trims, stripped = _check_added(table, rules, codec)
    known = rules.differences + ((_TRIMMED,) if trims else ())

    def names(text: str) -> list[str]:
        pieces = border.split(text)
        return [difference.name for difference in known if difference.holds(pieces)] + [
            difference.name for difference in stripped if difference.holds([text])]
    return names


def add(writer: GGUFWriter, vocabulary: Vocabulary) -> None:
    """Write the vocabulary's metadata, behind the model's own."""
    from gguf import GGUFValue, GGUFValueType

    rules = vocabulary.rules
    if vocabulary.trims:
        # The one way to say so: llama.cpp looks for Phi-3 in the model's name.
        name = writer.kv_data[0].setdefault("general.name", GGUFValue("", GGUFValueType.STRING))
        name.value = f"phi-3 tokens {name.value}".strip()
    writer.add_tokenizer_model(rules.model)
    writer.add_tokenizer_pre(rules.pre)
    writer.add_token_list(vocabulary.tokens)
    if rules.scores:
        writer.add_token_scores([UNUSED_SCORE if kind == UNUSED else rules.scores.get(token, 0.0)
                                 for token, kind in zip(vocabulary.tokens, vocabulary.types, strict=True)])
    writer.add_token_types(vocabulary.types)
    if rules.charsmap:
        writer.add_precompiled_charsmap(rules.charsmap)
    if rules.merges:
        writer.add_token_merges(rules.merges)
    for key, value in vocabulary.ids.items():
        writer.add_uint32(f"tokenizer.ggml.{key}_token_id", value)
    writer.add_add_bos_token(vocabulary.add_bos)
    writer.add_add_eos_token(vocabulary.add_eos)
    for key, flag in rules.flags.items():
        writer.add_bool(f"tokenizer.ggml.{key}", flag)
    if vocabulary.template:
        writer.add_chat_template(vocabulary.template)


def _rules(table: Mapping[str, Any], codec: Codec) -> Rules:
    model = table["model"]
    if model["type"] == "WordPiece":
        return wordpiece.rules(table, codec.whole_tokenizer)
    if model["type"] == "Unigram":
        return unigram.rules(table, codec.whole_tokenizer, bool(codec.template))
    if model["type"] != "BPE":
        raise refused(f"a model of type {model['type']!r}", "BPE, Unigram and WordPiece")
    for key in ("dropout", "continuing_subword_prefix", "end_of_word_suffix"):
        if model.get(key):
            raise refused(f"{key} = {model[key]!r}", "none")
    if any(step["type"] == "ByteLevel" for step in steps(table.get("pre_tokenizer"))):
        return byte_level.rules(table, codec.whole_tokenizer)
    if model.get("byte_fallback"):
        return sentencepiece.rules(table, bool(codec.template))
    raise refused("BPE that is neither byte-level nor falls back to bytes", "either")


def _check_added(table: Mapping[str, Any], rules: Rules, codec: Codec) -> tuple[bool, list[Difference]]:
    """Refuse added tokens that llama.cpp would find elsewhere; return whether all take the blanks behind them as
    Phi-3's do, and else how it differs beside those that take some, as Phi-4's do; of a whole text."""
    normalizer = codec.whole_tokenizer.normalizer
    for token in table["added_tokens"]:
        text = token["content"]
        if token["single_word"]:
            raise refused(f"the added token {text!r} that is found as a whole word only", "single_word = false")
        if token["normalized"] and normalizer is not None and normalizer.normalize_str(text) != text:
            raise refused(f"the added token {text!r}, which its normalizer changes to "
                          f"{normalizer.normalize_str(text)!r} and which is found as that only", "normalized = false")
    written = [token["content"] for token in table["added_tokens"] if not token["content"].strip(BLANK)]
    others = [_WRITTEN_BLANKS] if written else []
    strips = {token["content"]: (token["lstrip"], token["rstrip"]) for token in table["added_tokens"]}
    if rules.model == "bert" or rules.flags.get("remove_extra_whitespaces") or not any(map(any, strips.values())):
        return False, others  # there are no blanks to take
    if strips == {text: (False, text not in PHI3_KEEPS) for text in strips} and strips.keys() > PHI3_KEEPS | {"</s>"}:
        return True, others
    return False, others + [_left_blanks(sorted(text for text, sides in strips.items() if sides[side]), side)
                   for side in (0, 1) if any(sides[side] for sides in strips.values())]


def _left_blanks(tokens: list[str], side: int) -> Difference:
    """Blanks before (`side` 0) or behind these tokens, which the tokenizer drops."""
    either = "(?:" + "|".join(map(re.escape, tokens)) + ")"
    pattern = re.compile(either + r"\s" if side else r"\s" + either)
    listed = ", ".join(tokens[:3]) + (" …" if len(tokens) > 3 else "")
    place = "behind" if side else "before"
    return Difference(f"blanks {place} {listed}, which llama.cpp keeps and the tokenizer drops",
                      lambda texts: any(pattern.search(text) for text in texts))


def _check_template(codec: Codec, stripped: list[Difference]) -> None:
    """Refuse a chat template that writes such blanks itself: every prompt would be another in llama.cpp."""
    try:
        chat = codec.render([{"role": "user", "content": "a"}]) if stripped and codec.template else ""
    except DataError:
        return  # a template for other conversations than chats
    for difference in stripped:
        if difference.holds([chat]):
            blanks = difference.name.partition(", which")[0]
            raise refused(f"{blanks} in its chat template, which its tokens take (lstrip, rstrip)",
                          "tokens that leave them, or Phi-3's")


def _unknown(model: Mapping[str, Any]) -> str | None:
    """The unknown token's text."""
    if model["type"] == "Unigram":
        return str(model["vocab"][model["unk_id"]][0])
    return model.get("unk_token")


def _tokens(table: Mapping[str, Any], size: int, rules: Rules) -> tuple[list[str], list[int]]:
    """Texts and types of `size` ids. Rows without a token get a name nobody writes, and the type for unused ones."""
    names: dict[int, str] = {}
    types = [UNUSED] * size
    vocabulary, unknown = table["model"]["vocab"], _unknown(table["model"])
    if isinstance(vocabulary, list):  # Unigram's, with scores
        vocabulary = {text: index for index, (text, _) in enumerate(vocabulary)}
    last = max((*vocabulary.values(), *(token["id"] for token in table["added_tokens"])), default=0)
    if last >= size:
        raise ArtifactError(f"tokenizer.json: the id {last:,} is outside the embedding of {size:,} rows",
                            "take the tokenizer.json that belongs to the weights")
    for text, index in vocabulary.items():
        names[index] = rules.spelled.get(text, text)
        types[index] = UNKNOWN if text == unknown and rules.scores else BYTE if text in rules.bytes else NORMAL
    for token in table["added_tokens"]:
        names[token["id"]] = token["content"]
        if types[token["id"]] != UNKNOWN and (token["special"] or token["content"].strip(BLANK)):
            types[token["id"]] = CONTROL if token["special"] else USER_DEFINED
    tokens = [names.get(index, f"[PAD{index}]") for index in range(size)]
    if len(set(tokens)) < size:
        twice = Counter(tokens).most_common(1)[0][0]
        raise ArtifactError(f"tokenizer.json: the token {twice!r} stands at two ids, and llama.cpp needs distinct "
                            "texts", "rename one of them in tokenizer.json")
    return tokens, types


def _frame(codec: Codec) -> tuple[int | None, int | None]:
    """The ids that the tokenizer puts before and behind a text by itself."""
    plain, whole = codec.encode("a"), codec.encode("a", add_special_tokens=True)
    start = next((start for start in range(len(whole)) if whole[start:start + len(plain)] == plain), 0)
    before, after = whole[:start], whole[start + len(plain):]
    if len(before) > 1 or len(after) > 1 or whole != before + plain + after:
        raise ArtifactError(f"tokenizer.json: its post-processor makes {whole} of {plain}; llama.cpp can add only one "
                            "token before a text and one behind it", "change the post_processor in tokenizer.json")
    return before[0] if before else None, after[0] if after else None


def _ids(codec: Codec, tokens: list[str], before: int | None, after: int | None,
         unknown: str | None) -> dict[str, int]:
    stops = sorted(codec.stop_ids)
    if not stops:
        raise ArtifactError("no token ends an answer: neither generation_config.json, tokenizer_config.json nor the "
                            "chat template names one", 'write "eos_token" into tokenizer_config.json')
    if stops[-1] >= len(tokens):
        raise ArtifactError(f"the stop id {stops[-1]} is outside the vocabulary of {len(tokens)}",
                            "correct eos_token_id in generation_config.json")
    eos = codec.eos_id if codec.eos_id in codec.stop_ids else stops[0]
    if after is not None:
        if after not in codec.stop_ids:
            raise refused(f"a post-processor that puts {tokens[after]!r} behind a text", "a token that ends an answer")
        eos = after
    assert eos is not None
    if before is not None and before != codec.bos_id:
        raise refused(f"a post-processor that puts {tokens[before]!r} before a text", "the begin-of-sequence token")
    # For a missing bos llama.cpp would take id 11.
    ids = {"bos": eos if codec.bos_id is None else codec.bos_id, "eos": eos}
    others = sorted((stop for stop in stops if stop != eos), key=lambda stop: tokens[stop] in ENDING_TEXTS)
    unnamed = [stop for stop in others[len(ENDING_KEYS):] if tokens[stop] not in ENDING_TEXTS]
    if unnamed:
        raise ArtifactError(f"{len(stops)} stop ids; llama.cpp has no key left for {tokens[unnamed[0]]!r}",
                            f"keep at most {len(ENDING_KEYS) + 1} ids in eos_token_id of generation_config.json")
    ids |= dict(zip(ENDING_KEYS, others, strict=False))
    if unknown in tokens:
        ids["unknown"] = tokens.index(unknown)
    if codec.pad_id is not None and codec.pad_id < len(tokens):
        ids["padding"] = codec.pad_id
    return ids
