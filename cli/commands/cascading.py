"""What `cascade` does: let both models answer the same rows, and fit thresholds to where they agree."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...models.errors import UsageError

if TYPE_CHECKING:
    from ...runtime.data.reader import Row
    from ...runtime.encoders.classifier import Classifier
    from ...runtime.evaluation.cascade import Case
    from ...runtime.generation.generator import Generator

Progress = Callable[[int, int], None] | None
KEY = "EDGESTILL_NEXT_KEY"
"""The environment variable with the key of a URL."""


def opened(path: Path, threads: int) -> Generator | Classifier:
    """A model that says how sure it is; UsageError for one that gives vectors, several labels or scores."""
    from ...runtime import load
    from ...runtime.encoders.classifier import Classifier
    from ...runtime.encoders.embedder import Embedder

    model = load(path, threads=threads)
    if isinstance(model, Embedder):
        raise UsageError(f"{path}: is made to embed and gives no answers", "cascade classifiers or generators")
    if isinstance(model, Classifier):
        model.head.require_single("a cascade")
    return model


def following(name: str, small: Generator | Classifier, model: str, system: str, threads: int) -> Any:
    """The model that answers where `small` is not sure: an artifact, or what is behind a URL."""
    from ...runtime.generation.remote import Remote

    if "://" not in name:
        if model or system:
            raise UsageError("--model and --system: only a URL is told them", "leave them out for an artifact")
        return opened(Path(name), threads)
    return Remote(name, model, os.environ.get(KEY, ""), system)


def threshold(text: str) -> float | dict[str, float]:
    """A confidence from 0 to 1, or each field's own out of a file that `cascade -o` wrote.

    UsageError for other numbers and files, and for a file of several targets.
    """
    try:
        value = float(text)
    except ValueError:
        return _fitted(Path(text))
    if not 0 <= value <= 1:
        raise UsageError(f"--threshold: {text} is outside the limits 0 to 1", "give what edgestill cascade fitted")
    return value


def shown(threshold: float | dict[str, float] | None) -> str:
    """A threshold in words."""
    if isinstance(threshold, dict):
        return ", ".join(f"{field} below {value:.4g}" for field, value in threshold.items()) or "all of them"
    return f"below {threshold or 0:.4g}"


def _fitted(path: Path) -> dict[str, float]:
    hint = "give a number from 0 to 1, or what edgestill cascade -o wrote"
    try:
        fits = json.loads(path.read_text(encoding="utf-8"))["fits"]
        found = [(fit["target"], {str(field): float(value) for field, value in fit["thresholds"].items()})
                 for fit in fits]
    except OSError as error:
        raise UsageError(f"--threshold: {path}: {error.strerror}", hint) from error
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise UsageError(f"--threshold: {path}: holds no fitted thresholds", hint) from error
    if len(found) != 1:
        targets = ", ".join(str(target) for target, _ in found) or "none"
        raise UsageError(f"--threshold: {path}: one target is needed, it holds {targets}",
                         "run edgestill cascade with one --target")
    return found[0][1]


def cases(small: Any, next: Any, rows: Sequence[Row], progress: Progress) -> tuple[list[Case], float, float]:
    """Both models' answers to the rows, and the seconds each takes for one; `next` None takes the rows' own answers.

    UsageError for rows that have none then.
    """
    from ...runtime.evaluation.cascade import Case, ask, ask_remote
    from ...runtime.generation.remote import Remote

    if next is None and not all(row.answer for row in rows):
        raise UsageError("the rows hold no answers to agree with", "name the next model, or give labelled rows")
    found, seconds = [], [0.0, 0.0]
    for row in rows:
        messages = row.prompt_messages or ({"role": "user", "content": row.text},)
        begun = time.perf_counter()
        text, sure = ask(small, messages, row.tools)
        between = time.perf_counter()
        if next is None:
            other = row.answer
        elif isinstance(next, Remote):
            other = ask_remote(next, small, messages, row.tools)
        else:
            other = ask(next, messages, row.tools)[0]
        seconds[0] += between - begun
        seconds[1] += time.perf_counter() - between
        found.append(Case.of(text, sure, other))
        if progress:
            progress(len(found), len(rows))
    return found, seconds[0] / len(rows), seconds[1] / len(rows)
