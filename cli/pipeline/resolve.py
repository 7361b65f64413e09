"""A run file made whole: paths absolute, kinds checked, so that what follows depends on no working folder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from ...models import runfile
from ...models.errors import UsageError
from ...models.runfile import RunFile, Training
from . import gates, teachers


def read(path: Path, overrides: Sequence[str] = ()) -> RunFile:
    """Read a run file and resolve it; UsageError for anything in it that cannot be. Imports no heavy package."""
    run = resolve(runfile.read(path, overrides), path.resolve().parent)
    check(run)
    return run


def resolve(run: RunFile, base: Path) -> RunFile:
    """`run` with the paths in it made absolute from `base`, the run file's folder."""
    return replace(
        run,
        task=replace(run.task, schema=str((base / run.task.schema).resolve()) if run.task.schema else ""),
        data=replace(run.data, dir=str((base / run.data.dir).resolve())),
        student=replace(run.student, model=_folder(run.student.model, base), base=_folder(run.student.base, base),
                        template=_file(run.student.template, base)),
        teacher=[_teacher(table, base) for table in run.teacher] if isinstance(run.teacher, list)
        else _teacher(run.teacher, base),
    )


def check(run: RunFile) -> None:
    """Build the Config of every kind that `run` names, and check what no single table can say.

    Raises UsageError with the key's full name.
    """
    from ...distill.training import optimizers

    for name, settings in (("tune", run.tune), ("distill", run.distill)):
        runfile.kind_config("distill.adapters", settings.adapter, f"{name}.adapter")
    for name, each in (("tune", run.tune), ("distill", run.distill), ("grid_aware", run.grid_aware)):
        if each is not None:
            optimizers.check(each)
            for index, watcher in enumerate(each.watchers):
                runfile.kind_config("distill.watchers", watcher, f"{name}.watchers[{index}]")
    for index, loss in enumerate(run.distill.losses):
        table = {key: value for key, value in loss.items() if key != "weight"}
        runfile.kind_config("distill.losses", table, f"distill.losses[{index}]")
    teachers.check(run)
    if not run.teacher and not run.student.model:
        raise UsageError("student.model: is empty and there is no teacher to take it from",
                         "name a model in [student], or a teacher in [teacher]")
    for index, cut in enumerate(run.student.cuts):
        runfile.kind_config("distill.students", cut, f"student.cuts[{index}]")
    for index, export in enumerate(run.export):
        runfile.kind_config("quantize.methods", export.method, f"export[{index}].method")
    runfile.check_grid_aware(run)
    targets = [export.target for export in run.export]
    for target in targets:
        if targets.count(target) > 1:
            raise UsageError(
                f"export.target: {target!r} stands {targets.count(target)} times", "keep one table a target"
            )
    if run.task.schema and not Path(run.task.schema).is_file():
        raise UsageError(f"task.schema: {run.task.schema}: no such file", "paths are relative to the run file")
    gates.check(run)


def labels_run(run: RunFile) -> RunFile:
    """The run that trains the same student for the same steps on labels alone."""
    shared = {item.name: getattr(run.distill, item.name) for item in fields(Training)}
    return replace(run, tune=Training(**shared))


def _teacher(table: Mapping[str, Any], base: Path) -> dict[str, Any]:
    """A [teacher] table, and the cache in it: a folder that is filled need not be there yet."""
    from ...distill.teachers import _prompt

    found = _prompt.absolute(table, base)
    if isinstance(found.get("cache"), Mapping):
        from ...distill.teachers._cache import Cache

        found["cache"] = _teacher({"folder": Cache().folder, **found["cache"]}, base)
    if isinstance(found.get("model"), str) and "url" not in found:
        found["model"] = _folder(found["model"], base)
    if isinstance(found.get("folder"), str):
        found["folder"] = str((base / found["folder"]).resolve())
    return found


def _file(name: str, base: Path) -> str:
    """A file beside the run file as an absolute path; the name of a built-in template as it is."""
    return str((base / name).resolve()) if name and (base / name).is_file() else name


def _folder(name: str, base: Path) -> str:
    """A folder or GGUF file beside the run file as an absolute path; a catalogue or hub name as it is."""
    there = name and ((base / name).is_dir() or ((base / name).suffix == ".gguf" and (base / name).is_file()))
    return str((base / name).resolve()) if there else name
