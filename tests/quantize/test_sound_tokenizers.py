"""Sixteen sound tokenizers of all kinds: the certificate raises nothing, and ids mean the same text to every reader."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
from edgestill.quantize.proof.certificate import Check
from edgestill.quantize.proof.checks import tokens
from edgestill.quantize.proof.packed_file import Subject
from edgestill.quantize.source import corpus
from edgestill.runtime.data.reader import Row
from edgestill.runtime.text.codec import Codec
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from .. import tiny, unigram
from ..gguf_vocabulary import LlamaVocabulary, both
from .test_gguf_sentencepiece import gemma, metaspace, open_gemma, phi3, sentence_piece
from .test_gguf_tokenizer import trained
from .test_gguf_wordpiece import set_normalizer, word_piece


def in_turns(folder: Path) -> Path:
    """A blank before a text but not before one behind a token: only the turns of a chat are the same in llama.cpp."""
    sentence_piece(folder, metaspace("first"))
    (folder / "chat_template.jinja").write_text("{% for m in messages %}<s>{{ m.content }}</s>{% endfor %}")
    return folder


SOUND: dict[str, Callable[[Path], Path]] = {
    **{name: partial(trained, name=name) for name in ("gpt-2", "smollm", "qwen2", "llama-bpe")},
    "Llama 2": sentence_piece,
    "Llama 2 without a blank": partial(sentence_piece, change=metaspace("never")),
    "Gemma": partial(sentence_piece, change=gemma),
    "Gemma by rank": partial(sentence_piece, change=open_gemma),
    "Phi-3": partial(sentence_piece, change=phi3),
    "Llama 2 in turns": in_turns,
    "T5": unigram.t5, "XLM-RoBERTa": unigram.xlm_roberta, "Pegasus": unigram.pegasus,
    "Unigram trained": unigram.trained,
    "Unigram with bytes": partial(unigram.converted, change=unigram.with_bytes),
    "BERT cased": partial(word_piece, change=set_normalizer(lowercase=False)),
}


def checked(source: Path, codec: Codec, loaded: LlamaVocabulary, texts: list[str], rows: list[str],
            task: str = "generate") -> dict[str, Check]:
    """What the certificate says of a vocabulary alone, in the file beside `source`, of which it was written."""
    from tokenizers import Tokenizer

    other = Tokenizer.from_file(str(source / "tokenizer.json"))
    plain = [np.array(other.encode(text, add_special_tokens=False).ids, np.int32) for text in texts]
    decoded = [other.decode(ids.tolist(), skip_special_tokens=False) for ids in plain]
    subject = SimpleNamespace(
        reference=SimpleNamespace(
            fixtures=SimpleNamespace(texts=texts), text_ids=plain, decoded=decoded.__getitem__,
            special_ids=[np.array(other.encode(text).ids, np.int32) for text in texts]),
        codec=codec, float_model=None, float_folder=source, tokenizer_folder=source, format="gguf",
        rows=[Row(text=text) for text in rows], test_rows=(),
        inner=SimpleNamespace(tokenize=loaded.encode, text_of=loaded.decode),
        artifact=SimpleNamespace(model_path=source.with_name("v.gguf"),
                                 manifest=SimpleNamespace(task=SimpleNamespace(kind=task))))
    return {check.name: check for check in tokens.check(cast(Subject, subject))}


@pytest.mark.parametrize("kind", SOUND)
def test_a_sound_tokenizer_raises_nothing(kind: str, tmp_path: Path) -> None:
    from tokenizers import Tokenizer

    source = SOUND[kind](tmp_path / "source")
    other = Tokenizer.from_file(str(source / "tokenizer.json"))
    with both(source, tmp_path / "v.gguf") as (codec, loaded, vocabulary):
        texts = [*corpus.texts(tiny.SPECIAL)[::9], *tiny.SENTENCES]
        task = "embed" if vocabulary.rules.model == "bert" else "generate"
        checks = checked(source, codec, loaded, texts, rows=[] if "bytes" in kind else tiny.SENTENCES, task=task)
        assert not [check for check in checks.values() if not check.passed]
        assert "vocabulary" not in checks, "nothing is compared with itself"
        assert checks["vocabulary_in_file"].n == len(vocabulary.tokens) + len(vocabulary.rules.merges)
        in_file, left_out = checks["token_ids_in_file"], checks["left_out_in_file"]
        assert in_file.n > len(texts) / 2 and left_out.n == len(texts), in_file.detail
        assert left_out.value == pytest.approx(1 - in_file.n / len(texts), abs=1e-3)
        if task == "embed":
            return  # nobody reads an embedder's ids

        @settings(deadline=None, max_examples=60, suppress_health_check=list(HealthCheck))
        @given(st.lists(st.integers(0, codec.vocabulary_size - 1), max_size=12))
        def same(ids: list[int]) -> None:
            text = other.decode(ids, skip_special_tokens=False)
            assert codec.decode(ids, skip_special_tokens=False) == text
            broken = bool(vocabulary.rules.bytes) and "\ufffd" in text  # the marks for broken UTF-8 differ in number
            assert broken or loaded.decode(ids).decode("utf-8", "replace") in (text, f" {text}")

        same()


def few_letters(table: dict[str, Any]) -> None:
    """All but a few letters are bytes, which llama.cpp does not write: hardly a text is the same there."""
    table["model"]["vocab"] = [pair for pair in table["model"]["vocab"] if len(pair[0]) < 2 and pair[0] in "▁aeiost"
                               or pair[0] in ("<unk>", "<s>", "</s>")]
    unigram.with_bytes(table)


def test_a_file_in_which_hardly_a_text_is_compared_does_not_pass(tmp_path: Path) -> None:
    source = unigram.converted(tmp_path / "source", few_letters)
    with both(source, tmp_path / "v.gguf") as (codec, loaded, _):
        checks = checked(source, codec, loaded, corpus.texts()[::9], ["a seat", *tiny.SENTENCES[:3]])
    assert {name for name, check in checks.items() if not check.passed} == {"left_out_in_file", "left_out_rows_in_file"}
    whole, rows = checks["left_out_in_file"], checks["left_out_rows_in_file"]
    assert whole.value > whole.limit == 0.5 and "texts left out: characters without a token, which" in whole.detail
    assert (rows.value, rows.limit, rows.n) == (0.75, 0.25, 4)
    assert rows.detail.startswith("3 of 4 texts are left out, more than 25%: 3 texts left out: characters without")


def test_rows_in_a_script_without_tokens_do_not_pass(tmp_path: Path) -> None:
    """The corpus is compared well enough; what the user asks about is not."""
    source = unigram.converted(tmp_path / "source", unigram.with_bytes)
    with both(source, tmp_path / "v.gguf") as (codec, loaded, _):
        def rows(share: int) -> Check:
            texts = ["turn off the light"] * (20 - share) + ["выключи свет"] * share
            return checked(source, codec, loaded, tiny.SENTENCES, texts)["left_out_rows_in_file"]
        assert rows(2).passed and not rows(3).passed and rows(3).value == 0.15
