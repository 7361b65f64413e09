"""What a `Codec` asks of a tokenizer, whether it came as tokenizer.json or inside a GGUF file; and tokens as bytes."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache
from typing import Any, Protocol

from ...models.errors import ArtifactError

PROBE, PROBE_SECONDS = 2**12, 1.0
"""Repetitions in a text that a stranger's tokenizer is tried on, and seconds of computing that it may take: published
ones take milliseconds."""
_BYTE = re.compile("<0x([0-9A-F]{2})>")


class Encoding(Protocol):
    """What a text becomes."""

    @property
    def ids(self) -> list[int]:
        """The ids of its tokens."""
        ...

    @property
    def type_ids(self) -> list[int]:
        """Of each token, whether it is of the first text or of the second."""
        ...

    @property
    def overflowing(self) -> Sequence[Any]:
        """What a set truncation left out; empty where nothing was."""
        ...


class AddedToken(Protocol):
    """A token that is looked for in texts before they are cut into pieces."""

    @property
    def content(self) -> str:
        """Its text."""
        ...

    @property
    def special(self) -> bool:
        """Whether it marks something and is no part of an answer's text."""
        ...


class Tokenizer(Protocol):
    """The part of `tokenizers.Tokenizer` that every tokenizer here has."""

    def encode(self, sequence: str, pair: str | None = None, *, add_special_tokens: bool = True) -> Encoding:
        """The tokens of a text, or of two as a pair; special tokens written out in it count as such."""
        ...

    def decode(self, ids: Sequence[int], skip_special_tokens: bool = True) -> str:
        """The text of ids."""
        ...

    def get_vocab(self, with_added_tokens: bool = True) -> Mapping[str, int]:
        """Ids by the text of tokens as the file holds it."""
        ...

    def get_vocab_size(self, with_added_tokens: bool = True) -> int:
        """How many tokens there are."""
        ...

    def token_to_id(self, token: str) -> int | None:
        """The id of such a text; None for what is no token."""
        ...

    def id_to_token(self, id: int) -> str | None:
        """The text of a token as the file holds it."""
        ...

    def get_added_tokens_decoder(self) -> Mapping[int, AddedToken]:
        """Added tokens by id."""
        ...

    def enable_truncation(self, max_length: int) -> None:
        """Cut what is encoded from now on to so many tokens, special ones included."""
        ...

    def to_str(self) -> str:
        """The content of tokenizer.json; UsageError where there is none."""
        ...


class boundary:
    """Turns whatever `tokenizers` raises into an ArtifactError: its Rust panics are no `Exception`s. A class, for a
    generator's context manager takes half as long as decoding a token."""

    def __init__(self, what: str) -> None:
        self._what = what

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        if isinstance(error, ArtifactError):
            return
        if isinstance(error, Exception) or (kind is not None and kind.__name__ == "PanicException"):
            raise ArtifactError(f"{self._what}: {error}", "the tokenizer file is damaged, or made by a newer version "
                                "of tokenizers: copy it again from the model") from error


def check_pace(encode: Callable[[str], Any], name: str) -> None:
    """ArtifactError for a tokenizer whose patterns go back and forth in a text again and again: what takes this long
    on one letter's repetition takes hours on somebody's prompt."""
    for text in (letter * PROBE + last for letter in ("a", " ", "1", ".", "\n", "ü", "word ", "a1") for last in "!\n"):
        started = time.thread_time()
        encode(text)
        seconds = time.thread_time() - started
        if seconds > PROBE_SECONDS:
            raise ArtifactError(f"{name}: the tokenizer takes {seconds:.1f} s for {len(text)} characters, the limit is "
                                f"{PROBE_SECONDS:g}", "its patterns are damaged or hostile: take tokenizer.json from "
                                "the model's own repository")


def bytes_of_tokens(tokenizer: Any) -> Callable[[int], bytes]:
    """What tokens of a `tokenizers.Tokenizer` stand for inside a text: their own bytes, a leading blank included."""
    added = tokenizer.get_added_tokens_decoder()
    steps = list(_steps(json.loads(tokenizer.decoder.__getstate__()) if tokenizer.decoder else None))
    kinds = {step["type"] for step in steps}
    blanks = [(step["replacement"], " ") for step in steps if step["type"] == "Metaspace"]
    blanks += [(step["pattern"]["String"], step["content"]) for step in steps
               if step["type"] == "Replace" and "String" in step["pattern"]]
    blanks += [(step["suffix"], " ") for step in steps if step["type"] == "BPEDecoder"]
    prefixes = tuple(step["prefix"] for step in steps if step["type"] == "WordPiece")

    def own(token: int) -> bytes:
        if token in added:
            return str(added[token].content).encode()
        piece = tokenizer.id_to_token(token) or ""
        if "ByteLevel" in kinds and all(letter in _alphabet() for letter in piece):
            return bytes(_alphabet()[letter] for letter in piece)
        if "ByteFallback" in kinds and (byte := _BYTE.fullmatch(piece)):
            return bytes([int(byte[1], 16)])
        for prefix in prefixes:
            piece = piece.removeprefix(prefix)
        for written, meant in blanks:
            piece = piece.replace(written, meant)
        return str(piece).encode()

    return own


@cache
def _alphabet() -> dict[str, int]:
    """GPT-2's letters for bytes: those that print as something stand for themselves, the others for 256 and on."""
    shown = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    hidden = [byte for byte in range(256) if byte not in shown]
    return {**{chr(byte): byte for byte in shown}, **{chr(256 + place): byte for place, byte in enumerate(hidden)}}


def _steps(decoder: Any) -> Iterator[dict[str, Any]]:
    if decoder and decoder["type"] == "Sequence":
        for step in decoder["decoders"]:
            yield from _steps(step)
    elif decoder:
        yield decoder
