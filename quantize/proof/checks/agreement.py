"""The packed file predicts what the float model predicts: KL in nats, its tail, and the most likely token."""

from __future__ import annotations

from ....models.outputs import SIGMOID
from .. import decisions
from ..certificate import Check, at_most, rounded
from ..divergence import Divergence
from ..grade import DECISIVE
from ..limits import AGAIN_FACTOR, AGAIN_NATS
from ..packed_file import Subject

TASKS = ("generate", "classify")
CAUSE = "weights"
AGAIN, AGAIN_QUICK = "kl_top64_nats", "kl_top64_quick_nats"
"""What every proof can measure: KL from the 64 most likely tokens, which are kept, and the rest taken as one; and the
same over the texts that a quick proof reads."""


def check(subject: Subject) -> list[Check]:
    """Every position of the reference's sequences in one pass (prefill), or every classifier input."""
    if subject.head is not None and subject.head.kind == SIGMOID:
        return decisions.labels(subject.head, subject.reference.outputs, subject.outputs, subject.limits)
    if subject.head is not None and subject.head.scores:
        return decisions.scores(subject.reference.outputs, subject.outputs, subject.limits)
    found = Divergence.of(subject.reference.outputs, subject.outputs) if subject.classifies else subject.prefill
    limits, cause = subject.limits, "weights" if subject.classifies else subject.blamed
    whole = subject.float_model is not None or subject.classifies
    bound = "" if whole else "a lower bound, from 64 log-probabilities and a tail"
    checks = [
        at_most("kl_nats", found.mean, limits.kl_nats, found.n, "nats", cause, bound),
        at_most("kl_p999_nats", found.p999, limits.kl_p999_nats, found.n, "nats", cause, bound),
        Check("same_top1", True, "weights", round(found.top1, 6), None, found.n),
        _decisive(found, limits.decisive_top1),
    ]
    if subject.classifies:
        return [*checks, _again(AGAIN, found.mean, found.n, subject)]
    top, few = subject.prefill_top, sum(map(len, subject.reference.sequences[: subject.first]))
    if few == subject.reference.tokens:
        return [*checks, _again(AGAIN, top.mean, top.n, subject)]
    first = Divergence(top.kl[:few], top.same_top[:few], top.decisive[:few])
    all_texts = [] if subject.quick else [_again(AGAIN, top.mean, top.n, subject)]
    return [*checks, *all_texts, _again(AGAIN_QUICK, first.mean, few, subject)]


def _again(name: str, value: float, n: int, subject: Subject) -> Check:
    """Held to what the export measured by the same rule on the same tokens: neither nearer nor farther."""
    told = subject.at_export.get(name)
    if told is None or told.value is None or told.n != n:
        return Check(name, True, "weights", rounded(value), None, n, "what later proofs are held to")
    room = AGAIN_FACTOR * told.value + AGAIN_NATS
    passed = abs(value - told.value) <= room
    return Check(name, passed, "weights", rounded(value), rounded(told.value + room), n, "" if passed else (
        f"{value:.3g} nats, the export measured {told.value:.3g} on the same tokens"))


def _decisive(found: Divergence, limit: float | None) -> Check:
    """The most likely token where the float model is sure of it. Between near ties any rounding decides, so the share
    over all positions says more about the model's doubts than about the file, and has no limit."""
    if not found.decisive.any():
        return Check(DECISIVE, None, detail="nowhere is the float model's first choice twice as likely as its second")
    share = float(found.same_top[found.decisive].mean())
    passed = limit is None or share >= limit
    return Check(DECISIVE, passed, "weights", round(share, 6), limit, int(found.decisive.sum()),
                 "" if passed else f"{share:.4f}, at least {limit} is needed")
