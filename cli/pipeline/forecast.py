"""What the stages of a plan will cost, from the run file, its rows and its models: said before any of it is spent."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from ...models import catalogue, hub, kinds
from ...models.errors import UsageError
from ...models.progress import duration
from ..output import size
from . import costs, student_tokenizer
from .costs import Cost, Lengths, Shape

if TYPE_CHECKING:
    from ...models.runfile import RunFile
    from ...runtime.text.codec import Codec
    from .plan import Plan
    from .teachers import Planned

WORTH_TELLING = 30.0
"""Seconds."""
TEACHER_ANSWERS = "evaluate the teacher"


def forecast(plan: Plan) -> dict[str, Cost]:
    """Stage → cost, for the stages that take their time with the model; nothing where its size is not known yet."""
    run = plan.run
    student = costs.shape(run.start)
    if student is None or run.task.kind != "generate":
        return {}
    rate = costs.matrix_rate()
    codec = student_tokenizer.codec_of(run, Path(), plan.rows["train"])
    rows = {split: costs.lengths(found, codec, run.data.learn if split == "train" else "last")
            for split, found in plan.rows.items()}
    return {stage.name: cost for stage in plan.stages
            if (cost := _cost(stage.name, plan, student, rows, rate, codec)) is not None}


def lines(found: Mapping[str, Cost], stages: Sequence[str]) -> list[str]:
    """What to tell before `stages` are done: the whole, and each stage of more than half a minute."""
    costed = {stage: found[stage] for stage in stages if stage in found}
    if not costed:
        return []
    seconds, most = sum(cost.seconds for cost in costed.values()), max(cost.peak_bytes for cost in costed.values())
    whole = f"about {duration(seconds)} and {size(most)} of memory on this machine, roughly:"
    return [whole, *(f"  {stage}: {duration(cost.seconds)}, {size(cost.peak_bytes)}"
                     for stage, cost in costed.items() if cost.seconds >= WORTH_TELLING)]


def downloads(run: RunFile) -> list[str]:
    """What a run fetches from the hub first: models that are named and lie neither here nor in the hub's cache."""
    named = [run.start, *(str(table["model"]) for table in run.teachers if table.get("model"))]
    found = []
    for name in dict.fromkeys(named):
        entry = catalogue.entry(name) if name in catalogue.names() else None
        hub_id = entry.hub_id if entry else name
        if Path(name).exists() or hub_id.count("/") != 1 or hub.snapshot(hub_id) is not None:
            continue
        found.append(f"{name}: {f'about {size(2 * entry.parameters)}' if entry else 'of a size that the hub says'}")
    return found


def check(found: Mapping[str, Cost], stages: Sequence[str], memory: int, disk: int) -> None:
    """Raise UsageError for the first of `stages` that takes more memory than this machine has, or where all of them
    leave more than its disk has room for; both in bytes."""
    for stage in stages:
        if stage in found and found[stage].peak_bytes > memory:
            raise UsageError(f"{stage}: takes about {size(found[stage].peak_bytes)} of memory, and this machine has "
                             f"{size(memory)}", "choose a smaller model, or another machine: --dry-run --sky")
    left = sum(found[stage].disk_bytes for stage in stages if stage in found)
    if left > disk:
        raise UsageError(f"the stages leave about {size(left)} on the disk, and it has room for {size(disk)}",
                         "make room, or give -o on another disk")


def _looks_inside(run: RunFile) -> bool:
    """Whether a loss compares what is inside of teacher and student, which is too much to keep."""
    from ...distill.signals import ATTENTION, HIDDEN

    return any({ATTENTION, HIDDEN} & {*kinds.load("distill.losses", loss["kind"]).NEEDS} for loss in run.distill.losses)


def _told(plan: Plan, teacher: Planned, split: str, codec: Codec | None) -> Lengths:
    """Tokens that a teacher reads of a split's rows that it teaches: with what it alone is told."""
    rows, told = plan.rows[split], teacher.told(plan.run, plan.rows["train"])
    own = [rows[place] for place in teacher.places(rows)]
    return costs.lengths([told.row(row) for row in own] if told else own, codec,
                         plan.run.data.learn if split == "train" else "last")


def _cost(stage: str, plan: Plan, student: Shape, rows: dict[str, Lengths], rate: float,
          codec: Codec | None) -> Cost | None:
    run, test = plan.run, rows["test"]
    verb, _, target = stage.rpartition(" ")
    if stage.startswith(("tune", "distill", "train")):
        settings = run.distill if "distill" in stage else run.tune
        learned = rows["train"]
        epochs = settings.steps * settings.batch_size / learned.rows if settings.steps else settings.epochs
        found = costs.training(student, learned, epochs, str(settings.adapter.get("kind")), rate,
                               settings.optimizer)
        for teacher in plan.teachers if "distill" in stage else ():
            if (size := teacher.size) is None:
                continue
            if _looks_inside(run):
                size = replace(size, asked_anew=True)
            found = costs.taught(found, size, _told(plan, teacher, "train", codec), epochs, rate)
        return found
    if stage == TEACHER_ANSWERS and len(plan.teachers) == 1 and (size := plan.teachers[0].size) is not None:
        made = costs.answering(Shape(size.parameters), _told(plan, plan.teachers[0], "test", codec), rate)
        return replace(made, peak_bytes=size.bytes + costs.ACTIVATION_BYTES + costs.PROCESS_BYTES)
    export = next((each for each in run.export if each.target == target), None)
    if export is None:
        return costs.answering(student, test, rate) if stage.startswith("evaluate") else None
    if verb == "evaluate":
        return costs.shipped(student, test, rate)
    if verb == "export and certify":
        return costs.export(student, export, rows["train"], test, rate)
    return None
