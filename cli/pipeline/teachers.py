"""The teacher of a run file, as plans see it: what its kind says of it, and nothing is loaded."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from ...models import kinds, runfile
from ...models.errors import UsageError
from ...models.runfile import RunFile

if TYPE_CHECKING:
    from ...distill.teachers._base import Size

TEACHERS = "distill.teachers"


@dataclass(frozen=True)
class Planned:
    """A kind of teacher and its config; see distill/teachers/_base.py."""

    kind: ModuleType
    config: Any

    @property
    def answers(self) -> bool:
        """Whether it can be asked to answer test rows."""
        return hasattr(self.kind, "source") or hasattr(self.kind, "packed")

    def stands_for(self, fetch: bool) -> Any:
        """JSON values for what it teaches; without `fetch` a kind that may download does not."""
        if hasattr(self.kind, "stands_for"):
            return self.kind.stands_for(self.config, fetch)
        return self.kind.key(self.config, Path())

    @property
    def size(self) -> Size | None:
        """What it costs; None where that is not known."""
        found: Size | None = self.kind.size(self.config, Path()) if hasattr(self.kind, "size") else None
        return found

    @property
    def packed(self) -> Path | None:
        """The file or artifact that it answers with in the runtime."""
        found: Path | None = self.kind.packed(self.config, Path()) if hasattr(self.kind, "packed") else None
        return found

    @property
    def folder(self) -> Path:
        """The Hugging Face folder that it answers with."""
        found: Path = self.kind.source(self.config, Path()).folder
        return found


def of(run: RunFile) -> Planned | None:
    """The teacher of a resolved run; None without one. UsageError for a table that its kind does not take."""
    if not run.teacher:
        return None
    config = runfile.kind_config(TEACHERS, run.teacher, "teacher")
    return Planned(kinds.load(TEACHERS, run.teacher["kind"]), config)


def answers(run: RunFile) -> bool:
    """Whether the run has a teacher whose answers can be measured."""
    found = of(run)
    return found is not None and found.answers


def check(run: RunFile) -> None:
    """UsageError for a teacher that does not teach the run's task, or that a student cannot be made of where the run
    names none."""
    found, name = of(run), run.teacher.get("kind")
    if found is None:
        return
    kept = getattr(found.config, "cache", None) is not None
    if run.task.kind not in getattr(found.kind, "TASKS", (run.task.kind,)) or (kept and run.task.kind != "generate"):
        raise UsageError(f"teacher: {'a cache' if kept else name} is for decoders, and task.kind is {run.task.kind!r}",
                         'teachers of classifiers are of the kind "local", without a cache')
    if not run.student.model and not hasattr(found.kind, "source"):
        raise UsageError(f"student.model: is empty, and a teacher of the kind {name!r} is no model to cut one from",
                         "name a model in [student]")
