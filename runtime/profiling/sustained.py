"""What is left of a model's speed when it is kept busy: hot phones and boards lose a third of it and more."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

SLICES = 20
_THROTTLED = 0.9
"""Of the speed at first, below which a model counts as slowed down."""


def sustained(requests: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Speed over the time that the requests took: tokens a second of generators, texts of others, in SLICES of it.

    `kept` is the last quarter's speed over the first one's; `slowed_after_s` when it fell below 90 % of that for good,
    None where it did not.
    """
    began = requests[0]["start_ns"]
    seconds = (requests[-1]["start_ns"] + requests[-1]["end_ns"] - began) / 1e9
    ends = np.array([(request["start_ns"] + request["end_ns"] - began) / 1e9 for request in requests])
    made = np.array([request.get("new_tokens", 1) for request in requests], float)
    busy = np.array([request["end_ns"] / 1e9 for request in requests])
    slices = np.minimum((ends / seconds * SLICES).astype(int), SLICES - 1)
    speeds = [float(made[slices == one].sum() / busy[slices == one].sum()) if (slices == one).any() else None
              for one in range(SLICES)]
    known = [(place, speed) for place, speed in enumerate(speeds) if speed is not None]
    quarter = max(1, len(known) // 4)
    first, last = (float(np.median([speed for _, speed in part])) for part in (known[:quarter], known[-quarter:]))
    slow = len(known)
    while slow and known[slow - 1][1] < _THROTTLED * first:
        slow -= 1
    return {"seconds": seconds, "per_s": speeds, "first_per_s": first, "last_per_s": last, "kept": last / first,
            "slowed_after_s": known[slow][0] * seconds / SLICES if slow < len(known) else None}
