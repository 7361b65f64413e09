"""`edgestill data label`: rows without answers become rows with answers, by a large model behind an address."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from .. import inputs, options, output, progress_lines
from . import teacher

if TYPE_CHECKING:
    from ...distill.labelling import Settings
    from ...models.task import Task


@click.command("label", epilog=options.example(
    "edgestill data label rows.jsonl --teacher-url https://host/v1 --teacher-model NAME --label billing --label other",
    "edgestill data label rows.jsonl --teacher-url https://host/v1 --teacher-model NAME --schema answer.json "
    "--system prompt.txt --max-cost 5"))
@click.argument("rows", type=click.Path(path_type=Path))
@teacher.address
@click.option("--system", type=click.Path(path_type=Path),
              help="Text file with a system message for the teacher alone.")
@click.option("--examples", type=click.Path(path_type=Path),
              help="Data file of rows with answers, shown to the teacher before every row.")
@click.option("--private", multiple=True, metavar="COLUMN",
              help="Column that the teacher alone reads, behind the question; may be repeated.")
@click.option("--label", "labels", multiple=True, metavar="NAME",
              help="A label that rows can have; repeat for several.")
@click.option("--schema", type=click.Path(path_type=Path), help="JSON schema that answers must satisfy.")
@click.option("--all", is_flag=True, help="Answer rows that have an answer, too; their own only measures the teacher.")
@click.option("--votes", type=click.IntRange(1, 101), default=1, show_default=True,
              help="Times that every row is asked; what most answers mean is taken.")
@click.option("--check", type=click.IntRange(0), default=20, show_default=True,
              help="Rows, those with answers first, on which the teacher is measured before the others are asked.")
@click.option("--min-agreement", type=click.FloatRange(0, 1), default=0.0, show_default=True,
              help="Share of them in which it must agree with their answers, and with itself.")
@teacher.limits
@options.columns
@options.skip_bad
@options.out("labelled.jsonl", what="File of rows to write (.jsonl); it must not exist.")
@options.dry_run
@options.as_json
@options.verbose
def label(rows: Path, private: tuple[str, ...], schema: Path | None, allow_personal_data: bool, yes: bool,
          columns: tuple[str, ...], skip_bad: bool, out: Path, dry_run: bool, as_json: bool, **given: Any) -> int:
    """Let a large model answer rows that have no answer.

    ROWS are questions, texts or conversations that end with the user; rows with an answer keep it, and the teacher is
    measured on them. Labels, schema and system message may also stand in ROWS.task.toml beside them. The host, the
    rows and the price are shown, and nothing is sent before you agree. Every call is written down in a ledger beside
    the output: after a crash the same command goes on, and asks nothing twice that was answered. The key, the address,
    the teacher's system message, examples and private columns stand in no file that is written, but as hashes.
    """
    from ...distill.labelling import Labelling
    from ...distill.labelling.items import read_items
    from ...models.task import Task
    from ...runtime.data.calls import task_file

    teacher.check_out(out)
    task = task_file.read(rows) or Task()
    settings = _settings(task, schema, given)
    items = read_items(rows, inputs.read_columns(columns), private, settings.labels, skip_bad, inputs.LEDGER)
    labelling = Labelling(items, settings, out.with_suffix(".ledger.jsonl"))
    plan = labelling.plan()
    if dry_run:
        output.result(plan.to_json()) if as_json else click.echo("\n".join(plan.lines()))
        return 0
    teacher.agree(plan, plan.lines(), allow_personal_data, yes)
    with progress_lines.shown():
        found = labelling.run()
    written = found.write(out, rows)
    kept = {"system": task.system, "labels": list(settings.labels)}
    named = {"schema": task_file.schema_of(out).name} if settings.schema is not None else {}
    written += task_file.write(out, {key: value for key, value in {**kept, **named}.items() if value}, settings.schema)
    if as_json:
        output.result({**found.report.to_json(), "written": written})
    else:
        click.echo("\n".join(found.report.lines()))
    ahead = f"edgestill init {out}" if found.stopped is None else f"remove {out}, and the same command goes on"
    output.note(f"written: {', '.join(map(str, written))}; next: {ahead}")
    if found.stopped is not None:
        raise found.stopped
    return 0


def _settings(task: Task, schema: Path | None, given: dict[str, Any]) -> Settings:
    """What the options say, and the table beside the rows where they say nothing."""
    from ...distill.labelling import Settings
    from ...runtime.data.reader import read_rows

    system, examples = given.pop("system"), given.pop("examples")
    labels, form = teacher.form(given.pop("labels") or task.labels, schema, task)
    return Settings(
        labels=labels, system=teacher.text(system, "the system message") if system else task.system,
        examples=read_rows(examples) if examples else (), schema=form, **teacher.told(given))
