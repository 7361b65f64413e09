"""As many requests as a limit's bound takes; how long they take is said before."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

from . import limits, measures

T = TypeVar("T")
_MORE = 4
"""Times as many requests are made at most where a limit's bound lacks some because they are alike."""
_LONG = 60.0
"""Seconds from which on it is said before how long the requests will take."""


def enough(measure: Callable[[int], tuple[T, Mapping[str, Any]]], count: int, held_to: Sequence[str],
           say: Callable[[str], object]) -> tuple[T, Mapping[str, Any]]:
    """What `measure` gives for `count` requests, with its views; once more with as many as the numbers in `held_to`
    lack, where that are not many times more."""
    found, views = measure(count)
    lacking = max((limits.bounded({"views": views}, *measures.split(name))[2] for name in held_to), default=0)
    if count < lacking <= _MORE * count:
        say(f"the requests are alike, so {count} say too little: measured again with {lacking}")
        found, views = measure(lacking)
    return found, views


def tell(say: Callable[[str], object], count: int, seconds: float, one: float, held_to: Sequence[str]) -> None:
    """Say how long `count` requests of `one` second each will take, where it is long or more than was asked for."""
    expected = max(count * one, seconds)
    if held_to or expected > _LONG:
        reason = f", as many as a 95 % bound of {', '.join(held_to)} takes" if held_to else ""
        say(f"{count} requests{reason}: about {expected / 60:.1f} minutes")
