"""Whether an export fits into this machine's memory: said before any of it is done."""

from __future__ import annotations

from math import prod
from pathlib import Path

import psutil

from ...models.errors import UsageError
from ..source.checkpoint import Checkpoint

FLOAT_BYTES = 4.0
"""Of each weight: the model in float32, which everything is measured against."""
FILE_BYTES = 0.6
"""Of each weight: a four-bit file in its engine."""
WIDEST_BYTES = 10.0
"""Of each weight of the largest matrix, which a writer holds in float while it makes its blocks."""
PROCESS_BYTES = 700_000_000
"""Libraries, and logits that are compared."""
LIMITS = ("memory.max", "memory/memory.limit_in_bytes")


def needed_bytes(checkpoint: Checkpoint) -> int:
    """The most memory that packing and proving a model takes, by its shapes."""
    widest = max((prod(entry.shape) for entry in checkpoint.entries.values()), default=0)
    return round((FLOAT_BYTES + FILE_BYTES) * checkpoint.parameters() + WIDEST_BYTES * widest) + PROCESS_BYTES


def available_bytes(groups: Path = Path("/sys/fs/cgroup")) -> int:
    """What this process may still take, a container's limit included."""
    found = [psutil.virtual_memory().available]
    for name in LIMITS:
        try:
            found.append(int((groups / name).read_text()))
        except (OSError, ValueError):  # no such file, or "max": no limit here
            continue
    return min(found)


def check(checkpoint: Checkpoint) -> None:
    """Raise UsageError with both numbers where the export would not fit."""
    needed, available = needed_bytes(checkpoint), available_bytes()
    if needed > available:
        raise UsageError(f"{checkpoint.folder}: packing and proving {checkpoint.parameters():,} weights takes about "
                         f"{needed / 1e9:.1f} GB of memory, {available / 1e9:.1f} GB are free",
                         "end other programs, or export on a machine with more memory")
