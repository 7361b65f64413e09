"""Beyond its window and its original context the packed file still predicts what the float model predicts."""

from __future__ import annotations

import numpy as np

from ...source import context_limits
from ..certificate import Check, rounded
from ..divergence import Divergence, decisive, kl_of_top
from ..limits import BEYOND_FACTOR
from ..packed_file import Subject

TASKS = ("generate",)
CAUSE = "weights"
QUICK = False
NAME = "beyond_window_kl_nats"


def check(subject: Subject) -> list[Check]:
    """The last tokens of one long text, read from the cache; nothing for a model that reads alike everywhere."""
    stored = subject.reference
    _, untried = context_limits.plan(stored.fixtures.borders, subject.artifact.manifest.dimensions.get("context", 0), 0)
    missing = [Check("beyond_window", None, detail=untried)] if untried else []
    if not stored.beyond_ids:
        return missing
    ids, top_ids, logprobs = stored.beyond_ids[0].tolist(), stored.beyond_top_ids[0], stored.beyond_top_logprobs[0]
    if len(ids) > subject.engine.context_length:
        return [*missing, Check(NAME, None, detail=f"the file ends at {subject.engine.context_length:,} tokens, where "
                                "its engine would read otherwise than the float model")]
    subject.engine.truncate(0)
    subject.engine.prefill(ids[:-len(top_ids)])
    logits = np.stack([np.array(subject.engine.decode(token)) for token in ids[-len(top_ids):]])
    found = Divergence(kl_of_top(top_ids, logprobs, stored.beyond_tails[0], logits),
                       top_ids[:, 0] == logits.argmax(axis=1), decisive(logprobs))
    limit = BEYOND_FACTOR * subject.prefill_top.mean + subject.limits.beyond_nats
    passed = found.mean <= limit
    return [*missing, Check(NAME, passed, CAUSE, rounded(found.mean), rounded(limit), found.n, (
        f"behind {len(ids) - found.n:,} tokens" if passed else
        f"{found.mean:.3g} nats behind {len(ids) - found.n:,} tokens, at most {limit:.3g} is allowed: "
        f"{', '.join(f'{name} {border:,}' for name, border in stored.fixtures.borders.items())}"))]
