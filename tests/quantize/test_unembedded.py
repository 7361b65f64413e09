"""Tokens behind the last row of the embedding: left out everywhere, or refused where they are needed."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from edgestill.distill.loading import copy_tokenizer
from edgestill.distill.students.vocabulary import kept_tokens, write_trimmed_tokenizer
from edgestill.models.errors import ArtifactError
from edgestill.quantize.gguf.tokenizer import write as gguf_tokenizer
from edgestill.quantize.source.checkpoint import Checkpoint
from edgestill.quantize.source.float_model import FloatModel
from edgestill.runtime.text.codec import Codec

from .. import proving
from ..distill.test_students import content

SOFT = "<image_soft_token>"
"""As in google/gemma-3-*-it: 262,144 rows, and this token has the id 262,144."""


def add_token(folder: Path, text: str = SOFT, index: int = 384, **flags: Any) -> None:
    """An added token with the flags that Gemma 3's has, named in the settings as it is there."""
    def tokenizer(table: dict[str, Any]) -> None:
        table["added_tokens"].append({"id": index, "content": text, "single_word": False, "lstrip": False,
                                      "rstrip": False, "normalized": False, "special": True} | flags)

    def settings(table: dict[str, Any]) -> None:
        entry = {"content": text, "lstrip": False, "normalized": False, "rstrip": False, "single_word": False,
                 "special": True}
        table.setdefault("added_tokens_decoder", {})[str(index)] = entry
        table["image_token"] = text
        table["extra_special_tokens"] = {"boi_token": "<|user|>", "image_token": text}
    proving.edit_json(folder / "tokenizer.json", tokenizer)
    proving.edit_json(folder / "tokenizer_config.json", settings)


@pytest.fixture
def soft(tiny_llama: Path, tmp_path: Path) -> Path:
    folder = Path(shutil.copytree(tiny_llama, tmp_path / "soft"))
    add_token(folder)
    return folder


def test_its_text_is_plain_text_to_every_reader(soft: Path, tiny_llama: Path, tmp_path: Path) -> None:
    sound = Codec.from_folder(tiny_llama)
    text = f"<|user|>look {SOFT} here<|end|>"
    ids = sound.encode(text)
    assert Checkpoint.open(soft).vocabulary_size == 384
    assert Codec.from_folder(soft).encode(text) == ids
    assert FloatModel.from_folder(soft).tokenizer.encode(text, add_special_tokens=False) == ids
    vocabulary = gguf_tokenizer.read(soft, 384)
    assert len(vocabulary.tokens) == 384 and SOFT not in vocabulary.tokens
    copied = tmp_path / "copied"
    copied.mkdir()
    copy_tokenizer(soft, copied)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        assert SOFT not in (copied / name).read_text()
    settings = json.loads((copied / "tokenizer_config.json").read_text())
    assert settings["extra_special_tokens"] == {"boi_token": "<|user|>"} and settings["eos_token"] == "<|end|>"
    assert Codec.from_folder(copied).encode(text) == ids


def test_a_trimmed_vocabulary_does_not_hold_it(soft: Path, tmp_path: Path) -> None:
    codec = Codec.from_folder(soft)
    kept = kept_tokens(json.loads(codec.tokenizer.to_str()), codec.encode("turn off the light"))
    assert kept[-1] < 384
    cut = tmp_path / "cut"
    cut.mkdir()
    write_trimmed_tokenizer(soft, cut, kept)
    assert SOFT not in json.dumps(content(cut)) + (cut / "tokenizer_config.json").read_text()
    assert Codec.from_folder(cut).vocabulary_size == len(kept)


def test_two_such_tokens_and_one_for_padding(tiny_llama: Path, tmp_path: Path) -> None:
    """A padding token that somebody added for training is never read: Llama 2's usual `[PAD]`."""
    folder = Path(shutil.copytree(tiny_llama, tmp_path / "two"))
    add_token(folder)
    add_token(folder, "[PAD]", 385)
    proving.edit_json(folder / "tokenizer_config.json", lambda table: table.update(pad_token="[PAD]"))
    codec = Codec.from_folder(folder)
    assert codec.vocabulary_size == 384 and codec.pad_id == 4  # the generation config's


def ends(folder: Path) -> None:
    proving.edit_json(folder / "tokenizer_config.json", lambda table: table.update(eos_token=SOFT))


def writes(folder: Path) -> None:
    path = folder / "chat_template.jinja"
    path.write_text(path.read_text().replace("<|end|>", SOFT))


def adds(folder: Path) -> None:
    proving.edit_json(folder / "tokenizer.json", lambda table: table.update(post_processor={
        "type": "TemplateProcessing", "single": [{"SpecialToken": {"id": SOFT, "type_id": 0}},
                                                 {"Sequence": {"id": "A", "type_id": 0}}],
        "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
        "special_tokens": {SOFT: {"id": SOFT, "ids": [384], "tokens": [SOFT]}}}))


@pytest.mark.parametrize(("change", "message"), [
    (ends, "its eos_token is the token '<image_soft_token>', which has no row in the embedding of 384 rows"),
    (writes, "its chat template writes the token '<image_soft_token>'"),
    (adds, "its post-processor adds the token '<image_soft_token>'")])
def test_one_that_is_needed_is_refused(soft: Path, change: Callable[[Path], None], message: str) -> None:
    change(soft)
    for read in (Codec.from_folder, Checkpoint.open):
        with pytest.raises(ArtifactError, match=message) as caught:
            read(soft)
        assert "resize the embedding" in caught.value.hint


def renumber(folder: Path, text: str, index: int) -> None:
    def change(table: dict[str, Any]) -> None:
        table["model"]["vocab"][text] = index
    proving.edit_json(folder / "tokenizer.json", change)


def test_ids_that_tokenizers_would_change_are_refused(tiny_llama: Path, tmp_path: Path) -> None:
    """An added token behind a gap gets the next free id, and one id of two tokens goes to either."""
    folder = Path(shutil.copytree(tiny_llama, tmp_path / "gap"))
    last = next(text for text, index in content(folder)["model"]["vocab"].items() if index == 383)

    def move(table: dict[str, Any]) -> None:
        table["model"]["vocab"] = {text: index for text, index in table["model"]["vocab"].items() if text != last}
        table["model"]["merges"] = [pair for pair in table["model"]["merges"] if "".join(pair) != last]
        table["model"]["vocab"].pop("<|pad|>", None)
        table["added_tokens"][-1]["id"] = 383
    proving.edit_json(folder / "tokenizer.json", move)
    with pytest.raises(ArtifactError, match=r"the token '<\|pad\|>' has the id 383 there, and gets 382"):
        Checkpoint.open(folder)
    twice = Path(shutil.copytree(tiny_llama, tmp_path / "twice"))
    renumber(twice, "zz", 300)
    with pytest.raises(ArtifactError, match="the id 300 is .* and 'zz'"):
        Checkpoint.open(twice)
