"""SentencePiece-style BPE in a GGUF file: Llama 2's kind, Gemma's and Phi-3's."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from edgestill.models.errors import ArtifactError
from edgestill.quantize.gguf.tokenizer import sentencepiece
from edgestill.quantize.gguf.tokenizer import write as gguf_tokenizer
from edgestill.quantize.source import corpus, tokenizer_rules
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ..gguf_vocabulary import Change, assert_same, assert_same_but, both, shared_texts


def test_a_sentence_piece_vocabulary(shared: Path, tmp_path: Path) -> None:
    source = shared / "models" / "stories260K"
    if not source.is_dir():
        pytest.skip("needs stories260K")
    with both(source, tmp_path / "v.gguf") as (codec, loaded, vocabulary):
        assert vocabulary.rules.model == "llama" and vocabulary.add_bos
        assert "several in a row" in vocabulary.notes[0]
        assert_same_but(codec, loaded, [*corpus.texts(), *shared_texts(shared)])


def test_a_vocabulary_that_merges_other_splits_is_refused(shared: Path) -> None:
    source = shared / "models" / "tinystories-656k"
    if not source.is_dir():
        pytest.skip("needs tinystories-656k")
    with pytest.raises(ArtifactError, match="no token for the byte <0x00>; llama.cpp carries only"):
        gguf_tokenizer.read(source, 2048)


def sentence_piece(folder: Path, change: Change = lambda table: None) -> Path:
    """A closed SentencePiece-style vocabulary: every split of a token is a merge, as in Llama 2's."""
    blank = tokenizer_rules.BLANK
    words = ["th", "the", blank + "t", blank + "th", blank + "the", "he", "er", blank + "a", "in", "ing", blank * 2]
    letters = sorted({*"abcdefghijklmnopqrstuvwxyz.", blank})
    tokens = ["<unk>", "<s>", "</s>", *(f"<0x{value:02X}>" for value in range(256)), *words, *letters]
    vocabulary = {token: index for index, token in enumerate(tokens)}
    merges = [[word[:cut], word[cut:]] for word in words for cut in range(1, len(word))
              if word[:cut] in vocabulary and word[cut:] in vocabulary]
    table = {
        "version": "1.0", "truncation": None, "padding": None,
        "added_tokens": [{"id": index, "content": token, "single_word": False, "lstrip": False, "rstrip": False,
                          "normalized": False, "special": True} for index, token in enumerate(tokens[:3])],
        "normalizer": {"type": "Sequence", "normalizers": [
            {"type": "Prepend", "prepend": blank}, {"type": "Replace", "pattern": {"String": " "}, "content": blank}]},
        "pre_tokenizer": None,
        "post_processor": {"type": "TemplateProcessing", "single": [
            {"SpecialToken": {"id": "<s>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}], "pair": [
            {"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
            "special_tokens": {"<s>": {"id": "<s>", "ids": [1], "tokens": ["<s>"]}}},
        "decoder": {"type": "Sequence", "decoders": [
            {"type": "Replace", "pattern": {"String": blank}, "content": " "}, {"type": "ByteFallback"},
            {"type": "Fuse"}, {"type": "Strip", "content": " ", "start": 1, "stop": 0}]},
        "model": {"type": "BPE", "dropout": None, "unk_token": "<unk>", "continuing_subword_prefix": None,
                  "end_of_word_suffix": None, "fuse_unk": True, "byte_fallback": True, "ignore_merges": False,
                  "vocab": vocabulary, "merges": merges},
    }
    change(table)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "tokenizer.json").write_text(json.dumps(table))
    named = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
    (folder / "tokenizer_config.json").write_text(json.dumps(named))
    return folder


def metaspace(scheme: str, split: bool = False) -> Change:
    step = {"type": "Metaspace", "replacement": tokenizer_rules.BLANK, "prepend_scheme": scheme, "split": split}
    return lambda table: table.update(normalizer=None, pre_tokenizer=step)


@pytest.mark.parametrize("change", [lambda table: None, metaspace("always"), metaspace("never"), metaspace("first")],
                         ids=["prepend", "always", "never", "first"])
def test_sentence_piece_rules(tmp_path: Path, change: Change) -> None:
    with both(sentence_piece(tmp_path / "t", change), tmp_path / "v.gguf") as (codec, loaded, vocabulary):
        assert vocabulary.ids == {"bos": 1, "eos": 2, "unknown": 0}
        texts = ["the thing", "other  theatre", "a.the\n", "grüße 漢", "a", "there is the other thing in the theatre."]
        assert_same(codec, loaded, texts)
        if not vocabulary.notes:
            assert_same(codec, loaded, ["a</s>the", "<s>the thing</s>", " the", "   "])

            @settings(deadline=None, max_examples=80, suppress_health_check=list(HealthCheck))
            @given(st.text("the aring.x\n漢", min_size=1, max_size=30))
            def same(text: str) -> None:
                assert loaded.encode(text) == codec.encode(text)

            same()


def gemma(table: dict[str, Any]) -> None:
    """No blank before a text, line ends and runs of blanks as added tokens, a step that splits nothing."""
    for content, index in (("\n\n", len(table["model"]["vocab"])), (tokenizer_rules.BLANK * 2, None)):
        index = table["model"]["vocab"].setdefault(content, index)
        table["added_tokens"].append({**table["added_tokens"][0], "id": index, "content": content, "special": False})
    table["decoder"]["decoders"].pop()  # no blank to take away
    table["normalizer"] = table["normalizer"]["normalizers"][1]
    table["pre_tokenizer"] = {"type": "Split", "pattern": {"String": " "}, "behavior": "MergedWithPrevious",
                              "invert": False}


def open_gemma(table: dict[str, Any]) -> None:
    gemma(table)
    table["model"]["merges"].remove(["t", "he"])


def without_bytes(table: dict[str, Any]) -> None:
    gemma(table)
    names = [name for name in table["model"]["vocab"] if name not in sentencepiece.BYTES]
    table["model"]["vocab"] = {name: index for index, name in enumerate(names)}
    for token in table["added_tokens"]:
        token["id"] = names.index(token["content"])


@pytest.mark.parametrize(("change", "pre"), [(gemma, "default"), (open_gemma, "sarvam-moe"),
                                             (without_bytes, "sarvam-moe")])
def test_gemma_s_kind_merges_by_score_or_by_rank(tmp_path: Path, change: Change,
                                                 pre: str) -> None:
    with both(sentence_piece(tmp_path / "t", change), tmp_path / "v.gguf") as (codec, loaded, vocabulary):
        assert vocabulary.rules.pre == pre
        texts = ["the thing", "other  theatre", "a.the\n\n\nthe\n", "a</s>the", "<s>the thing</s>", " the", "   "]
        no_lines = [text for text in texts if "\n" not in text]
        assert not assert_same_but(codec, loaded, no_lines if change == without_bytes else texts)
        assert bool(assert_same_but(codec, loaded, ["grüße 漢"])) == (change == without_bytes)
        assert assert_same_but(codec, loaded, ["a ▁▁ the", "a   the"]) == ["a ▁▁ the"]
        assert loaded.encode("a ▁▁ the") != codec.encode("a ▁▁ the")

        @settings(deadline=None, max_examples=150, suppress_health_check=list(HealthCheck))
        @given(st.text(st.sampled_from("the aring.x\n漢") | st.characters(codec="utf-8"), max_size=30))
        def same(text: str) -> None:
            assert_same_but(codec, loaded, [text.replace(tokenizer_rules.BLANK, "")])

        same()


def phi3(table: dict[str, Any]) -> None:
    tokens = ["<|endoftext|>", "<|assistant|>", "<|end|>"]
    for content in tokens:
        index = table["model"]["vocab"].setdefault(content, len(table["model"]["vocab"]))
        table["added_tokens"].append({**table["added_tokens"][0], "id": index, "content": content})
    for token in table["added_tokens"]:
        token["rstrip"] = token["content"] not in gguf_tokenizer.PHI3_KEEPS


def test_phi_3_s_tokens_take_the_blanks_behind_them(tmp_path: Path) -> None:
    with both(sentence_piece(tmp_path / "t", phi3), tmp_path / "v.gguf") as (codec, loaded, vocabulary):
        assert vocabulary.trims
        assert_same(codec, loaded, ["a<|end|>\n<|assistant|> \n the", "the</s>  ing", "<|endoftext|> the", "<s>  a"])
        assert assert_same_but(codec, loaded, ["the<|end|>\u2003the"])


def test_an_added_token_that_its_normalizer_changes_is_refused(tmp_path: Path) -> None:
    source = sentence_piece(tmp_path, lambda table: table["added_tokens"][2].update(normalized=True))
    with pytest.raises(ArtifactError, match="'</s>', which its normalizer changes to '▁</s>'"):
        gguf_tokenizer.read(source, 300)


def set_model(**changes: Any) -> Change:
    return lambda table: table["model"].update(changes)


BAD_SENTENCE_PIECE: list[tuple[str, Change]] = [
    ("end_of_word_suffix = '@'", set_model(end_of_word_suffix="@")),
    ("neither byte-level nor falls back to bytes", set_model(byte_fallback=False)),
    ("no token for the byte <0x41>", lambda table: table["model"]["vocab"].pop("<0x41>")),
    ("the token 'the', which is not merged from 't' and 'he'",
     lambda table: table["model"]["merges"].remove(["t", "he"])),
    ("on both sides of one into", lambda table: table["model"]["merges"].append(table["model"]["merges"].pop(1))),
    ("the normalizer type 'Lowercase'", lambda table: table.update(normalizer={"type": "Lowercase"})),
    ("blanks that are not written as U", lambda table: table.update(normalizer=None)),
    ("the pre-tokenizer step type 'Whitespace'", lambda table: table.update(pre_tokenizer={"type": "Whitespace"})),
    ("a Metaspace that splits", metaspace("always", split=True)),
]


@pytest.mark.parametrize(("message", "change"), BAD_SENTENCE_PIECE, ids=[message for message, _ in BAD_SENTENCE_PIECE])
def test_sentence_piece_rules_that_llama_cpp_lacks_are_refused(tmp_path: Path, message: str,
                                                               change: Change) -> None:
    with pytest.raises(ArtifactError, match=message) as caught:
        gguf_tokenizer.read(sentence_piece(tmp_path, change), 300)
    assert "ONNX" in caught.value.hint
