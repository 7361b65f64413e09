"""llama.cpp's tokenizer of a vocabulary that stands in a GGUF file alone, beside the one it was written from."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from edgestill.quantize.gguf.tokenizer import write as gguf_tokenizer
from edgestill.runtime.engines._llama import library
from edgestill.runtime.text.codec import Codec

from . import tiny

CORPUS = [
    *tiny.SENTENCES, "I'LL we'll don't DON'T it's'", "a  b   c\t\td\r\n\r\n  e \n f", "1 12 123 1234 12345.678", "",
    "½ Ⅷ ²", "x=1;y+=2//comment\n\tif(a&&b){return!c;}", "ナイーブ カフェ 한국어 ไทย",
    "العربية עברית हिन्दी", " leading", "trailing ", "\n", "   ",
    "<|end|> inside <|user|>text<|assistant|>", "\ufb01 ligature, e\u0301 combining",
    "\u200b zero width\u00a0no-break", "👩\u200d👩\u200d👧\u200d👦🇩🇪",
]
Change = Callable[[dict[str, Any]], object]
"""Of a tokenizer.json."""


class LlamaVocabulary:
    """llama.cpp's tokenizer of a file that holds nothing else."""

    def __init__(self, path: Path) -> None:
        self.c = library()
        options = self.c.llama_model_default_params()
        options.vocab_only = True
        self.model = self.c.llama_model_load_from_file(str(path).encode(), options)
        assert self.model, "llama.cpp refuses the vocabulary"
        self.vocabulary = self.c.llama_model_get_vocab(self.model)

    def encode(self, text: str, special: bool = False) -> list[int]:
        data = text.encode()
        ids = (ctypes.c_int32 * (len(data) + 8))()
        count = self.c.llama_tokenize(self.vocabulary, data, len(data), ids, len(ids), special, True)
        return list(ids[:count])

    def decode(self, ids: list[int]) -> bytes:
        part = ctypes.create_string_buffer(512)
        counts = (self.c.llama_token_to_piece(self.vocabulary, token, part, 512, 0, True) for token in ids)
        return b"".join(part.raw[:count] for count in counts)

    def ends(self) -> set[int]:
        count = self.c.llama_vocab_n_tokens(self.vocabulary)
        return {index for index in range(count) if self.c.llama_vocab_is_eog(self.vocabulary, index)}


def assert_same_but(codec: Codec, loaded: LlamaVocabulary, texts: list[str]) -> list[str]:
    """Both make the same ids of every text but those with a known difference, which are returned."""
    named = gguf_tokenizer.differences(codec)
    other = [text for text in texts if named(text)]
    assert_same(codec, loaded, [text for text in texts if text not in other])
    return other


def write(vocabulary: gguf_tokenizer.Vocabulary, path: Path) -> None:
    """A file with a vocabulary, and an embedding of one number a token."""
    import gguf

    writer = gguf.GGUFWriter(path, "llama")
    writer.add_vocab_size(len(vocabulary.tokens))
    gguf_tokenizer.add(writer, vocabulary)
    writer.add_tensor("token_embd.weight", np.zeros((len(vocabulary.tokens), 1), np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


@contextmanager
def both(source: Path, path: Path, size: int = 0) -> Iterator[tuple[Codec, LlamaVocabulary, gguf_tokenizer.Vocabulary]]:
    """A folder's tokenizer, and llama.cpp's of the vocabulary written from it."""
    codec = Codec.from_folder(source)
    vocabulary = gguf_tokenizer.read(source, size or codec.vocabulary_size)
    write(vocabulary, path)
    loaded = LlamaVocabulary(path)
    try:
        yield codec, loaded, vocabulary
    finally:
        loaded.c.llama_model_free(loaded.model)


def assert_same(codec: Codec, loaded: LlamaVocabulary, texts: list[str]) -> None:
    for text in texts:
        for special in (False, True):
            assert loaded.encode(text, special) == codec.encode(text, special), (text, special)


def shared_texts(shared: Path) -> list[str]:
    files = [shared / "data" / "tinyshakespeare", shared / "data" / "wikitext2", shared / "data" / "tinystories"]
    texts = []
    for folder in files:
        for path in sorted(folder.rglob("*.txt"))[:3]:
            texts += path.read_bytes()[:25_000].decode("utf-8", "ignore").split("\n\n")
    assert sum(map(len, texts)) > 30_000
    return texts
