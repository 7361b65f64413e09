"""Requests sent at times that were drawn beforehand, whether or not earlier ones were answered.

A client that waits for an answer before it asks again asks a slow server less often, and so hardly sees it being slow.
Here every latency counts from the moment at which its request was meant to be sent.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import numpy as np

from ...models.errors import UsageError
from ..generation.remote import RemoteError

if TYPE_CHECKING:
    from .http_requests import TimedAnswer

ARRIVALS = ("poisson", "fixed")
AT_ONCE = 1024
"""Requests that may be without an answer at a time; more wait here, and count as sent late."""
LATE = 10.0
"""Milliseconds from which on a request was sent late: the client then is a part of what is measured."""
clock = time.perf_counter_ns


def send_times(rate: float, count: int, arrivals: str = "poisson", seed: int = 0) -> list[int]:
    """When each of `count` requests is to be sent, in nanoseconds since the first, at `rate` a second: at even
    distances, or at those of users who know nothing of each other."""
    if arrivals not in ARRIVALS:
        raise UsageError(f"arrivals: {arrivals!r}", f"use {' or '.join(ARRIVALS)}")
    gaps = np.full(count, 1 / rate) if arrivals == "fixed" else np.random.default_rng(seed).exponential(1 / rate, count)
    gaps[0] = 0
    found: list[int] = np.rint(np.cumsum(gaps) * 1e9).astype(np.int64).tolist()
    return found


def send(ask: Callable[[int], TimedAnswer], times: Sequence[int]) -> list[dict[str, Any]]:
    """Ask for request 0, 1, … at its time and wait for all answers.

    Nanoseconds since it was to be sent: `late_ns` until it was, `first_ns` until its first piece and `end_ns` until its
    last, `intended_ns` since the first; with the answer's `new_tokens` and `prompt_tokens`. Of those without an answer
    `error` says why.
    """
    with ThreadPoolExecutor(min(AT_ONCE, len(times))) as pool:
        began = clock()

        def one(number: int) -> dict[str, Any]:
            intended = began + times[number]
            found: dict[str, Any] = {"intended_ns": times[number], "late_ns": clock() - intended}
            try:
                answer = ask(number)
            except RemoteError as error:
                return found | {"error": error.reason, "end_ns": clock() - intended}
            after = answer.start_ns - intended
            return found | {"first_ns": after + (answer.token_ns or [answer.end_ns])[0],
                            "end_ns": after + answer.end_ns, "prompt_tokens": answer.prompt_tokens,
                            "new_tokens": answer.new_tokens}

        asked = []
        for number, at in enumerate(times):
            time.sleep(max(0, began + at - clock()) / 1e9)
            asked.append(pool.submit(one, number))
        return [future.result() for future in asked]
