"""How long a proof takes, said before the time is spent."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from ...runtime.data import learned_tokens
from .checks import codes, rtn

if TYPE_CHECKING:
    from .packed_file import Subject

PROBE_TOKENS, PROBE_STEPS = 32, 8
FLOAT_PROBE_TOKENS = 128
WORTH_TELLING = 60.0
"""Seconds from which on a proof says what it takes."""


def seconds(subject: Subject, decode_tokens: int) -> float:
    """About what the checks of a decoder take here, from its own speed: texts read whole, then answers token by token;
    at export from the float model's, too.

    `decode_tokens` are those of the cache's check. 0 for encoders, which take no time to speak of.
    """
    sequences = subject.sequences
    if subject.classifies or subject.embeds or not sequences:
        return 0.0
    ids = sequences[0][:PROBE_TOKENS].tolist()
    started = time.perf_counter()
    subject.engine.logits(ids)
    read = time.perf_counter()
    subject.engine.truncate(0)
    subject.engine.prefill(ids[:1])
    one = time.perf_counter()
    for _ in range(PROBE_STEPS):
        subject.engine.decode(ids[0])
    step = (time.perf_counter() - one) / PROBE_STEPS
    token = (read - started) / len(ids)
    tokens = 2 * sum(map(len, sequences))
    steps = decode_tokens
    if not subject.quick:
        tokens += sum(map(len, subject.reference.beyond_ids))
        tokens += sum(len(learned_tokens.prompt_ids(subject.prompts, row)) for row in subject.test_rows)
        steps += len(subject.test_rows) * subject.answer_tokens
    return tokens * token + steps * step + _float_seconds(subject)


def _float_seconds(subject: Subject) -> float:
    """Of the float model, which reads all texts, and some again on the codes and on rounded weights."""
    if subject.float_model is None:
        return 0.0
    ids = subject.sequences[0][:FLOAT_PROBE_TOKENS].tolist()
    started = time.perf_counter()
    subject.float_model.logits(ids)
    token = (time.perf_counter() - started) / len(ids)
    whole = sum(map(len, subject.sequences))
    again = [codes.TOKENS, *([] if subject.quick else [rtn.TOKENS])] if subject.coded is not None else []
    return token * (whole + sum(min(whole, tokens) for tokens in again))
