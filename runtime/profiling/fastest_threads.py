"""Measure which number of threads runs a model fastest on this machine.

More is not always faster: small models wait for their threads longer than they compute, and on phones threads beyond
the fast cores have cost a hundredfold.
"""

from __future__ import annotations

import statistics
from typing import Any

from ...models.artifact import Artifact
from ..loading.foreign import codec_of
from ..machine.cores import candidates
from ..machine.remembered_threads import remember
from .jobs import job, run
from .prompts import of_length
from .views import gaps

_PROMPT, _TOKENS, _TEXTS = 8, 48, 12
_SECONDS = 1.0
"""After this long a process is asked for no further token."""
_HOPELESS = 0.5
"""Of the best speed so far: below it still more threads are not tried."""


def tune(artifact: Artifact) -> tuple[int, dict[int, float]]:
    """The number of threads for a model, and what spoke for it: tokens/s (encoders: texts/s) by number of threads.

    It is remembered, and `load` takes it from then on. Every number is tried twice, upwards and then downwards, in
    fresh processes, and its better run counts: what else the machine does can only slow a model down. Raises what
    `load` raises.
    """
    counts = candidates()
    if len(counts) == 1:
        return counts[0], {}
    codec = codec_of(artifact, artifact.manifest.task)
    ids = of_length(codec, None, _PROMPT, 0)
    text = codec.decode(ids)
    work = (job(artifact, 0, [{"ids": ids, "text": text}], new_tokens=_TOKENS, token_seconds=_SECONDS)
            if artifact.manifest.task.kind == "generate" else job(artifact, 0, [{"text": text}] * _TEXTS))
    speeds: dict[int, float] = {}
    for count in counts:
        speeds[count] = _speed(work, count)
        if speeds[count] < _HOPELESS * max(speeds.values()):
            break
    for count in reversed(speeds):
        speeds[count] = max(speeds[count], _speed(work, count))
    return remember(artifact, speeds), speeds


def _speed(work: dict[str, Any], threads: int) -> float:
    """Steps/s of the median step; the first ones, which warm up, are among the slow half."""
    requests = run(work | {"threads": threads})["requests"]
    whole: list[float] = [request["end_ns"] / 1e6 for request in requests]
    times = gaps(requests[0]) or whole if "token_ns" in requests[0] else whole
    return 1000 / statistics.median(times)
