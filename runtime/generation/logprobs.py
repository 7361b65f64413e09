"""How likely a model found its tokens, and those it might have said instead."""

from __future__ import annotations

import codecs
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ..text.codec import Codec


@dataclass(frozen=True)
class TokenLogprob:
    """A token and its natural log-probability under the model alone: before penalties, temperature and grammar."""

    id: int
    logprob: float
    top: list[tuple[int, float]]
    """The likeliest tokens in this place with theirs, likeliest first."""
    offset: int = 0
    """Where it begins in the answer's text, in characters: inside a character of several tokens, where that begins."""


def log_norms(logits: NDArray[np.float32]) -> NDArray[np.float64]:
    """What to subtract from logits [..., vocabulary] for log-probabilities [...]: summed in float64."""
    highest = logits.max(axis=-1)
    found: NDArray[np.float64] = np.log(np.exp(logits - highest[..., None]).sum(axis=-1, dtype=np.float64)) + highest
    return found


def token_logprob(logits: NDArray[np.float32], token: int, top: int) -> TokenLogprob:
    """The log-probability of `token` under logits [vocabulary], and of the `top` likeliest tokens."""
    norm = float(log_norms(logits))
    ids = np.argpartition(-logits, top)[:top] if top < len(logits) else np.arange(len(logits))
    ids = ids[np.lexsort((ids, -logits[ids]))]
    return TokenLogprob(token, float(logits[token]) - norm, [(int(best), float(logits[best]) - norm) for best in ids])


class Places:
    """Where the tokens of an answer begin in its text, while both grow."""

    def __init__(self, codec: Codec) -> None:
        self._codec = codec
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._begun = False
        self._length = 0

    def push(self, token: int) -> int:
        """The place of the next token, in characters."""
        own = self._codec.bytes_of(token)
        # What cannot go on with the character before makes a U+FFFD of it.
        place = self._length + bool(self._decoder.getstate()[0] and own and own[0] & 0xC0 != 0x80)
        if token not in self._codec.marks:
            if not self._begun and own[:1] == b" " and self._codec.decode([token])[:1] != " ":
                own = own[1:]  # the blank before a text
            self._begun = True
            self._length += len(self._decoder.decode(own))
        return place


def offsets(text: str, tokens: Sequence[bytes]) -> list[int]:
    """Where in `text`, which became `tokens` (each given by its own bytes), each of them begins, in characters.

    A token that does not stand in the text, such as one at the begin of a sequence, takes no room in it; neither does
    the blank that some tokenizers put before a text.
    """
    data = text.encode()
    found, place, characters = [], 0, 0
    for own in tokens:
        inside = place < len(data) and data[place] & 0xC0 == 0x80
        found.append(characters - inside)
        size = next((len(one) for one in (own, own.lstrip(b" ")) if data.startswith(one, place)), 0)
        characters += sum(byte & 0xC0 != 0x80 for byte in data[place:place + size])
        place += size
    return found
