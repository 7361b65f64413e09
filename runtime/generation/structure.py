"""What binds an answer: what its options ask for, or else the task's own schema."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...models.errors import UsageError
from ...models.json_values import read_object
from .options import STRUCTURES, Options

if TYPE_CHECKING:
    from ...models.artifact import Artifact


def structure(options: Options, default: dict[str, Any] | None) -> tuple[str, Any] | None:
    """The kind and value of what binds an answer, `default` being the task's schema; None when nothing does."""
    for kind in STRUCTURES:
        value = getattr(options, kind)
        if value not in (None, False):
            return kind, value.model_json_schema() if hasattr(value, "model_json_schema") else value
    return None if default is None or options.schema is False else ("schema", default)


def task_schema(artifact: Artifact | None) -> dict[str, Any] | None:
    """The JSON schema of an artifact's task, or None. UsageError when its file is missing or no JSON object."""
    name = artifact.manifest.task.schema if artifact is not None else ""
    if artifact is None or not name:
        return None
    hint = "it is the task's schema: export the model again"
    return read_object(artifact.folder / Path(name).name, UsageError, hint)
