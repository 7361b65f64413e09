"""What training starts from: the model that [student] or [teacher] names, as it is or made into a student first."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any

from ..models import kinds, runfile
from ..models.artifact import is_artifact
from ..models.errors import UsageError
from ..models.family import of_config
from ..models.runfile import RunFile, Student
from ..models.task import Task
from ..runtime.data.reader import Row, rows_digest
from .loading import load_model, new_model
from .merge import merged_student
from .sources import Source, check, check_tokenizer, resolve, weights_digest
from .student_template import read, templated, with_template
from .students import _target, depth, vocabulary
from .students._base import Context, Cut, parts
from .teachers import local
from .teachers._base import Teacher
from .teachers._prompt import Prompt
from .teachers._several import Several
from .teachers._tables import Entry, check_rows, entries
from .training import finish, machine
from .training.checkpoint import locked
from .training.job import task_facts
from .training.weighted_losses import needs, of_tables, read_losses
from .training.world import world

STUDENTS = "distill.students"


def student_source(run: RunFile, base: Path, splits: Mapping[str, Sequence[Row]], out: Path, folder: Path | None,
                   teacher: Path | None) -> Source:
    """What training starts from; a student that must be made first lies beside the work of `out`."""
    chosen, work = run.student, out.with_name(out.name + ".work")
    if folder is not None:
        source = resolve(str(folder.absolute()), key="student")
    elif chosen.layers or chosen.vocabulary != "all" or chosen.cuts or chosen.to or chosen.initialise != "weights":
        start = starting_model(run, base, teacher, work)
        shape = {key: value for key, value in asdict(chosen).items() if key not in ("model", "revision", "base")}
        shape["template"] = read(chosen.template, base) if chosen.template else ""
        made_from = [shape, chosen.to and runfile.formats(run), run.distill.seed, weights_digest(start.folder),
                     task_facts(run.task, base), rows_digest([*splits["train"], *splits["validation"]])]
        name = hashlib.sha256(json.dumps(made_from, sort_keys=True).encode()).hexdigest()[:16]
        prepared = work / f"student-{name}"

        def make() -> None:
            with locked(work):
                if not is_artifact(prepared):
                    prepare(run, base, splits, start, prepared)

        world().by_lead(make)
        source = resolve(str(prepared.absolute()), key="student")
    else:
        source = starting_model(run, base, teacher, work)
        if chosen.template:
            plain, made = source, work / "student-template"

            def write() -> None:
                with locked(work):
                    with_template(plain, chosen.template, base, made)

            world().by_lead(write)
            source = replace(source, folder=made)
    check_family(source, run.task)
    return source


def prepare(run: RunFile, base: Path, splits: Mapping[str, Sequence[Row]], source: Source, out: Path) -> Path:
    """Write the student of [student], made from `source`, as an artifact of stage `prepare`."""
    chosen = run.student
    with templated(source, chosen.template, base) as source:
        cut, cuts = cut_student(run, splits, source)
        if chosen.initialise == "random":
            cut.model = new_model(cut.model.config, run.task, run.distill.seed)
        return finish.write(out, cut.model, source.folder, run, base, finish.Facts(
            "prepare", [*source.lineage, source.parent("base")], {"model": source.licence},
            settings={"seed": run.distill.seed, "layers": chosen.layers, "vocabulary": chosen.vocabulary,
                      "initialise": chosen.initialise, "cuts": cuts}), kept=cut.kept)


def cut_student(run: RunFile, splits: Mapping[str, Sequence[Row]], source: Source) -> tuple[Cut, list[dict[str, Any]]]:
    """The model of `source` after every cut of [student], and what each did: its kind, what stays, and the parameters
    that every part has left; the first entry, of no kind, is the model as it was.

    Raises UsageError for a cut that cannot be made, and for one whose result could not be exported.
    """
    check_family(source, run.task)
    chosen, steps = run.student, cuts_of(run.student)
    family = of_config(check(source.folder), training=True)
    cut = Cut(load_model(source.folder, run.task, run.distill.seed))
    context = Context(family, source.folder, run.task, splits)
    done: list[dict[str, Any]] = [{"kind": "", "parameters": parts(cut.model, family)}]

    def apply(step: _target.Step) -> None:
        found = kinds.load(STUDENTS, step[0]).apply(cut, step[1], context)
        done.append({"kind": step[0], **found, "parameters": parts(cut.model, family)})

    def carried(config: Mapping[str, Any]) -> None:
        for format in ("", *runfile.formats(run)):
            family.check(config, format)

    for step in steps:
        apply(step)
    if chosen.to:
        _target.reach(cut, context, chosen.to, chosen.format, apply, carried)
    carried(cut.model.config.to_dict())
    return cut, done


def cuts_of(chosen: Student) -> list[_target.Step]:
    """The cuts that [student] names, `layers` and `vocabulary` first; UsageError for what is no cut or no size."""
    steps: list[_target.Step] = []
    if chosen.layers:
        steps.append(("depth", depth.Config(keep=chosen.layers)))
    if chosen.vocabulary == "trim":
        steps.append(("vocabulary", vocabulary.Config()))
    steps += [(table.get("kind", ""), runfile.kind_config(STUDENTS, table, f"student.cuts[{index}]"))
              for index, table in enumerate(chosen.cuts)]
    if chosen.to:
        _target.read(chosen.to, chosen.format)
    elif chosen.format:
        raise UsageError(f"student.format: {chosen.format!r}, and student.to gives no bytes",
                         "give a size such as to = \"26 MB\", or leave format out")
    return steps


def starting_model(run: RunFile, base: Path, teacher: Path | None, work: Path) -> Source:
    """The model that the student is made from; an adapter is merged in `work`."""
    if run.student.base:
        return merged_student(run.student, run.task, base, work)
    if run.student.model:
        return resolve(run.student.model, run.student.revision, base, "student.model")
    if teacher is None and not run.teacher:
        raise UsageError("student.model: is required where there is no teacher", "name a folder or a catalogue model")
    return teacher_source(run, base, teacher)


def check_family(source: Source, task: Task) -> None:
    """Refuse before any weight is read what could be trained and never be exported."""
    family = of_config(check(source.folder), training=True)
    if task.kind not in family.tasks:
        raise UsageError(f"{source.name}: the {family.name} family cannot be made for task.kind = {task.kind!r}",
                         f"this family is for: {', '.join(family.tasks)}")
    check_tokenizer(source.folder)


def teachers(run: RunFile, folder: Path | None = None) -> list[Entry]:
    """The teachers, one at least; a `folder` is a local one, whatever [teacher] says. Errors as of `entries`."""
    found = entries(run)
    if folder is not None:
        config = found[0].config if len(found) == 1 else None
        told = {item.name: getattr(config, item.name) for item in fields(Prompt) if isinstance(config, Prompt)}
        cache = getattr(config, "cache", None)
        return [Entry("teacher", local, local.Config(str(folder.absolute()), cache=cache, **told))]
    if not found:
        raise UsageError("teacher: the run file has no such table, and there is nothing to learn from",
                         "add [teacher] with kind = \"local\" and model, or use `edgestill tune`")
    return found


def open_teacher(run: RunFile, base: Path, splits: Mapping[str, Sequence[Row]],
                 folder: Path | None = None) -> tuple[Teacher, str]:
    """The teacher, with all that it is told, behind its cache where it has one, or several as one, and the key of what
    is said.

    Raises DataError for rows that no teacher's route takes, UsageError for losses that need what a teacher does not
    provide, and errors as of its kind's `open` and of _prompt.read.
    """
    found = teachers(run, folder)
    check_rows(found, splits, run.data.route)
    needs(read_losses(run.distill.losses), of_tables(found, base))
    opened = [entry.open(run, splits, base, machine.device()) for entry in found]
    if len(opened) == 1:
        return opened[0]
    several = Several(found, opened)
    return several, several.key


def teacher_source(run: RunFile, base: Path, folder: Path | None = None) -> Source:
    """The teacher as a model to train or to cut; UsageError for a kind that is no such folder, and for several."""
    found = teachers(run, folder)
    if len(found) > 1 or not hasattr(found[0].kind, "source"):
        what = f"{len(found)} teachers are" if len(found) > 1 else f"{run.teachers[0]['kind']!r} is"
        raise UsageError(f"teacher: {what} no model folder that could be trained or cut",
                         "name a model in [student], and leave teacher.tune out")
    source: Source = found[0].kind.source(found[0].config, base)
    return source
