"""Every token stands at its id, and every merge at its rank: of a vocabulary no corpus shows more than a part."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ....models.errors import ArtifactError
from ....runtime.files import gguf_header
from ....runtime.text.codec import Codec
from ...gguf.tokenizer import write
from ..certificate import Check
from ..packed_file import Subject

CAUSE = "tokenizer"
NAME, IN_FILE = "vocabulary", "vocabulary_in_file"


def checks(subject: Subject) -> list[Check]:
    """tokenizer.json against the float model's, where that is at hand: later its hash stands for it. And a GGUF against
    tokenizer.json."""
    found = [] if subject.float_folder is None else [_beside(subject.codec, subject.float_folder)]
    if subject.format == "gguf":
        found.append(_in_file(subject.artifact.model_path, subject.tokenizer_folder))
    return found


def _beside(codec: Codec, folder: Path) -> Check:
    right = Codec.from_folder(folder)
    here, there = (json.loads(one.tokenizer.to_str())["model"] for one in (codec, right))
    wrong = [f"another {name} in tokenizer.json" for name in ("vocab", "merges") if here.get(name) != there.get(name)]
    return Check(NAME, not wrong, CAUSE, float(len(wrong)), 0.0, right.vocabulary_size, "; ".join(wrong))


def _in_file(path: Path, folder: Path) -> Check:
    """The lists of a GGUF against those that are planned for it, out of the tokenizer.json in `folder`."""
    header = gguf_header.read(path)
    try:
        planned = write.read(folder, header.tokens)
    except ArtifactError as error:
        return Check(IN_FILE, None, detail=error.message)  # somebody else found a way to carry this tokenizer
    tokens, merges = (_items(path, header, name) for name in ("tokens", "merges"))
    free = set(planned.rules.spelled.values())  # as every maker writes them in his own way
    wrong = [f"token {index} is {here!r}, tokenizer.json has {there!r}" for index, (here, there, kind) in enumerate(
        zip(tokens, planned.tokens, planned.types, strict=True))
        if here != there and kind != write.UNUSED and there not in free]
    if planned.rules.merges:  # SentencePiece has scores, beside which some makers write merges that nobody reads
        if len(merges) != len(planned.rules.merges):
            wrong.append(f"{len(merges):,} merges, tokenizer.json has {len(planned.rules.merges):,}")
        wrong += [f"merge {rank} is {here!r}, tokenizer.json has {there!r}" for rank, (here, there) in enumerate(
            zip(merges, planned.rules.merges, strict=False)) if here != there]
    return Check(IN_FILE, not wrong, CAUSE, float(len(wrong)), 0.0, len(tokens) + len(merges), "; ".join(wrong[:3]))


def _items(path: Path, header: gguf_header.Header, name: str) -> list[Any]:
    return gguf_header.items(path, header, f"tokenizer.ggml.{name}")
