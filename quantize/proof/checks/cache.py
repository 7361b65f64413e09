"""Decoding token by token from the cache gives what one pass over the whole text gives."""

from __future__ import annotations

from ..certificate import Check, rounded
from ..divergence import Divergence
from ..packed_file import Subject

TASKS = ("generate",)
CAUSE = "cache"


def check(subject: Subject) -> list[Check]:
    """Cached decode against the same file's prefill, and against the float model.

    The first depends on nothing but the engine's cache, so wrong weights never look like a wrong cache.
    """
    against_float, against_prefill = subject.decode
    limits = subject.limits
    cause = "weights" if against_prefill.mean <= limits.cache_kl_nats else "cache"
    return [
        _at_most("cache_kl_nats", against_prefill, limits.cache_kl_nats, "cache", "prefill of the same file"),
        _at_most("decode_kl_nats", against_float, limits.kl_nats, cause, "the float model"),
    ]


def _at_most(name: str, found: Divergence, limit: float, cause: str, other: str) -> Check:
    passed = found.mean <= limit
    detail = "" if passed else f"cached decode is {found.mean:.3g} nats from {other}, at most {limit:g} is allowed"
    return Check(name, passed, cause, rounded(found.mean), limit, found.n, detail)
