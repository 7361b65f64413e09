"""The process that is measured: `python -m edgestill.runtime.profiling.child`.

A job comes as JSON on stdin, raw times go as JSON to stdout.
It does nothing but load and run, so its start, its memory and its times are those of a program that ships the model.
"""

from __future__ import annotations

import time

STARTED = time.perf_counter()

import json  # noqa: E402
import math  # noqa: E402
import sys  # noqa: E402
from typing import TYPE_CHECKING, Any  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..encoders.classifier import Classifier
    from ..encoders.embedder import Embedder


def main() -> None:
    """Run the job; a failure a user can cause is handed over as {"error", "message", "hint"}."""
    from ...models.errors import EdgestillError

    job = json.load(sys.stdin)
    try:
        result = run(job)
    except EdgestillError as error:
        from ..files.limited_process import refusal

        result = refusal(error)
    json.dump(result, sys.stdout)


def run(job: dict[str, Any]) -> dict[str, Any]:
    """Load `path` and time its prompts (lists of ids) or texts: the first `warmup` of them are not counted.

    Where `token_seconds` is given, a prompt's answer ends after that long. Where `streams` is, a generator is opened so
    many times over the same weights, and prompts go to each in turn.
    """
    from ..generation.generator import Generator
    from ..loading.load import load_streams

    models = load_streams(job["path"], job.get("streams", 1), job["threads"], job["context"], job["check_hashes"])
    model, result = models[0], dict[str, Any](load_ms=(time.perf_counter() - STARTED) * 1000)
    if isinstance(model, Generator):
        result |= _generate(models, job)
    else:
        result |= _read(model, job)
    from .machine import peak_resident_bytes  # only now: nothing of ours but the model may be in the peak

    return result | {"peak_rss_bytes": peak_resident_bytes()}


def _generate(models: Sequence[Any], job: dict[str, Any]) -> dict[str, Any]:
    from ..generation.sampling import greedy

    codec, clock = models[0].codec, time.perf_counter_ns
    runs: list[dict[str, Any]] = []
    first_token_at = None
    for index, ids in enumerate(job["prompts"]):
        engine = models[index % len(models)].engine
        text = codec.decode(ids, skip_special_tokens=False)
        engine.truncate(0)
        engine.reserve(len(ids) + job["new_tokens"])
        start = clock()
        codec.encode(text)
        encoded = clock()
        token = greedy(engine.prefill(ids))
        ready = clock()
        first_token_at = first_token_at or time.monotonic()
        stream, steps = codec.stream(), []
        before = clock()
        last = before + job.get("token_seconds", math.inf) * 1e9
        for _ in range(job["new_tokens"] - 1):
            stream.push(token)
            token = greedy(engine.decode(token))
            after = clock()
            steps.append(after - before)
            before = after
            if after > last:
                break
        runs.append({"tokenize_ms": (encoded - start) / 1e6, "prefill_ms": (ready - encoded) / 1e6,
                     "token_ms": [step / 1e6 for step in steps]})
    return {"threads": engine.threads, "context": engine.context_length, "runs": runs[job["warmup"]:],
            "first_token_at": first_token_at}


def _read(model: Classifier | Embedder, job: dict[str, Any]) -> dict[str, Any]:
    from ..encoders.classifier import Classifier

    answer = model.classify if isinstance(model, Classifier) else model.embed
    times: list[float] = []
    first_token_at = None
    for text in job["prompts"]:
        start = time.perf_counter_ns()
        answer(text)
        times.append((time.perf_counter_ns() - start) / 1e6)
        first_token_at = first_token_at or time.monotonic()
    return {"threads": model.threads, "latency_ms": times[job["warmup"]:], "first_token_at": first_token_at}


if __name__ == "__main__":
    main()
