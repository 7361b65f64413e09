"""Profiles of runs that never were, with the noise of real ones."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.random import Generator


def run(drawn: Generator, prompts: Any, kind: str, slowdown: float = 1.0) -> dict[str, Any]:
    """A profile of requests that take as long as their prompts, each a bit longer by chance, one in ten much longer;
    the run as a whole a bit more or less, as processes do. `spells`: slow requests follow each other."""
    count = len(prompts)
    noise = drawn.gamma(2.0, 0.015, count) + 0.25 * (drawn.random(count) < 0.1)
    if kind == "spells":
        noise += 0.15 * np.repeat(drawn.random(count // 5) < 0.2, 5)
    if kind == "drift":
        noise += np.linspace(0, 0.05 * drawn.random(), count)
    whole = slowdown * np.exp(drawn.normal(0, 0.012)) * prompts * np.exp(noise)
    requests = [{"end_ns": int(2e8 * one), "token_ns": [int(1e8 * one), int(1.2e8 * one), int(1.4e8 * one)],
                 "prefill_ns": int(9e7 * one), "decode_ns": [int(2e7 * one)] * 2, "detokenize_ns": 2000,
                 "prompt_tokens": int(1e5 * length), "new_tokens": 3, "start_ns": int(2.1e8 * place), "window": 0,
                 "disturbed": []} for place, (one, length) in enumerate(zip(whole, prompts, strict=True))]
    return {"kind": "generate", "threads": 2, "raw": {"requests": requests}}


def device(seed: int, step_ms: float, requests: int = 120, tokens: int = 24, hot: bool = True) -> dict[str, Any]:
    """A whole profile as `profile -o` writes it: of a device that gets hot and slower, and beside which something else
    computes from time to time."""
    from edgestill.runtime.profiling.views import view

    drawn, now = np.random.default_rng(seed), 100.0
    asked: list[dict[str, Any]] = []
    looks = [{"at_s": now - 0.01, "own_s": 0.0, "busy_s": 0.0, "steal_s": 0.0}]
    for place in range(requests):
        slow = 1 + 0.4 * hot * max(0.0, place / requests - 0.5) * 2
        hit = hot and 30 <= place < 42
        gaps = step_ms * slow * (1 + 0.6 * hit) * (1 + drawn.gamma(2.0, 0.04, tokens)) / 1e3
        first = float(6 * step_ms / 1e3 * slow * (1 + drawn.gamma(2.0, 0.1)))
        times = first + np.cumsum(np.concatenate([[0.0], gaps[1:]]))
        whole = float(times[-1]) + 1e-4
        asked.append({"start_ns": int(now * 1e9), "end_ns": int(whole * 1e9), "prefill_ns": int(0.8e9 * first),
                      "token_ns": [int(1e9 * one) for one in times], "decode_ns": [int(1e9 * one) for one in gaps[1:]],
                      "detokenize_ns": 20_000, "prompt_tokens": 64, "new_tokens": tokens, "window": place,
                      "disturbed": ["others", "clock"] if hit else []})
        now += whole + 0.002
        busy = looks[-1]["busy_s"] + whole * (2.0 + 1.1 * hit + 0.05 * drawn.random())
        looks.append({"at_s": now, "own_s": looks[-1]["own_s"] + 2 * whole, "busy_s": busy, "steal_s": 0.0,
                      "celsius": {"cpu": 45 + 35 * hot * (1 - np.exp(-4 * place / requests)) + drawn.normal(0, 0.3)},
                      "mhz": 2400 / slow + drawn.normal(0, 5)})
    met = view(asked)
    return {"kind": "generate", "threads": 2, "prompt_tokens": 64, "new_tokens": tokens, "context": 2048,
            "file_bytes": 91_000_000, "peak_rss_bytes": int(150e6 + 2e6 * step_ms), "load_ms": 120.0,
            "ttft_ms": met["ttft_ms"]["p50"], "request_ms": met["request_ms"],
            "decode_tokens_per_s": met["decode_tokens_per_s"]["p50"], "machine": {"cpu": "Cortex-A76", "cores": 4},
            "views": {"as_met": met, "clean": view([one for one in asked if not one["disturbed"]])},
            "verdict": ["12 of 120 requests were disturbed"] if hot else [], "raw": {"requests": asked, "looks": looks}}


def sweep() -> dict[str, Any]:
    """A sweep of one model over threads and contexts, with a cell that is missing."""
    cells = [{"model": "out/gguf-Q4_0", "threads": threads, "context": context, "streams": 1, "clean": {},
              "as_met": {"decode_tokens_per_s": {"p50": 40 * threads**0.8 / (1 + context / 4096)}}}
             for threads in (1, 2, 4, 8) for context in (128, 512, 2048) if (threads, context) != (8, 2048)]
    return {"kind": "sweep", "cells": cells, "verdict": ["out/gguf-Q4_0: 8 threads from now on"]}
