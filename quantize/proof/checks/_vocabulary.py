"""Every token stands at its id, and every merge at its rank: of a vocabulary no corpus shows more than a part."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ....models.errors import ArtifactError
from ....runtime.files import gguf_header
from ....runtime.text.codec import Codec
from ....runtime.text.tokenizer import AddedToken
from ...gguf.tokenizer import write
from ...source.tokenizer_rules import BLANK
from ..certificate import Check
from ..packed_file import Subject

CAUSE = "tokenizer"
NAME, IN_FILE = "vocabulary", "vocabulary_in_file"


def checks(subject: Subject) -> list[Check]:
    """tokenizer.json against the float model's, where that is another file and at hand: later its hash stands for it.
    And a GGUF against tokenizer.json."""
    found = []
    if subject.float_folder not in (None, subject.tokenizer_folder):
        found.append(_beside(subject.codec, subject.float_folder))
    if subject.format == "gguf":
        found.append(_in_file(subject.artifact.model_path, subject.codec))
    return found


def _beside(codec: Codec, folder: Path) -> Check:
    right = Codec.from_folder(folder)
    here, there = _lists(codec), _lists(right)
    wrong = [f"another list of {name} in tokenizer.json" for name in there if here[name] != there[name]]
    return Check(NAME, not wrong, CAUSE, float(len(wrong)), 0.0, right.vocabulary_size, "; ".join(wrong))


def _lists(codec: Codec) -> dict[str, Any]:
    model = json.loads(codec.tokenizer.to_str())["model"]
    return {"tokens": model.get("vocab"), "merges": model.get("merges"), "added tokens": {
        index: token.content for index, token in codec.tokenizer.get_added_tokens_decoder().items()}}


def _in_file(path: Path, codec: Codec) -> Check:
    """The lists of a GGUF against those that are planned for it, out of the tokenizer.json of `codec`."""
    header, added = gguf_header.read(path), codec.tokenizer.get_added_tokens_decoder()
    ids = max(codec.tokenizer.get_vocab(with_added_tokens=True).values()) + 1
    if ids > header.tokens:
        return Check(IN_FILE, False, CAUSE, float(ids - header.tokens), 0.0, header.tokens,
                     f"the file has {header.tokens:,} tokens, tokenizer.json has {ids:,}")
    try:
        planned = write.plan(codec, header.tokens)
    except ArtifactError as error:
        return Check(IN_FILE, None, detail=error.message)  # somebody else found a way to carry this tokenizer
    tokens, kinds, merges = (_items(path, header, name) for name in ("tokens", "token_type", "merges"))
    # llama.cpp's converter has no token for the mark <mask> of XLM-R's kind: texts hold none.
    free = {index for index, kind in enumerate(kinds)
            if kind == write.UNUSED and planned.types[index] == write.CONTROL}
    wrong = [f"token {index} is {here!r}, tokenizer.json has {there!r}" for index, (here, there, kind) in enumerate(
        zip(tokens, planned.tokens, planned.types, strict=True))
        if here != there and kind != write.UNUSED and index not in free
        and here not in _spellings(codec.tokenizer.id_to_token(index) or "", added.get(index), planned.rules.model)]
    # A tokenizer that is written here by its merges' ranks may have scores elsewhere, and merges that nobody reads.
    if planned.rules.merges and header.values.get("tokenizer.ggml.model") == planned.rules.model:
        if len(merges) != len(planned.rules.merges):
            wrong.append(f"{len(merges):,} merges, tokenizer.json has {len(planned.rules.merges):,}")
        wrong += [f"merge {rank} is {here!r}, tokenizer.json has {there!r}" for rank, (here, there) in enumerate(
            zip(merges, planned.rules.merges, strict=False)) if here != there]
    return Check(IN_FILE, not wrong, CAUSE, float(len(wrong)), 0.0, len(tokens) + len(merges), "; ".join(wrong[:3]))


def _spellings(text: str, added: AddedToken | None, model: str) -> set[str]:
    """How else a token may stand in a file: llama.cpp's converter writes U+2581 in added tokens that are no marks as
    blanks, and earlier ones took whatever stands in brackets for one of WordPiece's marks."""
    if added is not None and added.special:
        return set()
    if model == "bert":
        return {text, text.removeprefix("##"), BLANK + text}
    return set() if added is None else {text.replace(BLANK, " ")}


def _items(path: Path, header: gguf_header.Header, name: str) -> list[Any]:
    return gguf_header.items(path, header, f"tokenizer.ggml.{name}")
