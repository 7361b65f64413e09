"""The lists of a GGUF against tokenizer.json: as llama.cpp's converter spells them they pass, exchanged ones do not."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from edgestill.models.errors import ArtifactError
from edgestill.quantize.gguf.tokenizer import write as gguf_tokenizer
from edgestill.quantize.gguf.tokenizer.write import CONTROL, NORMAL, UNUSED, Vocabulary
from edgestill.quantize.proof.certificate import Check
from edgestill.quantize.proof.checks import _vocabulary
from edgestill.quantize.proof.packed_file import Subject
from edgestill.quantize.source.tokenizer_rules import BLANK
from edgestill.runtime.text.chat_template import ChatTemplate
from edgestill.runtime.text.codec import Codec

from .. import gguf_vocabulary, proving, unigram
from .test_gguf_sentencepiece import gemma, open_gemma, sentence_piece
from .test_gguf_tokenizer import trained
from .test_gguf_wordpiece import word_piece
from .test_sound_tokenizers import in_turns

KINDS: dict[str, Callable[[Path], Path]] = {
    "GPT-2": lambda folder: trained(folder, name="gpt-2"), "Llama 2": sentence_piece,
    "Gemma": lambda folder: sentence_piece(folder, gemma),
    "Gemma by rank": lambda folder: sentence_piece(folder, open_gemma),
    "BERT": lambda folder: word_piece(folder, unused_marks), "XLM-RoBERTa": unigram.xlm_roberta,
}


def unused_marks(table: dict[str, Any]) -> None:
    """What BERT has in brackets that is no added token, and one of those that are, no mark."""
    names = table["model"]["vocab"]
    names["[unused1]"] = len(names)
    names["<new>"] = len(names)
    table["added_tokens"].append({**table["added_tokens"][0], "id": names["<new>"], "content": "<new>",
                                  "special": False})


def converted(vocabulary: Vocabulary, codec: Codec) -> Vocabulary:
    """As llama.cpp's converter writes it."""
    tokens, types = list(vocabulary.tokens), list(vocabulary.types)
    for index, token in codec.tokenizer.get_added_tokens_decoder().items():
        if not token.special:
            tokens[index] = token.content.replace(BLANK, " ")
            tokens[index] = BLANK * (vocabulary.rules.model == "bert") + tokens[index]
        elif token.content == "<mask>":
            tokens[index], types[index] = f"[PAD{index - 1}]", UNUSED
    changed = replace(vocabulary, tokens=tokens, types=types)
    if vocabulary.rules.pre == "sarvam-moe":  # of SentencePiece's it knows no ranks
        changed = replace(changed, rules=replace(
            vocabulary.rules, model="llama", pre="default", merges=[], scores=dict.fromkeys(tokens, -1.0)))
    return changed


def exchanged(items: Sequence[str], first: int, second: int) -> list[str]:
    found = list(items)
    found[first], found[second] = found[second], found[first]
    return found


def checked(codec: Codec, folder: Path, vocabulary: Vocabulary, path: Path, float_folder: Path | None = None
            ) -> dict[str, Check]:
    gguf_vocabulary.write(vocabulary, path)
    subject = SimpleNamespace(codec=codec, format="gguf", tokenizer_folder=folder, float_folder=float_folder,
                              artifact=SimpleNamespace(model_path=path))
    return {check.name: check for check in _vocabulary.checks(cast(Subject, subject))}


@pytest.mark.parametrize("kind", KINDS)
def test_files_of_the_converter_pass_and_exchanged_tokens_and_merges_do_not(kind: str, tmp_path: Path) -> None:
    source = KINDS[kind](tmp_path / "source")
    codec = Codec.from_folder(source)
    ours = gguf_tokenizer.plan(codec, codec.vocabulary_size)

    def said(vocabulary: Vocabulary) -> Check:
        return checked(codec, source, vocabulary, tmp_path / "v.gguf")["vocabulary_in_file"]
    theirs = converted(ours, codec)
    assert (theirs.tokens != ours.tokens) == (kind in ("Gemma", "Gemma by rank", "BERT", "XLM-RoBERTa"))
    for written in (ours, theirs):
        assert said(written).passed, said(written).detail
        plain = [index for index, type_ in enumerate(written.types) if type_ == NORMAL and index not in
                 codec.tokenizer.get_added_tokens_decoder()]
        found = said(replace(written, tokens=exchanged(written.tokens, *plain[-2:])))
        assert not found.passed and found.value == 2 and f"token {plain[-2]} is" in found.detail
        if merges := written.rules.merges:
            for other in (exchanged(merges, -1, -2), merges[:-1]):
                found = said(replace(written, rules=replace(written.rules, merges=other)))
                assert not found.passed and "merge" in found.detail
    added = [index for index, type_ in enumerate(ours.types) if type_ == CONTROL]
    if len(added) > 1:
        assert said(replace(ours, tokens=exchanged(ours.tokens, *added[:2]))).value == 2


def test_word_pieces_stand_at_their_own_ids(tmp_path: Path) -> None:
    """A piece, and the word that it would be without the mark before it, are two tokens."""
    source = word_piece(tmp_path / "source", unused_marks)
    codec = Codec.from_folder(source)
    ours = gguf_tokenizer.plan(codec, codec.vocabulary_size)
    older = [token.removeprefix(BLANK) if token.endswith("]") else token for token in ours.tokens]
    assert older != ours.tokens
    assert checked(codec, source, replace(ours, tokens=older), tmp_path / "v")["vocabulary_in_file"].passed
    backwards = [*ours.tokens[:100], *reversed(ours.tokens[100:])]
    found = checked(codec, source, replace(ours, tokens=backwards), tmp_path / "v")["vocabulary_in_file"]
    assert not found.passed and found.value > 300
    ids = codec.tokenizer.get_vocab()
    word = next(name for name in ids if f"##{name}" in ids)
    mixed = replace(ours, tokens=exchanged(ours.tokens, ids[word], ids[f"##{word}"]))
    assert not checked(codec, source, mixed, tmp_path / "v")["vocabulary_in_file"].passed


def test_a_tokenizer_with_more_tokens_than_the_file_does_not_pass(tmp_path: Path) -> None:
    """A base model's file against what was trained on from it, with tokens of its own."""
    source = sentence_piece(tmp_path / "source")
    codec = Codec.from_folder(source)
    base = gguf_tokenizer.plan(codec, codec.vocabulary_size)
    codec.whole_tokenizer.add_special_tokens(["<call>", "<answer>"])
    found = checked(codec, source, base, tmp_path / "v")["vocabulary_in_file"]
    size = len(base.tokens)
    assert not found.passed and found.value == 2
    assert found.detail == f"the file has {size} tokens, tokenizer.json has {size + 2}"
    with pytest.raises(ArtifactError, match=f"the id {size + 1} is outside the embedding of {size} rows"):
        gguf_tokenizer.plan(codec, size)


def test_added_tokens_stand_at_their_ids_in_tokenizer_json(tmp_path: Path) -> None:
    right, other = (sentence_piece(tmp_path / name, gemma) for name in ("right", "other"))
    codec = Codec.from_folder(right)
    ours = gguf_tokenizer.plan(codec, codec.vocabulary_size)
    assert checked(codec, right, ours, tmp_path / "v", other)["vocabulary"].passed
    assert "vocabulary" not in checked(codec, right, ours, tmp_path / "v", right)
    behind = {"id": codec.vocabulary_size, "single_word": False, "lstrip": False, "rstrip": False, "normalized": False,
              "special": True, "content": "<call>"}
    proving.edit_json(other / "tokenizer.json", lambda table: table["added_tokens"].append(behind))
    proving.edit_json(right / "tokenizer.json", lambda table: table["added_tokens"].append(
        behind | {"content": "<answer>"}))
    codec = Codec.from_folder(right)
    assert json.loads(codec.tokenizer.to_str())["model"] == json.loads(
        Codec.from_folder(other).tokenizer.to_str())["model"]
    found = checked(codec, right, gguf_tokenizer.plan(codec, codec.vocabulary_size), tmp_path / "v", other)
    assert found["vocabulary_in_file"].passed and not found["vocabulary"].passed
    assert found["vocabulary"].detail == "another list of added tokens in tokenizer.json"


def test_a_strangers_template_is_not_rendered_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = in_turns(tmp_path / "source")
    ours = gguf_tokenizer.read(source, Codec.from_folder(source).vocabulary_size)
    monkeypatch.setattr(ChatTemplate, "filled", lambda *_: pytest.fail("rendered in this process"))
    codec = Codec.from_folder(source, apart=True)
    assert checked(codec, source, ours, tmp_path / "v")["vocabulary_in_file"].passed
