"""`edgestill shrink`: a smaller model before any training."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ...models.artifact import is_artifact, open_artifact
from ...models.errors import UsageError
from ...models.files import refuse_non_empty
from ...models.task import Task
from .. import inputs, options, output, progress_lines, quiet
from . import named_models

if TYPE_CHECKING:
    from ...models.runfile import RunFile
    from ...runtime.data.reader import Row

PARTS = {"embedding": "embedding", "attention": "attention", "feed_forward": "feed-forward", "other": "other"}


@click.command("shrink", epilog=options.example(
    "edgestill shrink smollm2-135m --to 40M --rows train.jsonl -o out/small",
    "edgestill shrink out/teacher --to \"26 MB\" --format gguf:Q4_0 --rows run.toml -o out/small"))
@click.argument("source", metavar="MODEL", type=click.Path(path_type=Path))
@click.option("--to", required=True, metavar="SIZE",
              help="The most it may have: parameters such as 40M, or bytes such as \"26 MB\".")
@click.option("--format", "format", default="", metavar="FORMAT:TYPE", help="Of the file that --to gives the bytes of.")
@click.option("--rows", "rows_file", required=True, type=click.Path(path_type=Path),
              help="Run file or data file: its training rows say which tokens, layers and channels matter.")
@options.columns
@options.out()
@options.settings
@options.skip_bad
@options.dry_run
@options.as_json
@options.verbose
def command(source: Path, to: str, format: str, rows_file: Path, columns: tuple[str, ...], out: Path,
            overrides: tuple[str, ...], skip_bad: bool, dry_run: bool, as_json: bool) -> None:
    """Cut a model to a size, before any training.

    First the vocabulary goes that the rows never use, which costs nothing; then layers of the least influence, and the
    feed-forward channels that add least, the same share of both. What is left is an artifact that tune, distill and
    export take. Cuts of layers cost answers until training heals them: distil it from the model it was cut from. Of a
    run file's [student], which is another model's, the template alone counts.
    """
    refuse_non_empty(out)
    for override in overrides:
        if (key := override.partition("=")[0].strip()).startswith("student") and key != "student.template":
            raise UsageError(f"--set {key}: MODEL, --to and --format say what is made of which model",
                             "name further cuts in [student] of a run file, for tune and distill")
    found = named_models.source(source)
    run, base, splits = _run(rows_file, columns, overrides, skip_bad, found)
    model = str(found.absolute()) if found.exists() else str(found)
    from ... import distill
    from ...models.runfile import Student

    run = replace(run, student=Student(model, to=to, format=format, template=run.student.template))

    with quiet.stdout_kept_clean(), progress_lines.shown():
        if dry_run:
            steps = distill.plan_student(run, out, base, splits)
        else:
            steps = open_artifact(distill.prepare_student(run, out, base=base, splits=splits)).manifest.settings["cuts"]
    if as_json:
        output.result({"folder": out, "cuts": steps})
    else:
        output.table(["after", *PARTS.values(), "parameters"], [
            [_named(step), *(step["parameters"][part] for part in PARTS), sum(step["parameters"].values())]
            for step in steps])


def _run(rows_file: Path, columns: tuple[str, ...], overrides: tuple[str, ...], skip_bad: bool,
         model: Path) -> tuple[RunFile, Path, dict[str, list[Row]] | None]:
    """The run file, its folder, and the rows of a data file, whose task is the model's own or what the rows are for."""
    if rows_file.suffix == ".toml":
        run, base = inputs.read_run(rows_file, None, columns, [*overrides, *inputs.skipping(skip_bad)])
        return run, base, None
    rows = inputs.read_rows(rows_file, columns, overrides, "train", skip_bad)
    run, base = inputs.read_run(rows_file, None, columns, overrides)
    task = Task("classify" if rows[0].classified else "generate")
    if is_artifact(model) and (own := open_artifact(model).manifest.task).kind == task.kind:
        task = replace(own, schema=str((model / own.schema).resolve()) if own.schema else "")
    return replace(run, task=task), base, {"train": rows, "validation": [], "test": []}


def _named(step: Mapping[str, Any]) -> str:
    """What a cut left, such as `depth: 16 layers`."""
    counts = {"tokens": step.get("tokens"), "layers": len(step.get("layers", ())), "channels": step.get("feed_forward"),
              "groups of heads": step.get("groups")}
    left = ", ".join(f"{count:,} {name}" for name, count in counts.items() if count)
    return f"{step['kind']}: {left}" if left else "the model"
