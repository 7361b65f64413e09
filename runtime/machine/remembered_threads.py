"""The number of threads that was measured to run a model fastest on this machine, remembered between processes.

Speed depends on the file's size and kind, not on its values, so one measurement serves every model of that shape.
What cannot be read or written costs only the memory: an engine then takes the physical cores.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...models.user_cache import user_cache
from .cores import allowed_cores
from .processor import processor

if TYPE_CHECKING:
    from ...models.artifact import Artifact

FILE = "threads.json"
ENOUGH = 0.97
"""Of the best speed: more threads than reach it cost energy and gain nothing that a user notices."""


def recall(artifact: Artifact) -> int:
    """Threads for this model on this machine; 0 where none were measured."""
    known = _read(_file())
    found = known.get(_key(artifact)) if known else None
    threads = found.get("threads") if isinstance(found, dict) else None
    return threads if isinstance(threads, int) and 1 <= threads <= allowed_cores() else 0


def remember(artifact: Artifact, speeds: Mapping[int, float]) -> int:
    """Keep what was measured, steps/s by number of threads; the number it speaks for."""
    from ...models import files

    threads = fewest(speeds)
    path = _file()
    entry = {"threads": threads, "per_s": {str(count): round(speed, 2) for count, speed in sorted(speeds.items())}}
    try:
        files.write_json(path, _read(path) | {_key(artifact): entry})
    except OSError as error:
        _warn("%s: cannot remember the number of threads there: %s", path, error.strerror or error)
    return threads


def fewest(speeds: Mapping[int, float]) -> int:
    """The smallest number of threads that is about as fast as the best."""
    best = max(speeds.values())
    return min(threads for threads, speed in speeds.items() if speed >= ENOUGH * best)


def _key(artifact: Artifact) -> str:
    return f"{artifact.manifest.scheme}, {artifact.model_bytes()} bytes, {processor()}, {allowed_cores()} cores"


def _file() -> Path:
    return user_cache() / FILE


def _read(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        _warn("%s: cannot be read, so the number of threads is not known: %s", path, error)
        return {}
    return found if isinstance(found, dict) else {}


def _warn(message: str, *values: object) -> None:
    import logging  # costs 7 ms, and mostly there is nothing to say

    logging.getLogger(__name__).warning(message, *values)
