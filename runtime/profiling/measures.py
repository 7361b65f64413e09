"""The numbers of a profile: their direction, and for which tasks they are measured."""

from __future__ import annotations

from dataclasses import dataclass

WHOLE = ("classify", "embed")
"""Tasks whose texts are answered in one pass."""
PERCENTILES = {"p50": 0.5, "p90": 0.9, "p95": 0.95, "p99": 0.99}
SPREAD = (*PERCENTILES, "max")
"""What is told of a number that is measured many times."""


@dataclass(frozen=True)
class Number:
    """What a reader must know of a number to judge it."""

    higher_is_better: bool
    tasks: tuple[str, ...] = ("generate", *WHOLE)
    spread: bool = False
    """Whether the profile holds its SPREAD instead of one value."""


NUMBERS = {
    "file_bytes": Number(False),
    "model_bytes": Number(False),
    "peak_rss_bytes": Number(False),
    "steady_rss_bytes": Number(False),
    "steady_pss_bytes": Number(False),
    "load_ms": Number(False),
    "cold_load_ms": Number(False),
    "start_ms": Number(False),
    "request_ms": Number(False, ("generate",), spread=True),
    "ttft_ms": Number(False, ("generate",), spread=True),
    "prefill_tokens_per_s": Number(True, ("generate",)),
    "decode_tokens_per_s": Number(True, ("generate",)),
    "token_ms": Number(False, ("generate",), spread=True),
    "latency_ms": Number(False, WHOLE, spread=True),
    "texts_per_s": Number(True, WHOLE),
}
RATES = tuple(name for name, number in NUMBERS.items() if number.higher_is_better)
"""Numbers of every request of which the median is told."""


def split(name: str) -> tuple[str, str]:
    """A number's name and the part of its spread that is meant: latency_ms_p99 or latency_ms.p99 → (latency_ms, p99).

    The part of a bare name is p50, the median, where there is a spread, and empty elsewhere.
    """
    for separator in "._":
        stem, _, part = name.rpartition(separator)
        if part in SPREAD and stem in NUMBERS and NUMBERS[stem].spread:
            return stem, part
    return name, "p50" if name in NUMBERS and NUMBERS[name].spread else ""


def names(task: str) -> list[str]:
    """What is measured for a task, every part of a spread by its own name."""
    found = []
    for name, number in NUMBERS.items():
        if task in number.tasks:
            found += [name, *(f"{name}_{part}" for part in SPREAD if number.spread)]
    return found
