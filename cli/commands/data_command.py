"""`edgestill data`: what is in the rows."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from .. import inputs, options, output
from ..pipeline import student_tokenizer
from .label import label
from .new_rows import generate


@click.group("data", epilog=options.example("edgestill data check run.toml", "edgestill data check train.jsonl"))
def command() -> None:
    """Make rows of logs or anew, label rows, look at rows, check them."""


command.add_command(label)
command.add_command(generate)


@command.command(
    "check",
    epilog=options.example(
        "edgestill data check run.toml",
        "edgestill data check train.csv --test test.csv --column text=question --tokenizer smollm2/",
    ),
)
@click.argument("data", type=click.Path(path_type=Path))
@click.option("--test", type=click.Path(path_type=Path), help="Data file of the test rows; default: a share of DATA.")
@click.option("--tokenizer", type=click.Path(path_type=Path),
              help="Model folder whose tokenizer counts tokens and proves that all of a row reaches them; default: "
              "the run file's student, where it lies on this machine.")
@options.columns
@options.out_file("Also write the report to this JSON file.")
@options.settings
@options.as_json
@options.verbose
def check(data: Path, test: Path | None, tokenizer: Path | None, columns: tuple[str, ...], out: Path | None,
          overrides: tuple[str, ...], as_json: bool) -> int:
    """Count rows, tokens, duplicates, leaks between splits, labels and bad rows.

    DATA is a run file (.toml) or a data file. Exit code 3 when something would make a measured figure false: bad
    rows, test rows that stand in the training rows, labels that no training row has, messages, calls or tools that
    the student's chat template leaves out.
    """
    from ...runtime.data.checks import check_data

    run, base = inputs.read_run(data, test, columns, overrides)
    report = check_data(run.data, base, lambda rows: student_tokenizer.codec_of(run, base, rows, tokenizer))
    if out is not None:
        from ...models import files

        files.write_json(out, report.to_json())
    if as_json:
        output.result(report.to_json())
    else:
        click.echo("\n".join(report.lines()))
    return 3 if report.failed else 0


@command.command(
    "show",
    epilog=options.example("edgestill data show run.toml", "edgestill data show run.toml --split test --rows 3 --json"),
)
@click.argument("data", type=click.Path(path_type=Path))
@click.option("--split", type=click.Choice(("train", "validation", "test")), default="train", show_default=True,
              help="Which rows.")
@click.option("--rows", "count", type=click.IntRange(min=1), default=5, show_default=True, help="How many of them.")
@click.option("--tokenizer", type=click.Path(path_type=Path), help="Model folder; default: the run file's student, "
              "where it lies on this machine.")
@options.columns
@options.settings
@options.as_json
@options.verbose
def show(data: Path, split: str, count: int, tokenizer: Path | None, columns: tuple[str, ...],
         overrides: tuple[str, ...], as_json: bool) -> None:
    """Print rows as the model reads them, and mark what is learned.

    DATA is a run file (.toml) or a data file. What stands between \u27e6 and \u27e7 is learned, the rest is read.
    """
    from ...models.errors import UsageError
    from ...runtime.data.reader import load_splits
    from ...runtime.data.token_checks import shown

    run, base = inputs.read_run(data, None, columns, overrides)
    splits = load_splits(run.data, base, inputs.LEDGER)
    codec = student_tokenizer.codec_of(run, base, splits["train"], tokenizer)
    if codec is None:
        raise UsageError("data show: the student's tokenizer does not lie on this machine",
                         "give a model folder: --tokenizer FOLDER")
    found = [one for row in splits[split][:count] for one in shown(row, codec, run.data.learn)]
    if as_json:
        output.result({"split": split, "learn": run.data.learn, "template_options": codec.options, "sequences": found})
    else:
        click.echo("\n".join(_marked(one) for one in found))


@command.command(
    "logs",
    epilog=options.example("edgestill data logs calls.jsonl -o rows.jsonl",
                           "edgestill data logs requests.jsonl answers.jsonl errors.jsonl -o rows.jsonl"),
)
@click.argument("logs", metavar="LOG...", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--chat", is_flag=True, help="Write conversations also where every answer is one of a few labels.")
@options.out("rows.jsonl", what="File of rows to write (.jsonl); it must not exist.")
@options.dry_run
@options.as_json
@options.verbose
def logs(logs: tuple[Path, ...], chat: bool, out: Path, dry_run: bool, as_json: bool) -> None:
    """Make rows of the logged calls of a large model.

    LOG is a file of requests with their responses, the files of a batch of OpenAI's, an export of Langfuse's or
    LiteLLM's. Every record becomes a row or is counted with the reason why not. What all calls have in common (system
    prompt, schema, labels) is written beside the rows, for `edgestill init`; records that were left out are listed
    there, too. Keys, headers, ids of users and metadata are not taken along.
    """
    from .logged_calls import rows_of

    made = rows_of(logs, chat)
    written = [] if dry_run else made.write(out)
    if as_json:
        output.result({**made.report.to_json(), "task": made.task, "written": written})
        return
    click.echo("\n".join([*made.report.lines(), *made.told()]))
    if written:
        output.note(f"written: {', '.join(map(str, written))}; next: edgestill init {out}")


def _marked(one: dict[str, Any]) -> str:
    parts: Sequence[dict[str, Any]] = one["parts"]
    learned = sum(part["tokens"] for part in parts if part["learned"])
    text = "".join(f"\u27e6{part['text']}\u27e7" if part["learned"] else part["text"] for part in parts)
    target = "".join(f", {kind} {one[kind]!r}" for kind in ("label", "labels", "score") if kind in one)
    return f"--- {one['row']}: {one['tokens']} tokens, {learned} learned{target}\n{text}"
