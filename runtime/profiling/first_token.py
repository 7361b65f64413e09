"""The time to the first token of prompts as they are."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ..loading.foreign import is_stranger, open_model, place, try_out
from .jobs import run


def first_token_ms(model: Path, prompts: Sequence[Sequence[int]], threads: int = 0) -> list[float]:
    """Milliseconds of each prompt's tokenizing, prefill and choice of the first token, one after the other in a fresh
    process, each on an empty cache; `threads` 0: those that `load` takes.

    Raises what `load` raises, UsageError among it for a prompt beyond the model's context.
    """
    artifact = open_model(model)
    if is_stranger(artifact):
        try_out(artifact)
    longest = max(map(len, prompts))
    found = run({"path": str(place(artifact)), "check_hashes": not is_stranger(artifact), "threads": threads,
                 "warmup": 0, "new_tokens": 1, "context": longest + 1, "prompts": [list(ids) for ids in prompts]})
    return [one["tokenize_ms"] + one["prefill_ms"] for one in found["runs"]]
