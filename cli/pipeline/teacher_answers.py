"""Teachers' own answers to the test rows: what a student's are measured against."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from ...models import progress
from . import evaluate
from .teachers import Planned

if TYPE_CHECKING:
    from ...distill.teachers._prompt import Told
    from ...models.runfile import RunFile
    from ...models.task import Task
    from ...runtime.data.reader import Row


def measure(teachers: Sequence[Planned], tuned: Path | None, run: RunFile, splits: Mapping[str, Sequence[Row]],
            wanted: Sequence[str]) -> evaluate.Kept:
    """The only teacher's answers to the test rows, as the folder `tuned` gives them where it was tuned; of several each
    row's own teacher's, as if one had answered all. Each is told what it alone is told. `wanted` as of
    `evaluate.baseline`."""
    task, train, rows = run.task, splits["train"], splits["test"]
    if len(teachers) == 1:
        return _measure(teachers[0], tuned, task, rows, wanted, teachers[0].told(run, train))
    from ...runtime.evaluation.evaluate import by_answers, evaluate_answers

    answers, parts = [""] * len(rows), list[evaluate.Kept]()
    for teacher in teachers:
        places = teacher.places(rows)
        if not places:
            continue
        parts.append(_measure(teacher, None, task, [rows[place] for place in places], (), teacher.told(run, train)))
        for place, answer in zip(places, parts[-1].evaluation.answers, strict=True):
            answers[place] = answer
    schema = evaluate.read_schema(task)
    names = [name for name in evaluate.metrics_for(rows, schema, None, wanted) if by_answers(name)]
    found = evaluate_answers(answers, rows, names, schema, seconds=sum(part.evaluation.seconds for part in parts))
    return evaluate.Kept("teachers, each its rows", "teacher", found,
                         parameters=sum(part.parameters or 0 for part in parts),
                         model_bytes=sum(part.model_bytes or 0 for part in parts))


def _measure(teacher: Planned, tuned: Path | None, task: Task, rows: Sequence[Row], wanted: Sequence[str],
             told: Told | None) -> evaluate.Kept:
    packed, asked = None if tuned else teacher.packed, rows if told is None else [told.row(row) for row in rows]
    if packed is not None:
        return evaluate.packed(packed, task, asked, wanted, partial(progress.at, "evaluate the teacher")).of(rows)
    subject = evaluate.FloatSubject(tuned or teacher.folder, task)
    found = subject.evaluate(asked, wanted=wanted)
    held = subject.evaluate(asked, constrain=True) if task.schema else None
    return evaluate.Kept("teacher", "teacher", found, held, subject.parameters, 4 * subject.parameters).of(rows)
