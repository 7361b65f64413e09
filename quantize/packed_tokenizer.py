"""The tokenizer inside a GGUF file, read by llama.cpp itself: what every llama.cpp client will use."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..models.errors import ArtifactError, MissingExtra


class GgufTokenizer:
    """llama.cpp's view of a GGUF's vocabulary; no weights are loaded. Use it in a `with` block."""

    def __init__(self, path: Path) -> None:
        """Raises ArtifactError when llama.cpp does not take the file, MissingExtra without llama-cpp-python."""
        try:
            import llama_cpp
        except ImportError as error:
            raise MissingExtra("llama-cpp-python", "gguf") from error
        self._api: Any = llama_cpp
        llama_cpp.llama_backend_init()
        parameters = llama_cpp.llama_model_default_params()
        parameters.vocab_only = True
        self._model = llama_cpp.llama_model_load_from_file(str(path).encode(), parameters)
        if not self._model:
            raise ArtifactError(f"{path}: llama.cpp cannot read its vocabulary", "export it again")
        self._vocabulary = llama_cpp.llama_model_get_vocab(self._model)

    def __enter__(self) -> GgufTokenizer:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Free the vocabulary; safe to call twice."""
        if self._model:
            self._api.llama_model_free(self._model)
            self._model = None

    @property
    def size(self) -> int:
        """Tokens in the vocabulary."""
        return int(self._api.llama_vocab_n_tokens(self._vocabulary))

    def encode(self, text: str, add_special_tokens: bool = False) -> list[int]:
        """The ids of a text; special tokens written out in it count as special tokens."""
        data = text.encode("utf-8")
        room = len(data) + 8
        while True:
            ids = (self._api.llama_token * room)()
            count = self._api.llama_tokenize(self._vocabulary, data, len(data), ids, room, add_special_tokens, True)
            if count >= 0:
                return list(ids[:count])
            room = -count

    def decode(self, ids: Sequence[int]) -> bytes:
        """The bytes that ids stand for, special tokens written out, without a leading blank's removal."""
        return b"".join(self._piece(token) for token in ids)

    def is_end(self, token: int) -> bool:
        """Whether llama.cpp stops generating at this id."""
        return bool(self._api.llama_vocab_is_eog(self._vocabulary, token))

    def template(self) -> str | None:
        """The chat template stored in the file."""
        text = self._api.llama_model_chat_template(self._model, None)
        return None if text is None else text.decode("utf-8")

    def _piece(self, token: int) -> bytes:
        room = 64
        while True:
            buffer = ctypes.create_string_buffer(room)
            count = self._api.llama_token_to_piece(self._vocabulary, token, buffer, room, 0, True)
            if count >= 0:
                return buffer.raw[:count]
            room = -count
