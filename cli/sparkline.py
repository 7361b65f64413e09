"""Numbers over time in one line of a terminal."""

from __future__ import annotations

import sys
from collections.abc import Sequence

BARS = "▁▂▃▄▅▆▇█"


def sparkline(values: Sequence[float], width: int = 60) -> str:
    """A bar for each of at most `width` runs of neighbours: their mean, from the least to the most. Empty for fewer
    than two values, and where the terminal has no such characters."""
    try:
        BARS.encode(sys.stdout.encoding or "ascii")
    except (UnicodeEncodeError, LookupError):
        return ""
    if len(values) < 2:
        return ""
    count = min(width, len(values))
    parts = [values[place * len(values) // count:(place + 1) * len(values) // count] for place in range(count)]
    means = [sum(part) / len(part) for part in parts]
    least, most = min(means), max(means)
    step = (most - least) / (len(BARS) - 1) or 1.0
    return "".join(BARS[round((mean - least) / step)] for mean in means)
