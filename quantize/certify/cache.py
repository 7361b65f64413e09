"""Decoding token by token from the cache gives what one pass over the whole text gives."""

from __future__ import annotations

from ..certificate import Check, rounded
from ..subject import Subject

TASKS = ("generate",)


def check(subject: Subject) -> list[Check]:
    """Cached decode against the same file's prefill, and against the float model.

    The first depends on nothing but the engine's cache, so wrong weights never look like a wrong cache.
    """
    against_float, against_prefill = subject.decode
    limits = subject.limits
    own, other = against_prefill.mean, against_float.mean
    consistent = own <= limits.cache_kl_nats
    return [
        Check("cache_kl_nats", consistent, "cache", rounded(own), limits.cache_kl_nats, against_prefill.n, "" if consistent
              else f"cached decode is {own:.3g} nats from prefill of the same file, at most {limits.cache_kl_nats:g} is allowed"),
        Check("decode_kl_nats", other <= limits.kl_nats, "weights" if consistent else "cache", rounded(other),
              limits.kl_nats, against_float.n,
              "" if other <= limits.kl_nats else f"{other:.3g} nats from the float model, at most {limits.kl_nats:g} is allowed"),
    ]
