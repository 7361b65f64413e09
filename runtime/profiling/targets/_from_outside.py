"""The profile of a model that runs in another program: its requests' times, and no more of it than it tells."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from ....models.task import Task
from .. import measures
from ..conditions import NOT_AVAILABLE
from ..measure import Profile
from ..sustained import sustained
from ._base import Asked


def summed_up(task: Task, found: Sequence[Mapping[str, Any]], views: Mapping[str, Any], machine: Mapping[str, Any],
              verdict: Sequence[str], asked: Asked, source: str, **known: Any) -> dict[str, Any]:
    """A profile as a table; `known` are fields of `Profile` that the program tells, all others are None."""
    met = views["as_met"]

    def middle(name: str) -> float | None:
        return float(met[name]["p50"]) if name in met else None

    def spread(name: str) -> dict[str, float] | None:
        return {part: float(met[name][part]) for part in measures.SPREAD} if name in met else None

    seconds = (found[-1]["start_ns"] + found[-1]["end_ns"] - found[0]["start_ns"]) / 1e9
    unknown = dict.fromkeys(("threads", "file_bytes", "peak_rss_bytes", "load_ms", "start_ms"))
    return asdict(Profile(**{**unknown, **known}, **{
        "kind": task.kind, "machine": dict(machine), "verdict": list(verdict), "views": views,
        "prompt_tokens": round(statistics.mean(request["prompt_tokens"] for request in found)),
        "new_tokens": round(statistics.mean(request["new_tokens"] for request in found)) if "ttft_ms" in met else None,
        "raw": {"requests": list(found), "warmup": asked.warmup, "repeats": len(found), "prompt_source": source,
                "per_s_by_threads": {}, "looks": []},
        **{name: middle(name) for name in ("ttft_ms", "prefill_tokens_per_s", "decode_tokens_per_s", "texts_per_s")},
        **{name: spread(name) for name in ("token_ms", "latency_ms", "request_ms")},
        "conditions": {"seconds": seconds, "programs": {}, "mhz": NOT_AVAILABLE, "celsius": NOT_AVAILABLE,
                       "energy": NOT_AVAILABLE},
        "sustained": sustained(found) if asked.seconds else None}))
