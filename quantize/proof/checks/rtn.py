"""The method that chose the 4-bit codes lost no more than rounding every weight to the nearest step would have."""

from __future__ import annotations

from ....models.kv_cache import AUTO
from ..certificate import Check, rounded
from ..divergence import first, join
from ..limits import RTN_FACTOR, RTN_NATS
from ..packed_file import Subject

TASKS = ("generate",)
CAUSE = "weights"
QUICK = False
NAME = "rtn_kl_nats"
TOKENS = 2048
"""Tokens that both are compared on."""


def check(subject: Subject) -> list[Check]:
    """At export only, where the float model is at hand, and for types that are made of codes.

    What a type loses depends on the model; what plain rounding of this model loses is measured, not looked up.
    """
    if subject.coded is None or subject.float_model is None:
        return []
    texts = first(subject.reference.sequences, TOKENS)
    with subject.coded.rounded(subject.float_model) as model:
        if model is None:
            return [Check(NAME, None, detail="the float model has no matrices of the shapes that were packed")]
        model.read(texts)  # each pass puts every weight in its place
        plain = [subject.against_top(index, slice(0, len(ids)), model.logits(ids)) for index, ids in enumerate(texts)]
    nearest = join(plain)
    own = subject.prefill_top
    if subject.artifact.manifest.kv != AUTO:  # the codes are judged, not the cache
        own = join([subject.against_top(index, slice(0, len(ids)), subject.engines.plain.logits(ids))
                    for index, ids in enumerate(texts)])
    value = float(own.kl[:nearest.n].mean())
    limit = RTN_FACTOR * nearest.mean + RTN_NATS
    passed = value <= limit
    told = f"rounding to the nearest loses {nearest.mean:.4g}" if passed else (
        f"{value:.3g} nats where rounding to the nearest loses {nearest.mean:.3g}; at most {limit:.3g} is allowed")
    return [Check(NAME, passed, "weights", rounded(value), rounded(limit), nearest.n, told)]
