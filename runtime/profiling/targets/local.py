"""This machine."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

from ....models.errors import UsageError
from ._base import Asked, Say, Swept

NEEDS_MODEL = True


def check(place: str) -> None:
    """UsageError where more is said than `local`."""
    if place != "local":
        raise UsageError(f"--target {place}: this machine has no address", "write local")


def profile(place: str, asked: Asked, say: Say) -> dict[str, Any]:
    """Measure here, in processes of their own; errors as in `measure.profile`."""
    from .. import measure

    assert asked.model is not None  # NEEDS_MODEL
    return asdict(measure.profile(
        asked.model, prompt_tokens=asked.prompt_tokens, new_tokens=asked.new_tokens, warmup=asked.warmup,
        repeats=asked.repeats, threads=asked.threads, prompts=asked.prompts, held_to=asked.held_to,
        seconds=asked.seconds, options=asked.options, say=say))


def sweep(place: str, asked: Swept, lines: Path, say: Say) -> dict[str, Any]:
    """Sweep here, each round kept in `lines`; errors as in `sweep.sweep`."""
    from ..sweep import sweep as measured

    return measured(list(asked.models.values()), lines, asked.threads, asked.contexts, asked.streams, asked.new_tokens,
                    asked.warmup, asked.repeats, say, list(asked.models))
