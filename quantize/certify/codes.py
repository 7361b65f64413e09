"""The packed file predicts what its own 4-bit codes predict in the float model, but for its engine's rounding."""

from __future__ import annotations

import numpy as np

from ..certificate import Check, rounded
from ..divergence import Divergence, decisive, join, kl
from ..limits import CODES_KL_NATS
from ..subject import Subject

TASKS = ("generate",)
CAUSE = "weights"
NAME = "codes_kl_nats"
TOKENS = 2048
"""Tokens that are compared."""


def check(subject: Subject) -> list[Check]:
    """At export only, where codes and float model are at hand, and for types that are made of codes."""
    if subject.coded is None or subject.float_model is None:
        return []
    with subject.coded.placed(subject.float_model) as model:
        if model is None:
            return [Check(NAME, None, detail="the float model has no matrices of the shapes that were packed")]
        parts, left = [], TOKENS
        for ids in subject.reference.sequences:
            wanted = model.logits(ids[:left].tolist())
            found = np.asarray(subject.engine.logits(ids[:left].tolist()))
            parts.append(Divergence(kl(wanted, found), np.asarray(wanted.argmax(axis=1) == found.argmax(axis=1)),
                                    decisive(wanted)))
            left -= len(parts[-1].kl)
            if left <= 0:
                break
    lost, limit = join(parts), CODES_KL_NATS
    passed = lost.mean <= limit
    return [Check(NAME, passed, "weights", rounded(lost.mean), limit, lost.n, "" if passed else (
        f"{lost.mean:.3g} nats from its own codes in the float model, at most {limit:g} is allowed"))]
