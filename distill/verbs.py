"""The verbs of this room: prepare a student, tune, distil."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from ..models import kinds, runfile
from ..models.artifact import is_artifact
from ..models.errors import DataError, UsageError
from ..models.family import of_config
from ..models.runfile import RunFile
from ..models.task import Task
from ..runtime.data import learned_tokens
from ..runtime.data.reader import Row, load_splits, rows_digest
from ..runtime.text.codec import Codec
from .data import targets
from .loading import load_model, new_model
from .merge import merged_student
from .sources import Source, check, check_tokenizer, resolve, weights_digest
from .students.templates import read, with_template
from .teachers import local
from .training import finish, machine
from .training.checkpoint import locked
from .training.job import Job, run_job, task_facts

TEACHERS = "distill.teachers"
Splits = Mapping[str, Sequence[Row]]
"""Rows by split: train, validation and test."""
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
    run, base, splits = read_run(run, overrides, base, out, splits)
    out = Path(out)
    targets.check_distilled(run.task)
    if teacher is None and getattr(_teacher_kind(run)[1], "tune", False):
        teacher = tune_teacher(run, out.with_name(out.name + "-teacher"), base=base, splits=splits)
    kind, config = _teacher_kind(run, teacher)
    learned_from, key = kind.open(config, base, machine.device()), kind.key(config, base)
    source = student_source(run, base, splits, out, student, teacher)
    run = settle(run, source, splits)
    return run_job(Job("distill", run, base, splits, source, run.distill, run.distill.losses, learned_from, key,
                       run.distill.adapter), out)


def tune_teacher(run: RunFile | Path | str, out: Path | str, overrides: Sequence[str] = (),
                 base: Path | None = None, splits: Splits | None = None) -> Path:
    """Fine-tune the teacher's model on the labels, as [tune] says; returns the artifact folder `out`."""
    run, base, splits = read_run(run, overrides, base, out, splits)
    targets.check_distilled(run.task)
    source = _teacher_source(run, base)
    _check_family(source, run.task)
    run = settle(run, source, splits)
    return run_job(Job("tune", run, base, splits, source, run.tune, LABELS_ALONE, adapter=run.tune.adapter), Path(out))


def prepare_student(run: RunFile | Path | str, out: Path | str, overrides: Sequence[str] = (),
                    base: Path | None = None, teacher: Path | None = None) -> Path:
    """Make the untrained student of [student]: fewer layers, a smaller vocabulary, or new weights; returns `out`.

    `teacher` is a folder to start from where [student] names no model. The result is an artifact of stage `prepare`:
    a plain Hugging Face folder that `tune` and `distill` take as `student`.
    """
    run, base, splits = read_run(run, overrides, base, out)
    work = Path(out).with_name(Path(out).name + ".work")
    made = _prepare(run, base, splits, _start(run, base, teacher, work), Path(out))
    if run.student.base:
        shutil.rmtree(work)
    return made


def _prepare(run: RunFile, base: Path, splits: Mapping[str, Sequence[Row]], source: Source, out: Path) -> Path:
    _check_family(source, run.task)
    chosen, task = run.student, run.task
    if chosen.template:
        source = with_template(source, chosen.template, base, Path(out).with_name(Path(out).name + ".template"))
    model = load_model(source.folder, task, run.distill.seed)
    kept = None
    if chosen.layers:
        from .students.depth import keep_layers

        model = keep_layers(model, chosen.layers)
    if chosen.vocabulary == "trim":
        kept = _kept(source.folder, task, splits)
        from .students.vocabulary import trim_model

        model = trim_model(model, kept)
    if chosen.initialise == "random":
        model = new_model(model.config, task, run.distill.seed)
    return finish.write(out, model, source.folder, run, base, finish.Facts(
        "prepare", [*source.lineage, source.parent("base")], {"model": source.licence},
        settings={"seed": run.distill.seed, "layers": chosen.layers, "vocabulary": chosen.vocabulary,
                  "initialise": chosen.initialise}), kept=kept)


def read_run(run: RunFile | Path | str, overrides: Sequence[str], base: Path | None, out: Path | str,
             splits: Splits | None = None) -> tuple[RunFile, Path, Splits]:
    """The run file, the folder its paths are relative to and its rows (`splits`, where they were read before); bad rows
    are listed beside `out`."""
    if isinstance(run, RunFile):
        if overrides:
            raise UsageError("overrides need the path of a run file", "give the path, or change the RunFile yourself")
        folder = base or Path()
    else:
        folder = base or Path(run).parent
        run = runfile.read(Path(run), overrides)
    if splits is None:
        splits = load_splits(run.data, folder, Path(out).parent / "bad-rows.jsonl")
    task, splits = _fill_task(run.task, splits)
    return replace(run, task=task), folder, splits


def settle(run: RunFile, source: Source, splits: Splits) -> RunFile:
    """The run with the options of the chat template that its rows ask for: see learned_tokens.settled."""
    if run.task.kind != "generate":
        return run
    options = learned_tokens.settled(Codec.from_folder(source.folder, run.task), splits["train"])
    return replace(run, task=replace(run.task, template_options=options))


def _fill_task(task: Task, splits: Splits) -> tuple[Task, Splits]:
    """The task with its labels and its head, and the rows as it takes them; DataError for rows that do not fit it."""
    first = splits["train"][0]
    if task.kind == "embed":
        raise UsageError("task.kind = 'embed': embedders are exported as they are, and not trained",
                         "edgestill export MODEL --to onnx:int8, or train a classifier with kind = \"classify\"")
    if (task.kind == "classify") != (first.kind in ("label", "labels", "score")):
        wanted = ("text and label, labels or score" if task.kind == "classify" else
                  "messages, prompt and completion, or text")
        raise DataError(f"{first.where}: a {first.kind} row, and task.kind is {task.kind!r}",
                        f"rows for {task.kind} hold {wanted}: change task.kind or map the columns in data.columns")
    pair = next((row for name in ("train", "validation") for row in splits[name] if row.pair), None)
    if pair is not None:
        raise DataError(f"{pair.where}: a pair of texts, and models are trained on single texts",
                        "join both texts in one column, or map the one to learn from in data.columns")
    return targets.settle(task, splits) if task.kind == "classify" else (task, splits)


def _teacher_kind(run: RunFile, folder: Path | None = None) -> tuple[Any, Any]:
    """The teacher's kind and its config; a `folder` is a local one, whatever [teacher] says."""
    if folder is not None:
        return local, local.Config(str(folder.absolute()))
    if not run.teacher:
        raise UsageError("teacher: the run file has no such table, and there is nothing to learn from",
                         "add [teacher] with kind = \"local\" and model, or use `edgestill tune`")
    config = runfile.kind_config(TEACHERS, run.teacher, "teacher")
    return kinds.load(TEACHERS, run.teacher["kind"]), config


def _teacher_source(run: RunFile, base: Path, folder: Path | None = None) -> Source:
    """The teacher as a model to train or to cut; UsageError for a kind that is no such folder."""
    kind, config = _teacher_kind(run, folder)
    if not hasattr(kind, "source"):
        raise UsageError(f"teacher.kind: {run.teacher['kind']!r} is no model folder that could be trained or cut",
                         "name a model in [student], and leave teacher.tune out")
    source: Source = kind.source(config, base)
    return source


def _start(run: RunFile, base: Path, teacher: Path | None, work: Path) -> Source:
    """The model that the student is made from; an adapter is merged in `work`."""
    if run.student.base:
        return merged_student(run.student, run.task, base, work)
    if run.student.model:
        return resolve(run.student.model, run.student.revision, base, "student.model")
    if teacher is None and not run.teacher:
        raise UsageError("student.model: is required where there is no teacher", "name a folder or a catalogue model")
    return _teacher_source(run, base, teacher)


def student_source(run: RunFile, base: Path, splits: Mapping[str, Sequence[Row]], out: Path, folder: Path | None,
                   teacher: Path | None) -> Source:
    """What training starts from; a student that must be made first lies beside the work of `out`."""
    chosen, work = run.student, out.with_name(out.name + ".work")
    if folder is not None:
        source = resolve(str(folder.absolute()), key="student")
    elif chosen.layers or chosen.vocabulary != "all" or chosen.initialise != "weights":
        start = _start(run, base, teacher, work)
        shape = {key: value for key, value in asdict(chosen).items() if key not in ("model", "revision", "base")}
        shape["template"] = read(chosen.template, base) if chosen.template else ""
        made_from = [shape, run.distill.seed, weights_digest(start.folder), task_facts(run.task, base),
                     rows_digest([*splits["train"], *splits["validation"]])]
        name = hashlib.sha256(json.dumps(made_from, sort_keys=True).encode()).hexdigest()[:16]
        prepared = work / f"student-{name}"
        with locked(work):
            if not is_artifact(prepared):
                _prepare(run, base, splits, start, prepared)
        source = resolve(str(prepared.absolute()), key="student")
    else:
        source = _start(run, base, teacher, work)
        if chosen.template:
            with locked(work):
                source = with_template(source, chosen.template, base, work / "student-template")
    _check_family(source, run.task)
    return source


def _check_family(source: Source, task: Task) -> None:
    """Refuse before any weight is read what could be trained and never be exported."""
    family = of_config(check(source.folder), training=True)
    if task.kind not in family.tasks:
        raise UsageError(f"{source.name}: the {family.name} family cannot be made for task.kind = {task.kind!r}",
                         f"this family is for: {', '.join(family.tasks)}")
    check_tokenizer(source.folder)


def _kept(folder: Path, task: Task, splits: Mapping[str, Sequence[Row]]) -> list[int]:
    """The token ids that the training and validation rows use, and what these are made of."""
    from .students.vocabulary import kept_tokens

    codec = Codec.from_folder(folder, task)
    used: set[int] = set()
    for row in [*splits["train"], *splits["validation"]]:
        found = [codec.encode(row.text, add_special_tokens=True)] if task.kind == "classify" else [
            one.ids for one in learned_tokens.sequences(codec, row)]
        used.update(token for ids in found for token in ids)
    return kept_tokens(json.loads(codec.tokenizer.to_str()), used)
