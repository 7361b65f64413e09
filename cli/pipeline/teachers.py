"""The teachers of a run file, as plans see them: what their kinds say of them, and nothing is loaded."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...models.errors import UsageError
from ...models.runfile import RunFile

if TYPE_CHECKING:
    from ...distill.teachers._base import Size
    from ...distill.teachers._prompt import Told
    from ...distill.teachers._tables import Entry
    from ...runtime.data.reader import Row


@dataclass(frozen=True)
class Planned:
    """A teacher; see distill/teachers/_base.py."""

    entry: Entry

    @property
    def answers(self) -> bool:
        """Whether it can be asked to answer test rows."""
        return hasattr(self.entry.kind, "source") or hasattr(self.entry.kind, "packed")

    def told(self, run: RunFile, train: Sequence[Row]) -> Told | None:
        """What it alone is told in a resolved run; errors as of `Entry.told`."""
        return self.entry.told(run, Path(), train)

    def stands_for(self, fetch: bool) -> Any:
        """JSON values for what it teaches; without `fetch` a kind that may download does not."""
        kind, config = self.entry.kind, self.entry.config
        return kind.stands_for(config, fetch) if hasattr(kind, "stands_for") else kind.key(config, Path())

    @property
    def size(self) -> Size | None:
        """What it costs; None where that is not known."""
        kind = self.entry.kind
        found: Size | None = kind.size(self.entry.config, Path()) if hasattr(kind, "size") else None
        return found

    @property
    def packed(self) -> Path | None:
        """The file or artifact that it answers with in the runtime."""
        kind = self.entry.kind
        found: Path | None = kind.packed(self.entry.config, Path()) if hasattr(kind, "packed") else None
        return found

    @property
    def folder(self) -> Path:
        """The Hugging Face folder that it answers with."""
        found: Path = self.entry.kind.source(self.entry.config, Path()).folder
        return found

    @property
    def in_rows(self) -> bool:
        """Whether what it says stands in the rows."""
        return getattr(self.entry.kind, "IN_ROWS", False)

    def places(self, rows: Sequence[Row]) -> list[int]:
        """Which of the rows it teaches: those of its route, or all."""
        route = self.entry.route
        return [place for place, row in enumerate(rows) if not route or row.route in route]


def of(run: RunFile) -> list[Planned]:
    """The teachers of a resolved run; errors as of `entries`."""
    from ...distill.teachers._tables import entries

    return [Planned(entry) for entry in entries(run)]


def unmeasured(run: RunFile) -> str:
    """Why no teacher's answers are measured; empty where they are: those of one, or of routes to a row each."""
    found = of(run)
    if len(found) > 1 and not found[0].entry.route:
        return f"{len(found)} teachers that are mixed give no answer together"
    if all(teacher.answers for teacher in found):
        return "" if found else "there is no teacher to compare with"
    return "there is no teacher to compare with, only what it said"


def check_rows(found: Sequence[Planned], splits: Mapping[str, Sequence[Row]], column: str) -> None:
    """DataError for a row of no teacher's route."""
    from ...distill.teachers import _tables

    _tables.check_rows([teacher.entry for teacher in found], splits, column)


def shown(run: RunFile, base: Path) -> RunFile:
    """A run file, whose paths are relative to `base`, with hashes for what its teacher alone is told."""
    from ...distill.teachers import _prompt

    return replace(run, teacher=_prompt.hidden(run.teacher, base))


def check(run: RunFile) -> None:
    """UsageError for a teacher that does not teach the run's task or gives less than its losses read, or that a student
    cannot be made of where the run names none."""
    from ...distill.training.weighted_losses import needs, of_tables, read_losses

    found = of(run)
    for entry in (teacher.entry for teacher in found):
        kind, kept = entry.kind, entry.kept
        name = kind.__name__.rpartition(".")[2]
        if run.task.kind not in getattr(kind, "TASKS", (run.task.kind,)) or (kept and run.task.kind != "generate"):
            raise UsageError(f"{entry.name}: {'a cache' if kept else name} is for decoders, and task.kind is "
                             f"{run.task.kind!r}", 'teachers of classifiers are of the kind "local", without a cache')
        if not run.student.model and (len(found) > 1 or not hasattr(kind, "source")):
            why = f"there are {len(found)} teachers" if len(found) > 1 else (
                f"a teacher of the kind {name!r} is no model to cut one from")
            raise UsageError(f"student.model: is empty, and {why}", "name a model in [student]")
    if found:
        needs(read_losses(run.distill.losses), of_tables([teacher.entry for teacher in found], Path()))
