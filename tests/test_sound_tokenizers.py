"""Ten sound tokenizers of all kinds: the certificate raises nothing, and ids mean the same text to every reader."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import numpy as np
import pytest
from edgestill.quantize import corpus
from edgestill.quantize.certify import tokens
from edgestill.quantize.subject import Subject
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from . import tiny
from .gguf_vocabulary import both
from .test_gguf_sentencepiece import gemma, metaspace, open_gemma, phi3, sentence_piece
from .test_gguf_tokenizer import trained
from .test_gguf_wordpiece import set_normalizer, word_piece

SOUND: dict[str, Callable[[Path], Path]] = {
    **{name: partial(trained, name=name) for name in ("gpt-2", "smollm", "qwen2", "llama-bpe")},
    "Llama 2": sentence_piece,
    "Llama 2 without a blank": partial(sentence_piece, change=metaspace("never")),
    "Gemma": partial(sentence_piece, change=gemma),
    "Gemma by rank": partial(sentence_piece, change=open_gemma),
    "Phi-3": partial(sentence_piece, change=phi3),
    "BERT cased": partial(word_piece, change=set_normalizer(lowercase=False)),
}


@pytest.mark.parametrize("kind", SOUND)
def test_a_sound_tokenizer_raises_nothing(kind: str, tmp_path: Path) -> None:
    from tokenizers import Tokenizer

    source = SOUND[kind](tmp_path / "source")
    other = Tokenizer.from_file(str(source / "tokenizer.json"))
    with both(source, tmp_path / "v.gguf") as (codec, loaded, vocabulary):
        texts = [*corpus.texts(tiny.SPECIAL)[::9], *tiny.SENTENCES]
        plain = [np.array(other.encode(text, add_special_tokens=False).ids, np.int32) for text in texts]
        decoded = [other.decode(ids.tolist(), skip_special_tokens=False) for ids in plain]
        task = "embed" if vocabulary.rules.model == "bert" else "generate"
        subject = SimpleNamespace(
            reference=SimpleNamespace(
                fixtures=SimpleNamespace(texts=texts), text_ids=plain, decoded=decoded.__getitem__,
                special_ids=[np.array(other.encode(text).ids, np.int32) for text in texts]),
            codec=codec, float_model=None, rows=(), test_rows=(),
            inner=SimpleNamespace(tokenize=loaded.encode, text_of=loaded.decode),
            artifact=SimpleNamespace(manifest=SimpleNamespace(task=SimpleNamespace(kind=task))))
        checks = tokens.check(cast(Subject, subject))
        assert not [check for check in checks if not check.passed]
        in_file = next(check for check in checks if check.name == "token_ids_in_file")
        assert in_file.n > len(texts) / 2, in_file.detail
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
