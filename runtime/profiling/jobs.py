"""Jobs for the process that is measured: prompts of an exact length, and a fresh interpreter that runs them."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ...models.errors import EdgestillError, UsageError
from ..data import learned_tokens
from ..files.limited_process import command, refused

if TYPE_CHECKING:
    from ..data.reader import Row
    from ..text.codec import Codec


def prompt_of(codec: Codec, rows: Sequence[Row] | None, length: int, index: int) -> list[int]:
    """Exactly `length` ids: the rows from `index` on, one after the other, or a seeded draw from the vocabulary."""
    if rows:
        ids: list[int] = []
        while len(ids) < length:
            more = learned_tokens.prompt_ids(codec, rows[index % len(rows)])
            if not more and index >= len(rows):
                raise UsageError("the rows hold no tokens", "give rows with text, or none")
            ids += more
            index += 1
        return ids[:length]
    special = codec.tokenizer.get_added_tokens_decoder()
    plain = np.array([token for token in range(codec.vocabulary_size) if token not in special])
    drawn: list[int] = np.random.default_rng(index).choice(plain, length).tolist()
    return drawn


def run(job: dict[str, Any]) -> dict[str, Any]:
    """Run one job in a fresh interpreter; its error is raised here as what it was there."""
    name = f"{__package__}.child"
    started = time.monotonic()
    done = subprocess.run(command(name), input=json.dumps(job), capture_output=True, text=True, check=False)
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise EdgestillError(f"the measured process ended with code {done.returncode}: {last}",
                             "run edgestill generate on the artifact to see the failure by itself")
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    if "error" in result:
        raise refused(result)
    # The monotonic clock counts from the machine's start, so both processes read the same one.
    return result | {"start_ms": (result["first_token_at"] - started) * 1000}
