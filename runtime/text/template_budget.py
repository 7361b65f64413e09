"""What a rendering may cost: steps that are paid before something is made, and seconds for what steps do not tell."""

from __future__ import annotations

import re
import time
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from string import Formatter
from typing import Any

from ...models.errors import DataError

STEPS, LONGEST = 2_000_000, 2**24
"""Most steps of one rendering (a turn of a loop, 16 characters made, half an entry of a list; a call is ten), and most
characters of a text."""
SECONDS = 10.0
"""Most seconds of computing for one rendering; those of published templates take milliseconds."""
_OFTEN = 64
"""Payments from one look at the clock to the next."""
STEP, CALL, INDENT = 16, 10, 64
_LARGEST, _BITS, _SCAN, _NODES = 1_000_000, 4096, 4096, 100_000
_WIDTH = re.compile(r"\d+")
_LEFT: ContextVar[tuple[list[int], float]] = ContextVar("steps left of a rendering, payments, and the last second")


@contextmanager
def budget() -> Iterator[None]:
    """Give what runs inside a budget of its own."""
    token = _LEFT.set(([STEPS, 0], time.thread_time() + SECONDS))  # however busy the machine is
    try:
        yield
    finally:
        _LEFT.reset(token)


def pay(steps: int) -> None:
    """Take steps off the budget; DataError when they or the time are used up."""
    left, until = _LEFT.get()
    left[0] -= steps
    left[1] += 1
    if left[0] < 0:
        raise endless(f"it takes more than {STEPS} steps")
    if left[1] % _OFTEN == 0 and time.thread_time() > until:
        raise endless(f"it takes more than {SECONDS:g} s")


def make(size: int) -> None:
    """Pay for a text of this size before it is made."""
    if size > LONGEST:
        raise endless(f"it makes a text of more than {LONGEST} characters")
    pay(size // STEP)


def extend(entries: int) -> None:
    """Pay for a list or tuple of so many entries before it is made."""
    if entries > LONGEST:
        raise endless(f"it makes a list of more than {LONGEST} entries")
    pay(entries // 2)


def items(value: Any) -> Any:
    """What a loop or a filter goes over, each turn paid for."""
    if isinstance(value, Collection):
        pay(len(value))
        return value
    found = []
    for one in value:
        pay(1)
        found.append(one)
    return found


def text(value: Any) -> Any:
    """A value that is written, paid for by its length."""
    pay(1)
    make(size(value))
    return value


def string(value: Any) -> str:
    """A value as text, paid for where it has to be made."""
    return value if isinstance(value, str) else str(text(value))


def size(value: Any) -> int:
    """About the characters that a value takes when it is written; it stops counting where they are too many."""
    left, found = [value], 0
    while left and found <= LONGEST:
        one = left.pop()
        if isinstance(one, str):
            found += len(one)
        elif isinstance(one, dict):
            left += [*one.keys(), *one.values()]
            found += 4 * STEP * len(one)
        elif isinstance(one, (list, tuple)):
            left += one
            found += 4 * STEP * len(one)
        else:
            found += one.bit_length() // 3 if isinstance(one, int) else STEP
    return found


def look(value: Any) -> Any:
    """A value that is compared or looked into, paid for by its entries: lists that hold each other twice are short in
    memory and endless in comparing."""
    if isinstance(value, str):
        if len(value) >= _SCAN:
            pay(len(value) // _SCAN)
    elif isinstance(value, (list, tuple, dict)):
        left, seen = [value], 0
        while left:
            one = left.pop()
            if isinstance(one, (list, tuple, dict)):
                seen += len(one)
                if seen > _NODES:
                    raise endless(f"it compares more than {_NODES} entries")
                left += [*one.keys(), *one.values()] if isinstance(one, dict) else one
        pay(seen // STEP)
    return value


def number(value: Any) -> None:
    """Refuse to compute with whole numbers as long as books."""
    if isinstance(value, int) and value.bit_length() > _BITS:
        raise endless(f"it computes with numbers of more than {_BITS} bits")


def check(*values: Any) -> None:
    """Pay for looking at these values once, and for a text as wide as one of them says."""
    pay(1)
    for value in values:
        if isinstance(value, int):
            if abs(value) > _LARGEST:
                raise endless(f"it makes a text of the width {value if value.bit_length() < _BITS else 'of a book'}")
            make(abs(value))
        elif isinstance(value, (str, list, tuple, dict)):
            pay(len(value) // STEP)


def check_layout(layout: str, values: Iterable[Any] = ()) -> None:
    """Refuse a layout whose widths make a text too long, and pay for what fills it."""
    given = list(values)
    widths = sum(int(width[:9]) for width in _WIDTH.findall(layout))
    widths += sum(abs(value) for value in given if isinstance(value, int)) * layout.count("*")
    if widths > _LARGEST:
        raise endless(f"it makes a text of the width {widths}")
    # Any value may be written in the place of any field.
    make(widths + len(layout) + max(map(size, given), default=0) * layout.count("{") + sum(map(size, given)))


def check_fields(layout: str) -> None:
    """Refuse a layout whose widths stand in values, where they can be any."""
    if any(width and "{" in width for _, _, width, _ in Formatter().parse(layout)):
        raise endless("it makes a text of a width that a value says")


def endless(reason: str) -> DataError:
    """Why a template is given up."""
    return DataError(f"the model's chat template does not come to an end: {reason}",
                     "the template is damaged or hostile: take it from the model's own repository")
