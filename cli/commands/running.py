"""What the verbs `run` and `demo` share: plan, work, show, judge."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from ...models import files, kinds, runfile, toml_text
from ...models.errors import CheckFailed, UsageError
from ...models.progress import duration
from .. import output, progress_lines, quiet
from ..pipeline import engine, forecast, labels, resolve, teachers
from ..pipeline.costs import Cost
from ..pipeline.engine import Stage
from ..pipeline.plan import Plan
from ..report.summary import ModelSummary, Summary, read_summary
from . import teacher

DEMO_ROWS = {"train": 6400, "validation": 300, "test": 500}
DEMO_TITLE = "A voice assistant for the home"


def run(path: Path, out: Path, overrides: Sequence[str], dry_run: bool, as_json: bool, title: str,
        sky: bool = False, yes: bool = False) -> None:
    """Bring the run file `path` up to date in `out` and show what it found; or the plan alone when `dry_run`, as a
    SkyPilot file with `sky`. `yes`: rows may be sent to the teacher of the run file.

    Raises CheckFailed when a gate does not hold, after everything else is written and shown; UsageError for a SkyPilot
    file of a run whose teacher is behind an address.
    """
    resolved, folder, before = resolve.read(path, overrides), out.resolve(), list[Stage]()
    if asked := labels.of(resolved, folder, output.note):
        if sky:
            raise UsageError("--sky: a teacher of the kind 'api' is asked from this machine alone, where its key is",
                             f"let edgestill run answer the rows here; then name {out / labels.ROWS} in data.train of "
                             "a run file without [teacher], and its [distill] [tune]")
        resolved, before = asked.run, [asked.stage]
        if not _labelled(asked, folder, out, dry_run, as_json, yes):
            return
    plan = Plan(resolved, folder, title, output.note,
                teachers.shown(runfile.read(path, overrides), path.parent), fetch=not dry_run, first=before)
    if sky:
        from ..pipeline import sky as skypilot

        click.echo(skypilot.text(plan.run, str(out), forecast.forecast(plan)), nl=False)
        return
    if dry_run:
        _show_plan(plan, out, as_json)
        return
    with quiet.stdout_kept_clean(), progress_lines.shown():
        _tell_costs(plan)
        engine.run(plan.stages, plan.folder, output.note)
    summary = read_summary(plan.folder)
    if devices := plan.run.gates.device:
        output.note("a run measures this machine alone; gates of devices are held by edgestill profile FILE --gates "
                    f"{path} " + " ".join(f"--target {name}=ADDRESS" for name in devices))
    if as_json:
        output.result(summary)
    else:
        show(summary, out)
    broken = [gate for gate in summary.gates if not gate.passed]
    if broken:
        first = broken[0]
        found = first.reason if first.value is None else f"is {first.value:.4g}"
        raise CheckFailed(
            f"{len(broken)} of {len(summary.gates)} gates do not hold; {first.model}: {first.name} {found}, "
            f"its {first.side} is {first.limit:.4g}",
            f"{out / 'report.html'} shows every gate",
        )


def _labelled(asked: labels.Labels, folder: Path, out: Path, dry_run: bool, as_json: bool, yes: bool) -> bool:
    """Whether the rows have their answers, after they were asked for; when `dry_run` what that takes is shown alone.

    Other stages are planned from the rows, so there are none before.
    """
    ((name, state, _),) = engine.plan([asked.stage], folder)
    if state == "kept":
        return True
    plan = asked.labelling.plan()
    if dry_run and as_json:
        output.result({"out": out, "labelling": plan.to_json(), "stages": [
            {"name": name, "state": state, "output": folder / labels.ROWS, "cost": None}]})
    elif dry_run:
        click.echo("\n".join([*plan.lines(), "the other stages are planned once the rows have their answers"]))
    else:
        if plan.questions > plan.answered:
            if not os.environ.get(asked.config.key_variable):
                output.note(f"no key is sent: {asked.config.key_variable} is not set")
            teacher.agree(plan, plan.lines(), asked.config.allow_personal_data, yes,
                          "set allow_personal_data = true in [teacher]")
        with quiet.stdout_kept_clean(), progress_lines.shown():
            engine.run([asked.stage], folder, output.note, last=False)
    return not dry_run


def demo(out: Path, overrides: Sequence[str], dry_run: bool, as_json: bool) -> None:
    """Write the demo's rows into `out` and run its run file; UsageError where the demo's teacher is not installed."""
    path = Path(str(kinds.folder("models.demo")), "run.toml")
    if not path.with_name("teacher").is_dir():
        raise UsageError("the demo's teacher is not installed: wheels leave it out, because no device needs it",
                         "get the source of edgestill and run `make demo` there")
    data = out.resolve() / "data"
    if not dry_run:
        write_demo_rows(data)
    run(path, out, [f"data.dir={json.dumps(str(data))}", *overrides], dry_run, as_json, DEMO_TITLE)


def write_demo_rows(folder: Path) -> None:
    """Write the grammar's rows as JSONL files, unless they stand there already."""
    from ...models.demo import grammar

    for split, count in DEMO_ROWS.items():
        text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in grammar.rows(split, count))
        path = folder / f"{split}.jsonl"
        if not path.is_file() or path.read_text(encoding="utf-8") != text:
            files.write_text(path, text)


def show(summary: Summary, out: Path) -> None:
    """One table: every model with its quality, size, speed and proof."""
    held = any(model.constrained for model in summary.models)
    name = summary.metric.replace("_", " ")
    columns = ["model", f"{name} [95 %]", *(["held to schema"] if held else []), "of teacher", "parameters", "bytes"]
    columns += ["tokens/s", "TTFT ms"] if summary.task == "generate" else ["ms a text"]
    output.table([*columns, "certificate"], [_line(model, summary, held) for model in summary.models],
                 title=f"{summary.title}: {summary.test_rows} test rows")
    for model in summary.models:
        for line in filter(None, (model.grade_told, model.saved_told)):
            output.note(line)
    output.note(f"report: {out / 'report.html'}")


def _tell_costs(plan: Plan) -> None:
    """Minutes and memory of what is to be done, before it is."""
    wanted = [name for name, state, _ in engine.plan(plan.stages, plan.folder) if state == "make"]
    for line in forecast.lines(forecast.forecast(plan), wanted) if wanted else ():
        output.note(line)


def _line(model: ModelSummary, summary: Summary, held: bool) -> list[Any]:
    timed = ("decode_tokens_per_s", "ttft_ms") if summary.task == "generate" else ("latency_ms",)
    numbers = [found.get("p50") if isinstance(found := model.profile.get(name), dict) else found for name in timed]
    share = output.is_share(summary.metric)
    proven = {True: "passed", False: "failed", None: ""}[model.certified]
    if model.certified and model.grade:
        proven = f"{proven}, {model.grade}"
    return [model.name, output.interval(model.metrics.get(summary.metric), share),
            *([output.interval(model.constrained.get(summary.metric), share)] if held else []),
            output.interval(model.ratio_to_teacher), output.cell(model.parameters), output.size(model.model_bytes),
            *map(output.cell, numbers), proven]


def _cost_cells(cost: Cost | None) -> list[str]:
    return ["", "", ""] if cost is None else [
        duration(cost.seconds), output.size(cost.peak_bytes), output.size(cost.disk_bytes) if cost.disk_bytes else ""]


def _show_plan(plan: Plan, out: Path, as_json: bool) -> None:
    lines, costs = engine.plan(plan.stages, plan.folder), forecast.forecast(plan)
    shown = teachers.shown(plan.run, Path())
    if as_json:
        output.result({"out": out, "run": shown, "stages": [
            {"name": name, "state": state, "output": path, "cost": costs.get(name)} for name, state, path in lines],
            "downloads": forecast.downloads(plan.run)})
        return
    output.table(["stage", "state", "time", "memory", "disk", "output"], [
        [name, state, *_cost_cells(costs.get(name) if state == "make" else None),
         str(out / path.relative_to(plan.folder))] for name, state, path in lines], title="plan")
    click.echo("\n" + toml_text.to_toml(shown), nl=False)
    for line in forecast.downloads(plan.run):
        output.note(f"to be downloaded: {line}")
    from ...runtime.profiling.machine import memory_bytes

    place = next(folder for folder in (out.resolve(), *out.resolve().parents) if folder.exists())
    forecast.check(costs, [name for name, state, _ in lines if state == "make"], memory_bytes(),
                   shutil.disk_usage(place).free)
