"""Which texts of a log to label next: those that a model is least sure of, and those least like what it knows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .words import Words

_ALIKE = 0.8
"""Of two texts that are more alike, one is enough."""
UNSURE, UNLIKE = "unsure", "unlike the reference"


@dataclass(frozen=True)
class Worth:
    """A text to label."""

    place: int
    why: str
    """UNSURE or UNLIKE."""


def worth_labelling(texts: Sequence[str], unlike: NDArray[np.float64], confidences: NDArray[np.float64] | None,
                    count: int) -> list[Worth]:
    """At most `count` of the texts, the most useful first, none almost the same as one before it.

    By turns the least sure one and the one least like the reference, for either alone asks for the same again: what is
    near a border, or what is far from everything. Without confidences all are of the second kind.
    """
    orders = [(UNLIKE, np.argsort(-unlike, kind="stable"))]
    if confidences is not None:
        orders.insert(0, (UNSURE, np.argsort(confidences, kind="stable")))
    vectors, found = Words(texts).vectors, list[Worth]()
    waiting = [iter(order.tolist()) for _, order in orders]
    taken = set[int]()
    turn, left = 0, len(orders)
    while len(found) < min(count, len(texts)) and left:
        for place in waiting[turn]:
            if place not in taken and not any(vectors[place] @ vectors[one.place] > _ALIKE for one in found):
                found.append(Worth(place, orders[turn][0]))
                taken.add(place)
                break
        else:
            left -= 1
        turn = (turn + 1) % len(orders)
    return found
