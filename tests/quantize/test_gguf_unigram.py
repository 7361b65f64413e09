"""Unigram in a GGUF file: llama.cpp must cut a text as tokenizers does, in all forms that transformers writes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from edgestill.models.errors import ArtifactError
from edgestill.quantize.gguf.tokenizer import write as gguf_tokenizer
from edgestill.quantize.gguf.tokenizer.charsmap import Charsmap
from edgestill.quantize.source import corpus
from edgestill.quantize.source.tokenizer_rules import BLANK
from edgestill.runtime.text.codec import Codec
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from .. import unigram
from ..gguf_vocabulary import CORPUS, Change, assert_same, assert_same_but, both

LEFT_OUT = {"Pegasus": 0.35, "trained": 0.35, "bytes": 0.4, "never": 0.5, "DeBERTa": 0.1}
"""Share of texts that may be told apart as different; of all other forms, a fiftieth of them.

Pegasus and tokenizers' own form keep a blank at the end of a text, of which the corpus has many."""
DROPS_BLANKS = {"T5", "XLM-RoBERTa", "CamemBERT", "ALBERT"}


@pytest.mark.parametrize("name", unigram.FORMS)
def test_every_form_is_cut_as_tokenizers_does(name: str, tmp_path: Path) -> None:
    with both(unigram.FORMS[name](tmp_path / "t"), tmp_path / "v.gguf") as (codec, loaded, vocabulary):
        assert vocabulary.rules.model == "t5"
        special = [token.content for token in codec.tokenizer.get_added_tokens_decoder().values()]
        texts = [*CORPUS, *corpus.texts(special)[::1 if name == "T5" else 4]]
        named = gguf_tokenizer.differences(codec)
        other = [text for text in texts if named(text)]
        assert_same(codec, loaded, [text for text in texts if text not in set(other)])
        assert len(other) <= len(texts) * LEFT_OUT.get(name, 0.02)
        assert bool(vocabulary.notes) == (LEFT_OUT.get(name, 0) > 0.1)
        if name in DROPS_BLANKS:
            assert_same(codec, loaded, ["", " ", "a  b", " a", "a ", "a\tb\n", f"a {special[0]} b", "\u3000a\u00a0b"])
        for text in texts:
            ids = codec.encode(text)
            shown = codec.decode(ids, skip_special_tokens=False)
            assert loaded.decode(ids).decode() in (shown, f" {shown}")
        signs = st.sampled_from([
            "e\u0301", "\r\n", "ｶﾞ", "\u0302", "ﬁ", "１", "  ", BLANK, "<0x41>", "漢", "Я", "🙂", "``"])

        @settings(deadline=None, max_examples=80, suppress_health_check=list(HealthCheck))
        @given(st.lists(signs | st.sampled_from(special) | st.sampled_from("the aring.X\n") | st.characters(
            codec="utf-8"), max_size=20).map("".join))
        def same(text: str) -> None:
            assert_same(codec, loaded, [text] * (not named(text)))

        same()


def test_what_is_told_apart_is_really_different(tmp_path: Path) -> None:
    source = unigram.converted(tmp_path / "t", unigram.with_bytes)
    with both(source, tmp_path / "v.gguf") as (codec, loaded, vocabulary):
        named = gguf_tokenizer.differences(codec)
        texts = [text for text in corpus.texts() if named(text)]
        assert len(texts) > 300 and all(loaded.encode(text) != codec.encode(text) for text in texts)
        assert "as bytes" in named("привет")[0] and "as bytes" in vocabulary.notes[0]
        assert loaded.decode(codec.encode("привет")).decode() == " привет"  # it reads bytes, and does not write them


def test_scores_of_double_precision_are_told(tmp_path: Path) -> None:
    """Of two cuts, tokenizers takes the one that is better by a hair; in single precision the first one stays."""
    def hair(table: dict[str, Any]) -> None:
        scores = {"ab": -3.0, "c": -3.0 + 1e-9, "a": -3.0, "bc": -3.0, BLANK: -1.0}
        table["model"]["vocab"] = table["model"]["vocab"][:3] + [[text, score] for text, score in scores.items()]

    with both(unigram.converted(tmp_path / "t", hair), tmp_path / "v.gguf") as (codec, loaded, vocabulary):
        assert loaded.encode("abc") != codec.encode("abc") and not vocabulary.notes
        assert gguf_tokenizer.differences(codec)("abc") == [
            "two cuts with scores so near that single precision cannot tell them apart"]
        assert not assert_same_but(codec, loaded, ["ab", "bc", "c"])


def test_rows_without_a_token_are_never_found(tmp_path: Path) -> None:
    source = unigram.t5(tmp_path / "t")
    size = Codec.from_folder(source).vocabulary_size + 6
    with both(source, tmp_path / "v.gguf", size) as (codec, loaded, vocabulary):
        assert vocabulary.types[-1] == gguf_tokenizer.UNUSED
        assert_same(codec, loaded, [f"{vocabulary.tokens[-1]} and {vocabulary.tokens[-2]}"])


def test_user_defined_tokens_and_blanks_beside_a_mask(tmp_path: Path) -> None:
    def defined(table: dict[str, Any]) -> None:
        plain = {**table["added_tokens"][0], "id": len(table["model"]["vocab"]), "content": "<tool>", "special": False}
        mask = {**table["added_tokens"][0], "id": plain["id"] + 1, "content": "<mask>", "lstrip": True}
        table["added_tokens"] += [plain, mask]

    with both(unigram.converted(tmp_path / "t", defined), tmp_path / "v.gguf") as (codec, loaded, vocabulary):
        assert gguf_tokenizer.USER_DEFINED in vocabulary.types
        texts = ["call<tool>light", "<tool>", "a <tool> b", "the <mask> light", "the<mask>", " <mask> "]
        assert not assert_same_but(codec, loaded, texts)
    other = unigram.converted(tmp_path / "other", lambda table: (defined(table), unigram.every_blank(table)))
    with both(other, tmp_path / "w.gguf") as (codec, loaded, _):  # llama.cpp keeps the blanks that the mask takes
        assert assert_same_but(codec, loaded, texts) == ["a <tool> b", "the <mask> light", " <mask> "]


def set_pre_tokenizer(*given: dict[str, Any]) -> Change:
    return lambda table: table.update(pre_tokenizer={"type": "Sequence", "pretokenizers": list(given)})


METASPACE = {"type": "Metaspace", "replacement": BLANK, "prepend_scheme": "never", "split": True}
BAD: list[tuple[str, Change]] = [
    ("a Unigram model without an unknown token", lambda table: table["model"].update(unk_id=None)),
    ("the normalizer type 'Prepend', prepend '-'", lambda table: table.update(
        normalizer={"type": "Prepend", "prepend": "-"})),
    ("the normalizer type 'BertNormalizer'", lambda table: table.update(normalizer={
        "type": "BertNormalizer", "clean_text": True, "handle_chinese_chars": True, "strip_accents": None,
        "lowercase": True})),
    ("the pre-tokenizer step type 'Digits'", set_pre_tokenizer({"type": "Digits", "individual_digits": True},
                                                               METASPACE)),
    ("the pre-tokenizer step type 'Metaspace', replacement '_'", unigram.metaspace(replacement="_")),
    ("a WhitespaceSplit with prepend_scheme = 'never'", set_pre_tokenizer({"type": "WhitespaceSplit"}, METASPACE)),
    ("a Metaspace that splits, with blanks inside", lambda table: table["model"]["vocab"].append([f"a{BLANK}b", -9.0])),
    ("blanks that are not written as U", lambda table: table.update(pre_tokenizer=None, normalizer=None)),
]


@pytest.mark.parametrize(("message", "change"), BAD, ids=[message for message, _ in BAD])
def test_rules_that_llama_cpp_lacks_are_refused(tmp_path: Path, message: str, change: Change) -> None:
    with pytest.raises(ArtifactError, match=message) as caught:
        gguf_tokenizer.read(unigram.converted(tmp_path, change), 3000)
    assert "ONNX" in caught.value.hint


def test_a_frame_that_ends_no_answer_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match=r"a post-processor that puts '\[SEP\]' behind a text"):
        gguf_tokenizer.read(unigram.big_bird(tmp_path), 3000)


def test_a_table_is_read_by_others_as_it_was_written() -> None:
    """tokenizers reads the double array with SentencePiece's own means, key by key."""
    from tokenizers import normalizers

    entries = {"a": "1", "ab": "22", "é": "e", "漢": "", "🙂": ":)", "b": "a b", "ｶ": "カ", **{
        chr(code): f"<{code}>" for code in range(0x400, 0x500)}}
    made = Charsmap(entries, 2)
    read = normalizers.Precompiled(made.packed())
    assert [read.normalize_str(key) for key in entries if key != "ab"] == [
        text for key, text in entries.items() if key != "ab"]  # tokenizers knows no longer keys but whole graphemes
    assert read.normalize_str("xyz\n") == "xyz\n"
    assert made.applied("abacab漢xЀ") == "221c22x<1024>"
    assert Charsmap({}, 1).packed() == b""


def test_the_file_says_what_the_tokenizer_says(tmp_path: Path) -> None:
    source = unigram.xlm_roberta(tmp_path / "t")
    table = json.loads((source / "tokenizer.json").read_text())
    with both(source, tmp_path / "v.gguf") as (_, loaded, vocabulary):
        assert vocabulary.ids == {"bos": 0, "eos": 2, "unknown": 3, "padding": 1}
        assert vocabulary.add_bos and vocabulary.add_eos and loaded.ends() == {2}
        assert [vocabulary.rules.scores[text] for text, _ in table["model"]["vocab"]] == pytest.approx(
            [score for _, score in table["model"]["vocab"]])
        assert vocabulary.types[3] == gguf_tokenizer.UNKNOWN and vocabulary.types[4] == gguf_tokenizer.NORMAL
