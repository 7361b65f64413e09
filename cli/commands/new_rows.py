"""`edgestill data generate`: new rows, by a large model behind an address, from a few or from documents."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from .. import inputs, options, output, progress_lines
from . import teacher

if TYPE_CHECKING:
    from ...distill.generating import Wanted
    from ...models.task import Task
    from ...runtime.data.documents.passages import Passage

SHORTEST = 80
"""Characters of a passage, blanks apart, below which there is little to ask about."""


@click.command("generate", epilog=options.example(
    "edgestill data generate seeds.jsonl --teacher-url https://host/v1 --teacher-model NAME --test test.jsonl",
    "edgestill data generate --document manual.pdf --document docs/ --teacher-url https://host/v1 --teacher-model NAME "
    "--max-cost 5"))
@click.argument("seeds", required=False, type=click.Path(path_type=Path))
@teacher.address
@click.option("--document", "documents", multiple=True, type=click.Path(path_type=Path), metavar="PATH",
              help="Text, Markdown, HTML or PDF, or a folder of these, to ask about and answer from; may be repeated.")
@click.option("--rows", type=click.IntRange(1), default=100, show_default=True, help="New rows.")
@click.option("--task", "about", type=click.Path(path_type=Path),
              help="Text file that says what the task is, for the teacher alone.")
@click.option("--label", "labels", multiple=True, metavar="NAME",
              help="A label that rows can have; repeat for several. Default: those of the seeds.")
@click.option("--schema", type=click.Path(path_type=Path), help="JSON schema that completions must satisfy.")
@click.option("--inputs-only", is_flag=True, help="Write inputs without answers, for data label.")
@click.option("--test", type=click.Path(path_type=Path), help="Data file of test rows, which no new row may be like.")
@click.option("--per-call", type=click.IntRange(1, 50), default=5, show_default=True,
              help="Rows that the teacher is asked for at a time, at most.")
@click.option("--passage", "longest", type=click.IntRange(200), default=1500, show_default=True, metavar="CHARACTERS",
              help="Longest passage that a document is cut into.")
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True,
              help="Of the draw of seeds and passages for each call.")
@teacher.limits
@options.columns
@options.skip_bad
@options.out("generated.jsonl", what="File of rows to write (.jsonl); it must not exist.")
@options.dry_run
@options.as_json
@options.verbose
def generate(seeds: Path | None, allow_personal_data: bool, yes: bool, out: Path, dry_run: bool, as_json: bool,
             **given: Any) -> int:
    """Let a large model write new rows, like a few of yours or about your documents.

    SEEDS are rows with answers: texts with labels, or questions with answers. Labels, schema and system message may
    also stand in SEEDS.task.toml beside them. With documents, every row has its passage and where it stands, and
    answers whose numbers, names or quotations are not in the passage are left out. So are rows that repeat a seed, a
    test row or each other, or almost do. The host, the calls and the price are shown, and nothing is sent before you
    agree. Every call is written down in a ledger beside the output: after a crash the same command goes on.
    """
    from ...distill.generating import Generating
    from ...distill.labelling import Settings
    from ...models.task import Task
    from ...runtime.data.calls import task_file

    teacher.check_out(out)
    task = (task_file.read(seeds) if seeds else None) or Task()
    about = given.pop("about")
    wanted = _wanted(seeds, task, given)
    settings = Settings(system=teacher.text(about, "what the task is") if about else task.system, **teacher.told(given))
    generating = Generating(wanted, settings, out.with_suffix(".ledger.jsonl"))
    plan = generating.plan()
    if dry_run:
        output.result(plan.to_json()) if as_json else click.echo("\n".join(plan.lines()))
        return 0
    teacher.agree(plan, plan.lines(), allow_personal_data, yes)
    with progress_lines.shown():
        found = generating.run()
    written = found.write(out)
    if found.rows:
        schema = task_file.schema_of(out).name if wanted.schema is not None else ""
        kept = {"system": task.system, "labels": list(wanted.labels), "schema": schema}
        written += task_file.write(out, {key: value for key, value in kept.items() if value}, wanted.schema)
    if as_json:
        output.result({**found.report.to_json(), "written": written})
    else:
        click.echo("\n".join(found.report.lines()))
    ahead = f"edgestill data check {out}" if wanted.answers else f"edgestill data label {out}"
    output.note(f"written: {', '.join(map(str, written))}; next: {ahead}")
    if found.stopped is not None:
        raise found.stopped
    return 0


def _wanted(path: Path | None, task: Task, given: dict[str, Any]) -> Wanted:
    """What the options say, and the table beside the seeds where they say nothing."""
    from ...distill.generating import Wanted
    from ...runtime.data.reader import read_rows

    columns, skip_bad = inputs.read_columns(given.pop("columns")), given.pop("skip_bad")
    seeds = read_rows(path, columns, skip_bad, inputs.LEDGER) if path else []
    labels, form = teacher.form(given.pop("labels") or task.labels or sorted({row.label for row in seeds if row.label}),
                                given.pop("schema"), task)
    test = given.pop("test")
    return Wanted(
        rows=given.pop("rows"), seeds=seeds, passages=_passages(given.pop("documents"), given.pop("longest"), skip_bad),
        test=read_rows(test, columns) if test else [], labels=labels, schema=form,
        answers=not given.pop("inputs_only"), per_call=given.pop("per_call"), seed=given.pop("seed"))


def _passages(paths: tuple[Path, ...], longest: int, skip_bad: bool) -> list[Passage]:
    """The passages of documents, but for those with little in them; says how many these are."""
    from ...models.errors import DataError
    from ...runtime.data.documents import document
    from ...runtime.data.documents.passages import passages

    found: list[Passage] = []
    for path in document.find(paths):
        try:
            found += passages(document.read(path), longest)
        except DataError as error:
            if not skip_bad:
                raise DataError(error.message, f"{error.hint}; or leave such documents out with --skip-bad") from None
            output.note(f"left out: {error.message}")
    kept = [passage for passage in found if len("".join(passage.text.split())) >= SHORTEST]
    if len(kept) < len(found):
        output.note(f"{len(found) - len(kept)} passages of less than {SHORTEST} characters are not asked about")
    if paths and not kept:
        raise DataError("no passage of these documents has enough text to ask about", "give other documents")
    return kept
