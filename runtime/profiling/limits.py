"""Limits that a profile is held to: of a percentile its upper 95 % bound is, of a median rate its lower one.

So a limit holds with 95 % certainty, or it does not; and where the requests are too few to say, it does not either.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from ...models.errors import UsageError
from . import measures
from .measures import PERCENTILES

_FORM = re.compile(r"\s*([a-z]\w*(?:\.\w+)?)\s*(<=|>=)\s*(\S+)\s*")


@dataclass(frozen=True)
class Limit:
    """One limit, such as ttft_ms.p95<=300."""

    number: str
    part: str
    """p50 to p99, max, or empty for a number that is measured once."""
    most: bool
    """Whether `value` is the most that is good enough, or else the least."""
    value: float

    @classmethod
    def parse(cls, text: str, task: str) -> Limit:
        """Read a limit on what is measured for a task; UsageError for another form, name or direction."""
        found = _FORM.fullmatch(text)
        try:
            name, sign, value = found.groups() if found else ("", "", "")
            limit = float(value)
        except ValueError:
            found = None
        if found is None:
            raise UsageError(f"gate {text!r}: not of the form number<=limit or number>=limit",
                             'for example "ttft_ms.p95<=300" or "decode_tokens_per_s>=20"')
        return cls.of(name, sign == "<=", limit, task, f"gate {text!r}")

    @classmethod
    def of(cls, name: str, most: bool, value: float, task: str, where: str) -> Limit:
        """A limit by its name; UsageError for one that is not measured for the task, or limits the wrong side."""
        number, part = measures.split(name)
        known = measures.NUMBERS.get(number)
        if known is None or task not in known.tasks:
            fitting = measures.names(task)
            near = difflib.get_close_matches(name.replace(".", "_"), fitting, n=1)
            raise UsageError(f"{where}: {name} is not measured for models that {task}",
                             (f"did you mean {near[0]!r}? " if near else "") + f"measured: {', '.join(fitting)}")
        if known.higher_is_better is most:
            raise UsageError(f"{where}: of {name} {'higher' if most else 'lower'} is better, so this would refuse the "
                             "good files", f"write {number}{'>=' if most else '<='}{value:g}")
        return cls(number, part, most, value)

    @property
    def name(self) -> str:
        """The number's name with its part."""
        return f"{self.number}.{self.part}" if self.part else self.number

    def __str__(self) -> str:
        return f"{self.name} {'<=' if self.most else '>='} {self.value:g}"

    @property
    def requests(self) -> int:
        """The fewest requests whose bound can be held to it."""
        from . import percentile_bounds  # and numpy with it, which a run file's check does without

        if self.number in measures.RATES:
            return percentile_bounds.fewest(0.5)
        return percentile_bounds.fewest(PERCENTILES[self.part]) if self.part in PERCENTILES else 1


@dataclass(frozen=True)
class Judged:
    """A limit and what a profile says of it."""

    limit: Limit
    bound: float | None
    """What was held to the limit; None where there is no number."""
    passed: bool
    reason: str
    """By how much it was missed, or why there is no number; what widened the bound. Empty where neither."""
    needed: int = 0
    """Requests that it would take, where they were too few."""


def requests(names: Iterable[str]) -> int:
    """The fewest requests that limits on these numbers take."""
    return max((Limit(*measures.split(name), True, 0.0).requests for name in names), default=1)


def judge(limit: Limit, profile: Mapping[str, Any]) -> Judged:
    """Hold a profile, as a table, to a limit."""
    bound, reason, needed = bounded(profile, limit.number, limit.part)
    if bound is None:
        return Judged(limit, None, False, reason or "was not measured", needed)
    passed = bound <= limit.value if limit.most else bound >= limit.value
    if passed:
        return Judged(limit, bound, True, reason)
    missed = abs(bound - limit.value)
    share = f" ({missed / abs(limit.value):.1%})" if limit.value else ""
    told = f"{missed:.4g}{share} too {'much' if limit.most else 'little'}"
    return Judged(limit, bound, False, "; ".join(filter(None, (told, reason))))


def bounded(profile: Mapping[str, Any], number: str, part: str) -> tuple[float | None, str, int]:
    """What a limit on a number is held to, why it is so or missing, and the requests that it takes where they are too
    few. Of profiles without bounds, which older versions and the apps write, it is the number itself."""
    found = profile.get("views", {}).get("as_met", {}).get(number)
    if isinstance(found, Mapping):
        part = part or "p50"
        if part == "max":
            return float(found["max"]), "", 0
        side = found["lower" if number in measures.RATES else "upper"]
        return side[part], found["why"].get(part, ""), found["needed"].get(part, 0)
    value = profile.get("file_bytes" if number == "model_bytes" else number)
    value = value.get(part) if isinstance(value, Mapping) else value
    return float(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else None, "", 0
