"""Where a model's time goes: its operators in a prompt and in the steps after it, as its engine timed them."""

from __future__ import annotations

import re
import statistics
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Set
from pathlib import Path
from typing import Any

from ..loading.foreign import codec_of, is_stranger, open_model, place, try_out
from ..machine.cores import allowed_cores
from ..machine.remembered_threads import recall
from .jobs import answer_of
from .machine import facts
from .operator_child import ROUNDS
from .prompts import of_length

STEPS = 16
_CHILD = f"{__package__}.operator_child"
_LAYER = re.compile(r"(?<=[-./_])\d+(?=[-./ _]|$)")
"""The number of a layer in a name."""


def operators(model: Path, prompt_tokens: int = 128, steps: int = STEPS, threads: int = 0) -> dict[str, Any]:
    """The operators of a prompt of so many tokens and of `steps` more, or of a text, in a process of their own.

    `phases` hold for each of "prompt" and "step", or for "text", medians: `undisturbed_ms`, what it takes when nobody
    looks on; `watched_ms`, what it took then; and `operators` and `parts`, both with their calls, `ms` and `share` of
    the sum of all: a kind of operator each, and the same place of all layers. `passes` name what was made, `spans` are
    every operator [pass, operator, name, start, duration in ns]. `threads` 0: those that `load` takes. Raises what
    `load` raises.
    """
    artifact = open_model(model)
    if is_stranger(artifact):
        try_out(artifact)
    task = artifact.manifest.task
    codec = codec_of(artifact, task)
    ids = of_length(codec, None, prompt_tokens, 0)
    context = prompt_tokens + steps if task.kind == "generate" else 0
    threads = threads or recall(artifact) or allowed_cores()
    found = answer_of(_CHILD, {
        "path": str(place(artifact)), "format": artifact.manifest.scheme.partition(":")[0], "threads": threads,
        "context": context, "check_hashes": not is_stranger(artifact), "ids": ids, "steps": steps,
        "text": codec.decode(ids)})
    passes = (["prompt"] + ["step"] * steps if task.kind == "generate" else ["text"]) * ROUNDS
    return {"kind": "operators", "model": str(model), "scheme": artifact.manifest.scheme, "threads": threads,
            "prompt_tokens": prompt_tokens, "machine": facts(), "passes": passes,
            "phases": {name: _phase(found, {place for place, one in enumerate(passes) if one == name})
                       for name in dict.fromkeys(passes)}, "spans": found["spans"]}


def _phase(found: Mapping[str, Any], passes: Set[int]) -> dict[str, Any]:
    taken: dict[tuple[str, str], Counter[int]] = defaultdict(Counter)
    calls: Counter[tuple[str, str]] = Counter()
    for number, operator, name, _, took in found["spans"]:
        if number in passes:
            taken[operator, name][number] += took
            calls[operator, name] += 1
    # Of each operator its own median: one that was interrupted by another program then says nothing of the model.
    each = [(operator, name, calls[operator, name] / len(passes),
             statistics.median(times[number] for number in passes) / 1e6) for (operator, name), times in taken.items()]
    return {**{f"{name}_ms": statistics.median(found[name][number] for number in passes) / 1e6
               for name in ("undisturbed", "watched")},
            "operators": _summed((operator, "", count, took) for operator, _, count, took in each),
            "parts": _summed((operator, _LAYER.sub("*", name), count, took) for operator, name, count, took in each)}


def _summed(each: Iterable[tuple[str, str, float, float]]) -> list[dict[str, Any]]:
    """Calls and milliseconds of a pass by operator and name, the longest first."""
    found: dict[tuple[str, str], list[float]] = defaultdict(lambda: [0.0, 0.0])
    for operator, name, count, took in each:
        found[operator, name][0] += count
        found[operator, name][1] += took
    whole = sum(took for _, took in found.values()) or 1.0
    return [{"operator": operator, **({"name": name} if name else {}), "calls": count, "ms": took,
             "share": took / whole} for (operator, name), (count, took) in sorted(
                 found.items(), key=lambda item: -item[1][1])]


def trace(found: Mapping[str, Any]) -> dict[str, Any]:
    """The spans in the trace event format, which Perfetto and chrome://tracing show: a row of passes, and below it one
    of their operators."""
    passes: dict[int, tuple[int, int]] = {}
    for number, _, _, start, took in found["spans"]:
        first, last = passes.get(number, (start, start))
        passes[number] = min(first, start), max(last, start + took)
    zero = min(start for start, _ in passes.values())

    def event(name: str, category: str, start: int, end: int, row: int) -> dict[str, Any]:
        return {"ph": "X", "pid": 1, "tid": row, "name": name, "cat": category, "ts": (start - zero) / 1000,
                "dur": (end - start) / 1000}

    events: list[dict[str, Any]] = [
        {"ph": "M", "pid": 1, "tid": row, "name": kind, "args": {"name": name}} for row, kind, name in (
            (0, "process_name", f"{found['model']} ({found['scheme']}, {found['threads']} threads)"),
            (1, "thread_name", "passes"), (2, "thread_name", "operators"))]
    events += [event(found["passes"][number], "pass", start, end, 1) for number, (start, end) in sorted(passes.items())]
    events += [event(name, operator, start, start + took, 2) for _, operator, name, start, took in found["spans"]]
    return {"traceEvents": events, "displayTimeUnit": "ms"}
