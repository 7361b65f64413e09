"""How likely a model finds the text of rows: the negative log-likelihood of every scored token."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...models.errors import DataError
from ..data import learned_tokens
from ..data.shapes import Row
from ..generation.logprobs import log_norms

WINDOW = 512
"""Most tokens of plain text in one forward pass: logits of a window are held whole, [window, vocabulary]."""
_CHUNK = 64


def row_likelihoods(model: Any, rows: Sequence[Row]) -> NDArray[np.float64]:
    """Nats, tokens and characters of every row's scored text [rows, 3].

    Of a conversation the answer and the token that ends it are scored, given the prompt. Of plain text every
    token is scored: the first one given the begin (or else the end) of sequence token, long texts in windows
    that overlap by half. Raises DataError for a conversation longer than the model's context, and for a text
    without a token that can be scored.
    """
    found = np.array([_conversation(model, row) if row.messages else _text(model, row) for row in rows], np.float64)
    if not found[:, 1].all():
        row = rows[int(np.argmin(found[:, 1]))]
        raise DataError(f"{row.where}: no token can be scored: {row.text[:60]!r} is one token and the model has no "
                        "token to begin with", "leave out rows of a single token")
    return found


def nats(logits: NDArray[np.float32], targets: Sequence[int]) -> float:
    """The summed negative log-likelihood of `targets` [n] under `logits` [n, vocabulary]."""
    total = 0.0
    for start in range(0, len(targets), _CHUNK):  # the exponentials of a large vocabulary need not stand at once
        part = logits[start:start + _CHUNK]
        wanted = np.asarray(targets[start:start + _CHUNK])
        total += float((log_norms(part) - part[np.arange(len(wanted)), wanted]).sum())
    return total


def _conversation(model: Any, row: Row) -> tuple[float, int, int]:
    ids, start = learned_tokens.training_ids(model.codec, row)
    limit = model.engine.context_length
    if len(ids) > limit:
        raise DataError(f"{row.where}: {len(ids)} tokens, the model's context holds {limit}",
                        "leave out long rows, or load the model with a larger context")
    logits = model.logits(ids)
    return nats(logits[start - 1:-1], ids[start:]), len(ids) - start, max(1, len(model.codec.decode(ids[start:])))


def _text(model: Any, row: Row) -> tuple[float, int, int]:
    codec, engine = model.codec, model.engine
    ids: list[int] = codec.plain_ids(row.text)
    first = codec.bos_id if codec.bos_id is not None else codec.eos_id
    characters = len(row.text)
    if first is not None and ids[:1] != [first]:
        ids = [first, *ids]
    elif first is None:  # nothing precedes the first token, so it cannot be scored and its characters do not count
        characters = max(1, len(codec.decode(ids[1:])))
    size = min(WINDOW, engine.context_length)
    total, scored = 0.0, 1
    while scored < len(ids):
        begin = 0 if scored == 1 else scored - size // 2
        window = ids[begin:begin + size]
        logits = model.logits(window)
        total += nats(logits[scored - begin - 1:-1], window[scored - begin:])
        scored = begin + len(window)
    return total, len(ids) - 1, characters
