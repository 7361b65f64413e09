"""WordPiece in a GGUF file: llama.cpp cuts words by itself, and the tokenizer's other words are known."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from edgestill.models.errors import ArtifactError
from edgestill.quantize.gguf.tokenizer import write as gguf_tokenizer
from edgestill.quantize.source import corpus
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ..gguf_vocabulary import CORPUS, Change, assert_same_but, both


def word_piece(folder: Path, change: Change = lambda table: None) -> Path:
    """A WordPiece tokenizer with every letter of the corpus."""
    from tokenizers import BertWordPieceTokenizer

    folder.mkdir(parents=True, exist_ok=True)
    trainer = BertWordPieceTokenizer(lowercase=True)
    trainer.train_from_iterator(CORPUS, vocab_size=900, min_frequency=1, show_progress=False)
    from tokenizers import processors

    first, last = (trainer.token_to_id(token) for token in ("[CLS]", "[SEP]"))
    trainer._tokenizer.post_processor = processors.BertProcessing(("[SEP]", last), ("[CLS]", first))
    table = json.loads(trainer.to_str())
    change(table)
    (folder / "tokenizer.json").write_text(json.dumps(table))
    named = {"unk_token": "[UNK]", "pad_token": "[PAD]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    (folder / "tokenizer_config.json").write_text(json.dumps(named))
    return folder


def set_normalizer(**changes: Any) -> Change:
    return lambda table: table["normalizer"].update(changes)


@pytest.mark.parametrize("change", [lambda table: None, set_normalizer(lowercase=False),
                                    set_normalizer(strip_accents=False)], ids=["uncased", "cased", "accents"])
def test_word_piece_rules(tmp_path: Path, change: Change) -> None:
    with both(word_piece(tmp_path / "t", change), tmp_path / "v.gguf") as (codec, loaded, vocabulary):
        assert vocabulary.rules.model == "bert" and vocabulary.ids == {
            name: codec.tokenizer.token_to_id(token) for name, token in (
                ("bos", "[CLS]"), ("seperator", "[SEP]"), ("unknown", "[UNK]"), ("padding", "[PAD]"))}
        texts = [*corpus.texts(["[SEP]"]), "a[SEP]b [MASK] c", "x" * 100, "x" * 101, "Unaffable UNAFFABLE, naïve!",
                 "[unused1] [X]"]
        assert "x" * 101 in assert_same_but(codec, loaded, texts)
        named = gguf_tokenizer.differences(codec)
        characters = [chr(code) for code in (*range(0x3100), *range(0xABF0, 0xAD00), 0xD7A3, *range(0xF8F0, 0xFB10),
                                             *range(0xFE00, 0x10000), *range(0x1F5F0, 0x1F620), 0x20000, 0x2F800)]
        wrong = [character for character in characters
                 if bool(named(character)) != (loaded.encode(f"a{character}b") != codec.encode(f"a{character}b"))
                 and codec.tokenizer.token_to_id("[UNK]") not in codec.encode(f"a{character}b")]
        assert not wrong

        @settings(deadline=None, max_examples=80, suppress_health_check=list(HealthCheck))
        @given(st.text(max_size=12))
        def same(text: str) -> None:
            assert_same_but(codec, loaded, [text])

        same()


BAD_WORD_PIECE: list[tuple[str, Change]] = [
    ("WordPiece with the normalizer type 'NFC'", lambda table: table.update(normalizer={"type": "NFC"})),
    ("a BertNormalizer with handle_chinese_chars = false", set_normalizer(handle_chinese_chars=False)),
    ("WordPiece with the pre-tokenizer", lambda table: table.update(pre_tokenizer={"type": "Whitespace"})),
    ("WordPiece without .CLS. and .SEP. around", lambda table: table.update(post_processor=None)),
    ("the unknown token '.UNK.', which is none of its added", lambda table: table.update(
        added_tokens=[token for token in table["added_tokens"] if token["content"] != "[UNK]"])),
    ("'.SEP.' that is also found in capitals", lambda table: [token.update(normalized=token["content"] == "[SEP]")
                                                              for token in table["added_tokens"]]),
]


@pytest.mark.parametrize(("message", "change"), BAD_WORD_PIECE, ids=[message for message, _ in BAD_WORD_PIECE])
def test_word_piece_rules_that_llama_cpp_lacks_are_refused(tmp_path: Path, message: str,
                                                           change: Change) -> None:
    with pytest.raises(ArtifactError, match=message):
        gguf_tokenizer.read(word_piece(tmp_path, change), 900)
