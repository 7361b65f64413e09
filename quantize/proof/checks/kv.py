"""Keys and values in fewer bits cost the file no more than such bits may."""

from __future__ import annotations

from ..certificate import Check, at_most
from ..limits import KV_KL_NATS
from ..packed_file import Subject

TASKS = ("generate",)
CAUSE = "cache"
NAME = "kv_kl_nats"


def check(subject: Subject) -> list[Check]:
    """The file beside itself; nothing for one that keeps them as its engine does."""
    lost, kv = subject.engines.kv_loss(subject.sequences), subject.artifact.manifest.kv
    if lost is None:
        return []
    sure = lost.same_top[lost.decisive]
    note = f"keys and values in {kv}; {sure.mean():.1%} of {len(sure):,} sure tokens are the same" if len(sure) else ""
    return [at_most(NAME, lost.mean, KV_KL_NATS[kv], lost.n, f"nats from the same file with keys and values in more "
                    f"bits, not {kv}", CAUSE, note)]
