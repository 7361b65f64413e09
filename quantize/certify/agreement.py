"""The packed file predicts what the float model predicts: KL in nats, its tail, and the most likely token."""

from __future__ import annotations

import numpy as np

from ...models.outputs import SIGMOID
from .. import decisions
from ..certificate import Check, rounded
from ..divergence import Divergence, decisive, kl
from ..subject import Subject

TASKS = ("generate", "classify")
CAUSE = "weights"


def check(subject: Subject) -> list[Check]:
    """Every position of the reference's sequences in one pass (prefill), or every classifier input."""
    if subject.head is not None and subject.head.kind == SIGMOID:
        return decisions.labels(subject.head, subject.reference.outputs, subject.outputs, subject.limits)
    if subject.head is not None and subject.head.scores:
        return decisions.scores(subject.reference.outputs, subject.outputs, subject.limits)
    found = _classes(subject) if subject.classifies else subject.prefill
    limits = subject.limits
    whole = subject.float_model is not None or subject.classifies
    bound = "" if whole else "a lower bound, from 64 log-probabilities and a tail"
    return [
        _at_most("kl_nats", found.mean, limits.kl_nats, found.n, bound),
        _at_most("kl_p999_nats", found.p999, limits.kl_p999_nats, found.n, bound),
        Check("same_top1", True, "weights", round(found.top1, 6), None, found.n),
        _decisive(found, limits.decisive_top1),
    ]


def _decisive(found: Divergence, limit: float) -> Check:
    """The most likely token where the float model is sure of it. Between near ties any rounding decides, so the share
    over all positions says more about the model's doubts than about the file, and has no limit."""
    name = "same_top1_decisive"
    if not found.decisive.any():
        return Check(name, None, detail="nowhere is the float model's first choice twice as likely as its second")
    share = float(found.same_top[found.decisive].mean())
    return Check(name, share >= limit, "weights", round(share, 6), limit, int(found.decisive.sum()),
                 "" if share >= limit else f"{share:.4f}, at least {limit} is needed")


def _classes(subject: Subject) -> Divergence:
    expected = subject.reference.outputs
    logits = subject.outputs
    same = np.asarray(expected.argmax(axis=1) == logits.argmax(axis=1))
    return Divergence(kl(expected, logits), same, decisive(expected))


def _at_most(name: str, value: float, limit: float, n: int, note: str) -> Check:
    detail = note if value <= limit else f"{value:.3g} nats, at most {limit:g} is allowed"
    return Check(name, value <= limit, "weights", rounded(value), limit, n, detail)
