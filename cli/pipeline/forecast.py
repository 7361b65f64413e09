"""What the stages of a plan will cost, from the run file, its rows and its models: said before any of it is spent."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from ...models import kinds
from ...models.progress import duration
from ..output import size
from . import costs, student_tokenizer
from .costs import Cost, Lengths, Shape

if TYPE_CHECKING:
    from ...models.runfile import RunFile
    from .plan import Plan

WORTH_TELLING = 30.0
"""Seconds."""


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
            if (cost := _cost(stage.name, plan, student, rows, rate)) is not None}


def lines(found: Mapping[str, Cost], stages: Sequence[str]) -> list[str]:
    """What to tell before `stages` are done: the whole, and each stage of more than half a minute."""
    costed = {stage: found[stage] for stage in stages if stage in found}
    if not costed:
        return []
    seconds, most = sum(cost.seconds for cost in costed.values()), max(cost.peak_bytes for cost in costed.values())
    whole = f"about {duration(seconds)} and {size(most)} of memory on this machine, roughly:"
    return [whole, *(f"  {stage}: {duration(cost.seconds)}, {size(cost.peak_bytes)}"
                     for stage, cost in costed.items() if cost.seconds >= WORTH_TELLING)]


def _looks_inside(run: RunFile) -> bool:
    """Whether a loss compares what is inside of teacher and student, which is too much to keep."""
    from ...distill.signals import ATTENTION, HIDDEN

    return any({ATTENTION, HIDDEN} & {*kinds.load("distill.losses", loss["kind"]).NEEDS} for loss in run.distill.losses)


def _cost(stage: str, plan: Plan, student: Shape, rows: dict[str, Lengths], rate: float) -> Cost | None:
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
            own = learned.share(len(teacher.places(plan.rows["train"])) / max(1, learned.rows))
            found = costs.taught(found, size, own, epochs, rate)
        return found
    export = next((each for each in run.export if each.target == target), None)
    if export is None:
        return costs.answering(student, test, rate) if stage.startswith("evaluate") else None
    if verb == "evaluate":
        return costs.shipped(student, test, rate)
    if verb == "export and certify":
        return costs.export(student, export, rows["train"], test, rate)
    return None
