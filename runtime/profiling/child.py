"""The process that is measured: `python -m edgestill.runtime.profiling.child`.

A job comes as JSON on stdin, raw times go as JSON to stdout.
It does nothing but load and run, so its start, its memory and its times are those of a program that ships the model.
"""

from __future__ import annotations

import time

STARTED = time.perf_counter()

import copy  # noqa: E402
import json  # noqa: E402
import sys  # noqa: E402
from collections.abc import Callable  # noqa: E402
from typing import Any  # noqa: E402


def main(run: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
    """`run` the job; a failure a user can cause is handed over as {"error", "message", "hint"}."""
    from ...models.errors import EdgestillError

    job = json.load(sys.stdin)
    try:
        result = run(job)
    except EdgestillError as error:
        from ..files.limited_process import refusal

        result = refusal(error)
    json.dump(result, sys.stdout)


def run(job: dict[str, Any]) -> dict[str, Any]:
    """Load `path` and make its `requests`; `ask` and `serve` are keywords of `timed_requests.asker` and `serve`. A
    generator is opened `streams` times over the same weights, and as many requests are then made at once."""
    from ...models.errors import UsageError
    from ..generation.generator import Generator
    from ..loading.load import load_streams

    models = load_streams(job["path"], job["streams"], job["threads"], job["context"], job["check_hashes"])
    model = models[0]
    loaded_at = time.perf_counter()
    if len(models) < job["streams"]:
        raise UsageError(f"{job['path']}: answers one request at a time, not {job['streams']}", "use 1 stream")
    from . import timed_requests, watch
    from .machine import affinity, memory  # only now: nothing of ours but the model may be in the peak

    loaded, looks = memory(), watch.Watch()
    asks = []
    for one in models:
        if isinstance(one, Generator):
            one.codec = copy.copy(one.codec)  # each stream's parts are timed by themselves
            if "ids" in job["requests"][0].get("together", job["requests"])[0]:
                timed_requests.run_to_the_end(one)
        asks.append(timed_requests.asker(one, **job["ask"]))
    ask = asks[0] if len(asks) == 1 else timed_requests.together(asks)
    requests = timed_requests.serve(ask, job["requests"], looks, **job["serve"])
    first = requests[0]
    # Without what was done here between the two. The parent reads the monotonic clock, too.
    answered = loaded_at + (first.get("token_ns") or [first["end_ns"]])[0] / 1e9
    return {
        "threads": model.engine.threads if isinstance(model, Generator) else model.threads,
        "context": model.engine.context_length if isinstance(model, Generator) else None,
        "load_ms": (loaded_at - STARTED) * 1000, "first_token_at": time.monotonic() - time.perf_counter() + answered,
        "affinity": affinity(), "loaded": loaded, "memory": memory(), "requests": requests, "looks": looks.looks}


if __name__ == "__main__":
    main(run)
