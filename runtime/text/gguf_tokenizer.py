"""The tokenizer and chat template inside a GGUF file, as llama.cpp reads them: for files without a tokenizer.json."""

from __future__ import annotations

import ctypes
import weakref
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from ...models.errors import ArtifactError, UsageError
from ..engines._llama import MESSAGES, library, piece, special, tokenize
from .chat_template import NO_OPTIONS, ChatTemplate
from .codec import Codec

if TYPE_CHECKING:
    from ...models.task import Task


@dataclass(frozen=True)
class Encoding:
    """The part of a tokenizers.Encoding that is used."""

    ids: list[int]
    overflowing: Sequence[Any] = ()

    @property
    def type_ids(self) -> list[int]:
        """There is one text."""
        return [0] * len(self.ids)


@dataclass(frozen=True)
class AddedToken:
    """A control or user-defined token."""

    content: str
    special: bool


class GgufTokenizer:
    """llama.cpp's tokenizer of one file, with as much of the face of tokenizers.Tokenizer as a `Codec` needs."""

    def __init__(self, path: Path) -> None:
        """Load the vocabulary and no weights; ArtifactError when llama.cpp refuses it."""
        self._c = c = library()
        self.path = path
        MESSAGES.clear()
        options = c.llama_model_default_params()
        options.vocab_only, options.n_gpu_layers = True, 0
        self._model = c.llama_model_load_from_file(str(path).encode(), options)
        if not self._model:
            raise ArtifactError(f"{path}: llama.cpp cannot load its vocabulary: "
                                f"{'; '.join(MESSAGES) or 'it gives no reason'}", "convert the model again")
        weakref.finalize(self, c.llama_model_free, self._model)
        self._vocabulary = c.llama_model_get_vocab(self._model)
        self._size = int(c.llama_vocab_n_tokens(self._vocabulary))
        self._longest: int | None = None

    def encode(self, sequence: str, pair: str | None = None, *, add_special_tokens: bool = True) -> Encoding:
        """The ids of a text; special tokens written out in it count as special tokens. UsageError for a pair."""
        if pair is not None:
            raise UsageError(f"{self.path.name}: a GGUF file does not say how its model reads a pair of texts",
                             "give single texts, or the model's folder")
        ids = tokenize(self._c, self._vocabulary, sequence, add_special_tokens)
        if self._longest is None or len(ids) <= self._longest:
            return Encoding(ids)
        # What stands around a text, such as [CLS] and [SEP], stays around its beginning.
        plain = tokenize(self._c, self._vocabulary, sequence, False)
        before = next((place for place in range(len(ids) - len(plain) + 1) if ids[place:place + len(plain)] == plain),
                      0)
        behind = len(ids) - before - len(plain)
        room = max(0, self._longest - before - behind)
        return Encoding([*ids[:before], *plain[:room], *ids[len(ids) - behind:]], [plain[room:]])

    def enable_truncation(self, max_length: int) -> None:
        """Cut texts to so many tokens from now on."""
        self._longest = max_length

    def decode(self, ids: Sequence[int], skip_special_tokens: bool = True) -> str:
        """The text of ids."""
        tokens = (ctypes.c_int32 * len(ids))(*ids)
        size = 16 * len(ids) + 16
        while True:
            buffer = ctypes.create_string_buffer(size)
            count = self._c.llama_detokenize(self._vocabulary, tokens, len(ids), buffer, size, False,
                                             not skip_special_tokens)
            if count >= 0:
                return buffer.raw[:count].decode("utf-8", "replace")
            size = -count

    def get_vocab_size(self, with_added_tokens: bool = True) -> int:
        """All tokens of the file, padding included."""
        return self._size

    def get_vocab(self, with_added_tokens: bool = True) -> dict[str, int]:
        """Ids by the text of tokens, without those that only fill the vocabulary up."""
        return self._vocab

    def token_to_id(self, token: str) -> int | None:
        """The id of a token's text."""
        return self._vocab.get(token)

    @cached_property
    def _vocab(self) -> dict[str, int]:
        unused = self._c.LLAMA_TOKEN_ATTR_UNUSED
        return {self.id_to_token(token): token for token in range(self._size)
                if not self._c.llama_vocab_get_attr(self._vocabulary, token) & unused}

    def id_to_token(self, id: int) -> str:
        """The text of a token as the file holds it."""
        text: bytes = self._c.llama_vocab_get_text(self._vocabulary, id) or b""
        return text.decode("utf-8", "replace")

    def bytes_of(self, token: int) -> bytes:
        """What a token stands for inside a text."""
        return piece(self._c, self._vocabulary, token)

    def get_added_tokens_decoder(self) -> dict[int, AddedToken]:
        """Control and user-defined tokens by id."""
        return self._added

    def to_str(self) -> NoReturn:
        """What tokenizers has and a GGUF file has not."""
        raise UsageError(f"{self.path.name}: a schema needs a tokenizer.json, and a GGUF file holds none",
                         "generate without a schema, or export the model with edgestill")

    @cached_property
    def _added(self) -> dict[int, AddedToken]:
        c = self._c
        kinds = {token: int(c.llama_vocab_get_attr(self._vocabulary, token)) for token in range(self._size)}
        return {token: AddedToken(self.id_to_token(token), bool(kind & c.LLAMA_TOKEN_ATTR_CONTROL))
                for token, kind in kinds.items()
                if kind & (c.LLAMA_TOKEN_ATTR_CONTROL | c.LLAMA_TOKEN_ATTR_USER_DEFINED)}

    def special(self) -> dict[str, int]:
        """The ids that the file names: bos_token, eos_token, pad_token."""
        return special(self._c, self._vocabulary)

    def stop_ids(self) -> frozenset[int]:
        """Every token at which llama.cpp ends generation."""
        return frozenset(token for token in range(self._size) if self._c.llama_vocab_is_eog(self._vocabulary, token))

    def template(self) -> str | None:
        """The chat template in the file."""
        text = self._c.llama_model_chat_template(self._model, None)
        return None if text is None else str(text.decode("utf-8", "replace"))


def codec(path: Path, task: Task | None = None) -> Codec:
    """Tokenizer, template and stop ids of a GGUF file as every other program will use them."""
    tokenizer = GgufTokenizer(path)
    ids, source = tokenizer.special(), tokenizer.template()
    texts = {name: tokenizer.id_to_token(token) for name, token in ids.items()}
    return Codec(tokenizer, ChatTemplate({"default": source}, texts, apart=True) if source else None,
                 ids.get("bos_token"), ids.get("eos_token"), ids.get("pad_token"), tokenizer.stop_ids(),
                 task.system if task else "", task.template_options if task else NO_OPTIONS, tokenizer.bytes_of)
