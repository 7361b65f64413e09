"""The verbs of this room: prepare a student, tune, distil."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..models import runfile
from ..models.errors import DataError, UsageError
from ..models.runfile import RunFile
from ..models.task import Task
from ..runtime.data.reader import load_splits
from ..runtime.text.codec import Codec
from .prepare import (
    check_family,
    cut_student,
    open_teacher,
    prepare,
    starting_model,
    student_source,
    teacher_source,
    teachers,
)
from .sources import Source, resolve
from .student_template import templated
from .tasks._base import Splits, kind_of
from .teachers._cache import CachedTeacher
from .teachers._several import Several
from .training.fill import fill
from .training.job import Job, run_job

LABELS_ALONE = ({"kind": "ce"},)


def tune(run: RunFile | Path | str, out: Path | str, overrides: Sequence[str] = (), base: Path | None = None,
         student: Path | None = None, teacher: Path | None = None,
         splits: Splits | None = None) -> Path:
    """Train a student on labels alone, as [tune] says; returns the artifact folder `out`.

    `run` is a run file or its path, `overrides` are `table.key=value`, and `base` is the folder its paths are relative
    to (by default that of the file). `student` is a folder to start from instead of what [student] says; `teacher`
    stands in for the teacher's model where the student is made from it; `splits` are the rows, where they were read
    before. Killed at any moment, the same call
    continues. Raises UsageError, DataError or ArtifactError for what cannot be trained, TrainingError when the loss
    or a gradient is no longer finite.
    """
    run, base, splits = read_run(run, overrides, base, out, splits)
    out = Path(out)
    source = student_source(run, base, splits, out, student, teacher)
    run = settle(run, source, splits)
    return run_job(Job("tune", run, base, splits, source, run.tune, LABELS_ALONE, adapter=run.tune.adapter), out)


def distill(run: RunFile | Path | str, out: Path | str, overrides: Sequence[str] = (), base: Path | None = None,
            student: Path | None = None, teacher: Path | None = None,
            splits: Splits | None = None) -> Path:
    """Train a student to match the teacher of [teacher], as [distill] says; returns the artifact folder `out`.

    Arguments and errors as of `tune`. `teacher` is a folder to use instead of what [teacher] says; without it a
    teacher with `tune = true` is first made by `tune_teacher` in `<out>-teacher`.
    """
    return run_job(_distillation(run, Path(out), overrides, base, student, teacher, splits), Path(out))


def fill_cache(run: RunFile | Path | str, out: Path | str, overrides: Sequence[str] = (), base: Path | None = None,
               student: Path | None = None, teacher: Path | None = None,
               splits: Splits | None = None) -> list[Path]:
    """Ask the teacher of [teacher], or each of several, all that `distill` would, and keep it in its cache; returns the
    caches' folders.

    Arguments and errors as of `distill`, which learns from it then without the teacher's being loaded. Killed at any
    moment, the same call continues. UsageError for a teacher without a cache.
    """
    job = _distillation(run, Path(out), overrides, base, student, teacher, splits)
    members = job.teacher.members if isinstance(job.teacher, Several) else [job.teacher]
    caches = [one for one in members if isinstance(one, CachedTeacher)]
    if len(caches) < len(members) or all(one.teacher is None for one in caches):
        raise UsageError("--cache-only: [teacher] has no cache that a teacher would fill",
                         "add cache = {} to [teacher]; of several, each takes a folder of its own")
    fill(job, Path(out))
    return [one.folder for one in caches if one.teacher is not None]


def _distillation(run: RunFile | Path | str, out: Path, overrides: Sequence[str], base: Path | None,
                  student: Path | None, teacher: Path | None, splits: Splits | None) -> Job:
    run, base = _opened(run, overrides, base)
    if splits is None and any(getattr(entry.kind, "IN_ROWS", False) for entry in teachers(run, teacher)):
        raise UsageError("teacher.kind: 'api' answers rows in a stage of edgestill run alone",
                         "edgestill run RUN.toml -o OUT; or edgestill data label, and edgestill tune")
    run, base, splits = read_run(run, (), base, out, splits)
    kind_of(run.task).check_distilled(run.task)
    if teacher is None and getattr(teachers(run)[0].config, "tune", False):
        teacher = tune_teacher(run, out.with_name(out.name + "-teacher"), base=base, splits=splits)
    learned_from, key = open_teacher(run, base, splits, teacher)
    source = student_source(run, base, splits, out, student, teacher)
    run = settle(run, source, splits)
    return Job("distill", run, base, splits, source, run.distill, run.distill.losses, learned_from, key,
               run.distill.adapter)


def tune_teacher(run: RunFile | Path | str, out: Path | str, overrides: Sequence[str] = (),
                 base: Path | None = None, splits: Splits | None = None) -> Path:
    """Fine-tune the teacher's model on the labels, as [tune] says; returns the artifact folder `out`."""
    run, base, splits = read_run(run, overrides, base, out, splits)
    kind_of(run.task).check_distilled(run.task)
    source = teacher_source(run, base)
    check_family(source, run.task)
    run = settle(run, source, splits)
    return run_job(Job("tune", run, base, splits, source, run.tune, LABELS_ALONE, adapter=run.tune.adapter), Path(out))


def prepare_student(run: RunFile | Path | str, out: Path | str, overrides: Sequence[str] = (),
                    base: Path | None = None, teacher: Path | None = None, splits: Splits | None = None) -> Path:
    """Make the untrained student of [student]: cut to fewer layers, thinner ones, a smaller vocabulary or a size, or
    with new weights; returns `out`.

    `teacher` is a folder to start from where [student] names no model. The result is an artifact of stage `prepare`:
    a plain Hugging Face folder that `tune` and `distill` take as `student`; its settings hold what every cut did.
    """
    run, base, splits = read_run(run, overrides, base, out, splits)
    work = Path(out).with_name(Path(out).name + ".work")
    made = prepare(run, base, splits, starting_model(run, base, teacher, work), Path(out))
    if run.student.base:
        shutil.rmtree(work)
    return made


def plan_student(run: RunFile | Path | str, out: Path | str, base: Path | None = None,
                 splits: Splits | None = None) -> list[dict[str, Any]]:
    """What `prepare_student` would do to the model that [student] names, and write nothing: every cut, what stays, and
    the parameters that each part has left."""
    run, base, splits = read_run(run, (), base, out, splits)
    found = resolve(run.student.model, run.student.revision, base, "student.model")
    with templated(found, run.student.template, base) as source:
        return cut_student(run, splits, source)[1]


def read_run(run: RunFile | Path | str, overrides: Sequence[str], base: Path | None, out: Path | str,
             splits: Splits | None = None) -> tuple[RunFile, Path, Splits]:
    """The run file, the folder its paths are relative to and its rows (`splits`, where they were read before); bad rows
    are listed beside `out`."""
    run, folder = _opened(run, overrides, base)
    if splits is None:
        splits = load_splits(run.data, folder, Path(out).parent / "bad-rows.jsonl")
    task, splits = _fill_task(run.task, splits)
    return replace(run, task=task), folder, splits


def _opened(run: RunFile | Path | str, overrides: Sequence[str], base: Path | None) -> tuple[RunFile, Path]:
    if not isinstance(run, RunFile):
        return runfile.read(Path(run), overrides), base or Path(run).parent
    if overrides:
        raise UsageError("overrides need the path of a run file", "give the path, or change the RunFile yourself")
    return runfile.with_private(run), base or Path()


def settle(run: RunFile, source: Source, splits: Splits) -> RunFile:
    """The run with what its rows ask of the model's tokenizer and template: see TaskKind.settle_on."""
    codec = Codec.from_folder(source.folder, run.task)
    return replace(run, task=kind_of(run.task).settle_on(run.task, codec, splits["train"]))


def _fill_task(task: Task, splits: Splits) -> tuple[Task, Splits]:
    """The task with its labels and its head, and the rows as it takes them; DataError for rows that do not fit it."""
    first = splits["train"][0]
    if task.kind == "embed":
        raise UsageError("task.kind = 'embed': embedders are exported as they are, and not trained",
                         "edgestill export MODEL --to onnx:int8, or train a classifier with kind = \"classify\"")
    kind = kind_of(task)
    if first.kind not in kind.rows:
        raise DataError(f"{first.where}: a {first.kind} row, and task.kind is {task.kind!r}",
                        f"rows for {task.kind} hold {kind.columns}: change task.kind or map the columns in "
                        "data.columns")
    pair = next((row for name in ("train", "validation") for row in splits[name] if row.pair), None)
    if pair is not None:
        raise DataError(f"{pair.where}: a pair of texts, and models are trained on single texts",
                        "join both texts in one column, or map the one to learn from in data.columns")
    return kind.settle(task, splits)
