"""The packed file predicts what the float model predicts: KL in nats, its tail, and the most likely token."""

from __future__ import annotations

import numpy as np

from ..certificate import Check
from ..divergence import Divergence, kl
from ..subject import Subject

TASKS = ("generate", "classify")


def check(subject: Subject) -> list[Check]:
    """Every position of the reference's sequences in one pass (prefill), or every classifier input."""
    found = _classes(subject) if subject.classifies else subject.prefill
    limits = subject.limits
    bound = "" if subject.float_model is not None or subject.classifies else "a lower bound, from 64 log-probabilities and a tail"
    return [
        _at_most("kl_nats", found.mean, limits.kl_nats, found.n, bound),
        _at_most("kl_p999_nats", found.p999, limits.kl_p999_nats, found.n, bound),
        Check("same_top1", found.top1 >= limits.same_top1, "weights", round(found.top1, 6), limits.same_top1, found.n,
              "" if found.top1 >= limits.same_top1 else f"{found.top1:.4f}, at least {limits.same_top1} is needed"),
    ]


def _classes(subject: Subject) -> Divergence:
    expected = subject.reference.class_logits
    logits = subject.class_logits()
    return Divergence(kl(expected, logits), np.asarray(expected.argmax(axis=1) == logits.argmax(axis=1)))


def _at_most(name: str, value: float, limit: float, n: int, note: str) -> Check:
    detail = note if value <= limit else f"{value:.3g} nats, at most {limit:g} is allowed"
    return Check(name, value <= limit, "weights", float(f"{value:.4g}"), limit, n, detail)
