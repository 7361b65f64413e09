"""What `cascade` does: let both models answer the same rows, and fit thresholds to where they agree."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..models.errors import UsageError

if TYPE_CHECKING:
    from ..runtime.cascade import Case
    from ..runtime.classify import Classifier
    from ..runtime.generate import Generator
    from ..runtime.rows import Row

Progress = Callable[[int, int], None] | None
KEY = "EDGESTILL_NEXT_KEY"
"""The environment variable with the key of a URL."""


def opened(path: Path, threads: int) -> Generator | Classifier:
    """A model that says how sure it is; UsageError for one that gives vectors, several labels or scores."""
    from ..runtime import load
    from ..runtime.classify import Classifier
    from ..runtime.embed import Embedder

    model = load(path, threads=threads)
    if isinstance(model, Embedder):
        raise UsageError(f"{path}: is made to embed and gives no answers", "cascade classifiers or generators")
    if isinstance(model, Classifier):
        model.head.require_single("a cascade")
    return model


def following(name: str, small: Generator | Classifier, model: str, system: str, threads: int) -> Any:
    """The model that answers where `small` is not sure: an artifact, or what is behind a URL."""
    from ..runtime.classify import Classifier
    from ..runtime.remote import Remote

    if "://" not in name:
        if model or system:
            raise UsageError("--model and --system: only a URL is told them", "leave them out for an artifact")
        return opened(Path(name), threads)
    if not system and isinstance(small, Classifier):
        system = f"Answer with the one of these labels that fits, and nothing else: {', '.join(small.labels)}"
    return Remote(name, model, os.environ.get(KEY, ""), system)


def cases(small: Any, next: Any, rows: Sequence[Row], progress: Progress) -> tuple[list[Case], float, float]:
    """Both models' answers to the rows, and the seconds each takes for one; `next` None takes the rows' own answers.

    UsageError for rows that have none then, and for tools where a URL answers.
    """
    from ..runtime.cascade import Case, ask
    from ..runtime.remote import Remote

    if next is None and not all(row.answer for row in rows):
        raise UsageError("the rows hold no answers to agree with", "name the next model, or give labelled rows")
    if isinstance(next, Remote) and any(row.tools for row in rows):
        raise UsageError("rows with tools are not asked of a URL", "give rows without tools")
    found, seconds = [], [0.0, 0.0]
    for row in rows:
        messages = row.prompt_messages or ({"role": "user", "content": row.text},)
        begun = time.perf_counter()
        text, sure = ask(small, messages, row.tools)
        between = time.perf_counter()
        other = row.answer if next is None else ask(next, messages, row.tools)[0]
        seconds[0] += between - begun
        seconds[1] += time.perf_counter() - between
        found.append(Case.of(text, sure, other))
        if progress:
            progress(len(found), len(rows))
    return found, seconds[0] / len(rows), seconds[1] / len(rows)
