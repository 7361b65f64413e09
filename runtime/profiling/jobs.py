"""Jobs for the process that is measured, and the fresh interpreter that runs them."""

from __future__ import annotations

import json
import subprocess
import time
from typing import TYPE_CHECKING, Any

from ...models.errors import EdgestillError
from ..files.limited_process import command, refused
from ..loading.foreign import is_stranger, place

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ...models.artifact import Artifact


def job(artifact: Artifact, threads: int, requests: Sequence[Mapping[str, Any]], context: int = 0,
        warmup: int = 0, seconds: float = 0.0, streams: int = 1, **ask: Any) -> dict[str, Any]:
    """A job of child.run; `ask` are keywords of `timed_requests.asker`."""
    return {"path": str(place(artifact)), "check_hashes": not is_stranger(artifact), "threads": threads,
            "context": context, "requests": list(requests), "streams": streams, "ask": ask,
            "serve": {"warmup": warmup, "seconds": seconds}}


def run(job: Mapping[str, Any]) -> dict[str, Any]:
    """Run one job in a fresh interpreter; its error is raised here as what it was there."""
    started = time.monotonic()
    result = answer_of(f"{__package__}.child", job)
    # The monotonic clock counts from the machine's start, so both processes read the same one.
    return result | {"start_ms": (result["first_token_at"] - started) * 1000}


def answer_of(module: str, job: Mapping[str, Any]) -> dict[str, Any]:
    """What a module says to a job, in a fresh interpreter."""
    done = subprocess.run(command(module), input=json.dumps(job), capture_output=True, text=True, check=False)
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise EdgestillError(f"the measured process ended with code {done.returncode}: {last}",
                             "run edgestill generate on the artifact to see the failure by itself")
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    if "error" in result:
        raise refused(result)
    return result
