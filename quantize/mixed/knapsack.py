"""Deal out types so that a file of at most so many bytes loses the least: a knapsack over measured losses.

Pure arithmetic; what an option loses is measured in sensitivity.py.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ...models.errors import UsageError


@dataclass(frozen=True)
class Option:
    """One way to store a part of the model."""

    type: str
    bytes: int
    loss: float
    """Mean KL in nats when this part alone is stored so."""


def allocate(options: Mapping[str, Sequence[Option]], budget: int, fixed: int = 0) -> dict[str, Option]:
    """One option for every part, with the sum of losses as small as greed finds, in a file of at most `budget` bytes
    of which `fixed` are taken by all else.

    Everything starts at its smallest. Then, again and again, the step along some part's convex hull that takes off the
    most loss a byte is taken if it fits; at last, single options that still fit and lose less. The hull makes the
    first stage optimal for the bytes it ends at: what it misses is less than one step.

    Raises UsageError with the smallest possible size when even that is above the budget.
    """
    hulls = {name: _hull(choices) for name, choices in options.items()}
    chosen = {name: hull[0] for name, hull in hulls.items()}
    left = budget - fixed - sum(option.bytes for option in chosen.values())
    if left < 0:
        raise UsageError(f"a budget of {budget:,} bytes is too small: the smallest file has {budget - left:,}",
                         "give a larger budget, or train a smaller student")
    steps = [(-(before.loss - after.loss) / (after.bytes - before.bytes), name, place)
             for name, hull in hulls.items() for place, (before, after) in enumerate(zip(hull, hull[1:], strict=False))]
    # Along a hull the gain a byte falls, so sorting keeps every part's steps in order.
    for _, name, place in sorted(steps):
        before, after = hulls[name][place : place + 2]
        if chosen[name] is before and after.bytes - before.bytes <= left:
            left -= after.bytes - before.bytes
            chosen[name] = after
    while True:
        gains = [(chosen[name].loss - option.loss, name, option) for name, choices in options.items()
                 for option in choices if option.bytes - chosen[name].bytes <= left and option.loss < chosen[name].loss]
        if not gains:
            return chosen
        _, name, option = max(gains, key=lambda gain: (gain[0], gain[1]))
        left -= option.bytes - chosen[name].bytes
        chosen[name] = option


def _hull(choices: Sequence[Option]) -> list[Option]:
    """The options on the lower convex hull of (bytes, loss), smallest first."""
    hull: list[Option] = []
    for option in sorted(choices, key=lambda option: (option.bytes, option.loss)):
        if hull and option.loss >= hull[-1].loss:
            continue
        while len(hull) > 1 and _slope(hull[-2], option) <= _slope(hull[-2], hull[-1]):
            hull.pop()
        hull.append(option)
    return hull


def _slope(first: Option, second: Option) -> float:
    return (second.loss - first.loss) / (second.bytes - first.bytes)
