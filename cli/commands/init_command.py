"""`edgestill init`: a run file to start from."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import click

from ...models import files
from ...models.errors import UsageError
from .. import inputs, options, output
from . import starting


@click.command(
    "init",
    epilog=options.example(
        "edgestill init train.jsonl",
        "edgestill init train.jsonl --device pi5",
        "edgestill init tickets.csv --column text=body --column label=queue --student minilm-l6",
    ),
)
@click.argument("data", type=click.Path(path_type=Path))
@click.option("--student", metavar="NAME",
              help="Model to start from: a name that `edgestill models` lists, a folder, a GGUF file or a "
              "hub name.")
@click.option(
    "--teacher", metavar="NAME", help="Model to learn from; default: the next larger one of the student's series."
)
@click.option("--device", metavar="NAME", help="Choose student and format for this device: a name that `edgestill "
              "estimate --devices` lists, or a device file.")
@click.option("--test", type=click.Path(path_type=Path), help="Data file of the test rows; default: a share of DATA.")
@click.option("--column", "columns", multiple=True, metavar="OURS=THEIRS",
              help="Column of the data, such as prompt=question; may be repeated.")
@options.skip_bad
@options.out("run.toml", what="Run file to write; it must not exist.")
@options.dry_run
@options.as_json
@options.verbose
def command(
    data: Path,
    student: str | None,
    teacher: str | None,
    device: str | None,
    test: Path | None,
    columns: tuple[str, ...],
    skip_bad: bool,
    out: Path,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Write a commented run file that fits your data.

    DATA is read to find its columns, its kind of task and how long its rows are. Columns with common names
    (prompt, completion, messages, text, label …) are found by themselves. What `edgestill data logs` wrote beside the
    rows about system prompt, schema and labels goes into [task]. --dry-run prints the file instead.
    """
    if out.exists() and not dry_run:
        raise UsageError(f"{out}: already exists", "choose another -o/--out, or remove it first")
    chosen, larger = (starting.model(name) if name else None for name in (student, teacher))
    from ...runtime.data.calls import task_file
    from ...runtime.data.reader import read_rows

    mapping = inputs.read_columns(columns)
    rows = read_rows(data, mapping, skip_bad, inputs.LEDGER)
    given = task_file.read(data)
    if given:
        output.note(f"[task] as {task_file.path_of(data)} says")
    proposal = None
    if device:
        from . import proposed_device

        proposal = proposed_device.propose(device, student, rows[0].classified)
        chosen = starting.model(proposal.student)
    start = starting.describe(rows, chosen, larger, given or starting.NOTHING)
    if proposal:
        start = replace(start, exports=tuple(
            each for each in start.exports if each.target.startswith(proposal.format)) or start.exports)
    text = starting.run_file(start, data, test, mapping, out, skip_bad)
    if proposal:
        text = "\n".join([*proposal.reasons, text, *proposal.gates]) + "\n"
    starting.check(text)
    if not dry_run:
        files.write_text(out, text)
    if as_json:
        output.result(
            {
                "run_file": out,
                "written": not dry_run,
                "task": start.task,
                "rows": start.rows,
                "student": start.student,
                "teacher": start.teacher,
                "text": text,
            }
        )
    elif dry_run:
        click.echo(text, nl=False)
    else:
        output.note(f"{start.rows} {start.task} rows; next: edgestill run {out} -o out")
        click.echo(out)
