"""`edgestill data`: what is in the rows."""

from __future__ import annotations

from pathlib import Path

import click

from .. import inputs, options, output


@click.group("data", epilog=options.example("edgestill data check run.toml", "edgestill data check train.jsonl"))
def command() -> None:
    """Look at rows before they are trained on."""


@command.command(
    "check",
    epilog=options.example(
        "edgestill data check run.toml",
        "edgestill data check train.csv --test test.csv --column text=question --tokenizer smollm2/",
    ),
)
@click.argument("data", type=click.Path(path_type=Path))
@click.option("--test", type=click.Path(path_type=Path), help="Data file of the test rows; default: a share of DATA.")
@click.option("--tokenizer", type=click.Path(path_type=Path), help="Model folder whose tokenizer counts tokens.")
@options.columns
@click.option("-o", "--out", type=click.Path(path_type=Path), help="Also write the report to this JSON file.")
@options.settings
@options.as_json
@options.verbose
def check(data: Path, test: Path | None, tokenizer: Path | None, columns: tuple[str, ...], out: Path | None,
          overrides: tuple[str, ...], as_json: bool) -> int:
    """Count rows, tokens, duplicates, leaks between splits, labels and bad rows.

    DATA is a run file (.toml) or a data file. Exit code 3 when something would make a measured figure false: bad
    rows, test rows that stand in the training rows, labels that no training row has.
    """
    from ...runtime.row_checks import check_data
    from ...runtime.text import Codec

    table, base = inputs.read_data(data, test, columns, overrides)
    report = check_data(table, base, Codec.from_folder(tokenizer) if tokenizer else None)
    if out is not None:
        from ...models import files

        files.write_json(out, report.to_json())
    if as_json:
        output.result(report.to_json())
    else:
        click.echo("\n".join(report.lines()))
    return 3 if report.failed else 0
