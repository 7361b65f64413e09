"""A server under requests that come at given rates: what it answers, how late, up to which rate it keeps its limits."""

from __future__ import annotations

import itertools
import math
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ...models.errors import UsageError
from . import limits
from .limits import Limit
from .open_loop import LATE, send, send_times
from .views import distribution, upper_bounds

if TYPE_CHECKING:
    from .http_requests import TimedAnswer

NUMBERS = {"ttft_ms": "first_ns", "request_ms": "end_ns"}
"""What is measured of every request, and may be held to a limit."""
DEFAULT_REQUESTS = 60
"""At each rate: a bound of p95 takes 59."""
_KEPT_UP = 0.9
"""Of the rate at which requests came, below which the server did not keep up."""
_LATE_SHARE = 0.01


def counts(rates: Sequence[float], requests: int, seconds: float, held_to: Sequence[Limit]) -> dict[float, int]:
    """Requests at each rate, upwards: `requests`, or as many as `seconds` or bounds for `held_to` take. UsageError
    for a limit on what is not measured under load."""
    for limit in held_to:
        if limit.number not in NUMBERS:
            raise UsageError(f"{limit.name} is not measured under load", f"measured: {', '.join(NUMBERS)}")
    least = max(requests, limits.requests(limit.name for limit in held_to))
    return {rate: max(least, math.ceil(rate * seconds)) for rate in sorted(rates)}


def load(ask: Callable[[int], TimedAnswer], asked: Mapping[float, int], arrivals: str = "poisson",
         held_to: Sequence[Limit] = (), cost_per_hour: float | None = None, warmup: int = 2,
         say: Callable[[str], object] = lambda line: None) -> dict[str, Any]:
    """Ask so often at each rate [requests a second], as `counts` says; `ask` makes request number n, as
    http_requests.ask does, and gets another n every time.

    `sent` holds every request as open_loop.send gives it. Percentiles are of the answered ones; to bounds and limits a
    request without an answer is later than any. Raises what `send_times` raises, and what `ask` raises where one of
    `warmup` requests before is not answered.
    """
    minutes = sum(count / rate for rate, count in asked.items()) / 60
    say(f"{sum(asked.values()):,} requests: about {minutes:.1f} minutes, where the server keeps up")
    numbers = itertools.count()
    for _ in range(warmup):
        ask(next(numbers))
    found = [_at(ask, numbers, rate, count, arrivals, held_to, cost_per_hour) for rate, count in asked.items()]
    held = [*itertools.takewhile(lambda one: all(judged.passed for judged in one["gates"]), found)] if held_to else []
    best = held[-1] if held else None
    return {"kind": "load", "arrivals": arrivals, "rates": found, "holds_up_to": best and best["rate"],
            "cost_per_hour": cost_per_hour, "cost_per_million": best and best["cost_per_million"],
            "verdict": _verdict(found, held_to, len(held))}


def _at(ask: Callable[[int], TimedAnswer], numbers: Iterator[int], rate: float, count: int, arrivals: str,
        held_to: Sequence[Limit], cost_per_hour: float | None) -> dict[str, Any]:
    times, own = send_times(rate, count, arrivals), list(itertools.islice(numbers, count))
    busy, began = time.process_time(), time.perf_counter()
    sent = send(lambda place: ask(own[place]), times)
    cores = (time.process_time() - busy) / (time.perf_counter() - began)
    answered = [one for one in sent if "error" not in one]
    late = np.array([one["late_ns"] / 1e6 for one in sent])
    achieved = _a_second([one["intended_ns"] + one["end_ns"] for one in answered])
    found = {"rate": rate, "requests": count, "answered": len(answered), "offered_per_s": _a_second(times),
             "achieved_per_s": achieved, "errors": dict(Counter(one["error"] for one in sent if "error" in one)),
             "late_ms": {"p50": float(np.median(late)), "p99": float(np.quantile(late, 0.99)),
                         "max": float(late.max())},
             "late_share": float((late > LATE).mean()), "client_cores": cores,
             **{name: _spread(sent, part) for name, part in NUMBERS.items()},
             "new_tokens": float(np.mean([one["new_tokens"] for one in answered])) if answered else None,
             "cost_per_million": cost_per_hour and achieved and cost_per_hour / achieved / 3600 * 1e6, "sent": sent}
    return found | {"gates": [limits.judge(limit, {"views": {"as_met": found}}) for limit in held_to]}


def _a_second(times: Sequence[int]) -> float | None:
    """How many a second, from the first to the last; None where there are not several."""
    return (len(times) - 1) * 1e9 / (max(times) - min(times)) if len(times) > 1 else None


def _spread(sent: Sequence[Mapping[str, Any]], part: str) -> dict[str, Any]:
    """Percentiles of the answered requests [ms], None where none was, and the bounds of all."""
    times = [math.inf if "error" in one else one[part] / 1e6 for one in sent]
    answered = [time for time in times if time < math.inf]
    bounds = upper_bounds(times)
    found = distribution(answered) | bounds if answered else {"p50": None, "values": 0} | bounds
    if missing := len(times) - len(answered):
        found["max"] = math.inf
        for name, value in bounds["upper"].items():
            if value == math.inf:
                bounds["upper"][name] = None
                bounds["why"][name] = f"{missing} of {len(times)} requests were not answered"
    return found


def _verdict(found: Sequence[Mapping[str, Any]], held_to: Sequence[Limit], held: int) -> list[str]:
    told = []
    if held_to:
        names = ", ".join(map(str, held_to))
        told.append(f"up to {found[held - 1]['rate']:g} requests a second hold {names}" if held else
                    f"no rate holds {names}; {found[0]['rate']:g} a second was the lowest")
    for one in found:
        rate, offered, achieved = one["rate"], one["offered_per_s"], one["achieved_per_s"]
        if offered and (achieved or 0) < _KEPT_UP * offered:
            told.append(f"at {rate:g} a second the server did not keep up: {achieved or 0:.3g} answers a second")
        if one["errors"]:
            told.append(f"at {rate:g} a second {one['requests'] - one['answered']} of {one['requests']} requests were "
                        f"not answered: " + ", ".join(f"{reason} ({count})" for reason, count in one["errors"].items()))
        if one["late_share"] > _LATE_SHARE:
            told.append(f"at {rate:g} a second {one['late_share']:.0%} of the requests were sent more than {LATE:g} ms "
                        f"late: this client was held up (it used {one['client_cores']:.1f} cores), and its own time is "
                        "in the figures; ask from another machine")
    return told
