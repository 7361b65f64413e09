"""Decoding token by token from the cache gives what one pass over the whole text gives."""

from __future__ import annotations

from ..certificate import Check, at_most
from ..packed_file import Subject

TASKS = ("generate",)
CAUSE = "cache"


def check(subject: Subject) -> list[Check]:
    """Cached decode against the same file's prefill, and against the float model.

    The first depends on nothing but the engine's cache, so wrong weights never look like a wrong cache.
    """
    against_float, against_prefill = subject.decode
    limits = subject.limits
    cause = subject.blamed if against_prefill.mean <= limits.cache_kl_nats else "cache"
    why = "nats between cached decode and"
    return [
        at_most("cache_kl_nats", against_prefill.mean, limits.cache_kl_nats, against_prefill.n,
                f"{why} prefill of the same file", "cache"),
        at_most("decode_kl_nats", against_float.mean, limits.kl_nats, against_float.n, f"{why} the float model", cause),
    ]
