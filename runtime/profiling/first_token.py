"""The time to the first token of prompts as they are."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ..loading.foreign import codec_of, is_stranger, open_model, try_out
from .jobs import job, run
from .views import first_token


def first_token_ms(model: Path, prompts: Sequence[Sequence[int]], threads: int = 0) -> list[float]:
    """Milliseconds of each prompt's tokenizing, prefill and choice of the first token, one after the other in a fresh
    process, each on an empty cache; `threads` 0: those that `load` takes.

    Raises what `load` raises, UsageError among it for a prompt beyond the model's context.
    """
    artifact = open_model(model)
    if is_stranger(artifact):
        try_out(artifact)
    codec = codec_of(artifact, artifact.manifest.task)
    requests = [{"ids": list(ids), "text": codec.decode(ids, skip_special_tokens=False)} for ids in prompts]
    found = run(job(artifact, threads, requests, max(map(len, prompts)) + 1, new_tokens=1))
    return [first_token(one) / 1e6 for one in found["requests"]]
