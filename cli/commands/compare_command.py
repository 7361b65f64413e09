"""`edgestill compare`: two or more models side by side, on the same rows."""

from __future__ import annotations

from pathlib import Path

import click

from ...models.errors import UsageError
from .. import inputs, options, output
from . import comparing


@click.command("compare", epilog=options.example(
    "edgestill compare out/gguf-Q4_0 out/onnx-int4 --rows run.toml", "edgestill compare profile-a.json profile-b.json"))
@click.argument("items", metavar="ITEM...", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option(
    "--rows", type=click.Path(path_type=Path), help="Run file (its test rows) or data file to evaluate artifacts on."
)
@click.option("--metric", "metrics", multiple=True, help="Metric to compare; default: those that suit the rows.")
@click.option("--limit", type=click.IntRange(0), default=0, metavar="N", help="Take N rows, evenly spaced; 0: all.")
@click.option("--constrain", is_flag=True, help="Hold decoding to the JSON schema of the task.")
@options.columns
@options.threads
@options.settings
@options.skip_bad
@options.as_json
@options.verbose
def command(items: tuple[Path, ...], rows: Path | None, metrics: tuple[str, ...], limit: int, constrain: bool,
            columns: tuple[str, ...], threads: int, overrides: tuple[str, ...], skip_bad: bool, as_json: bool) -> None:
    """Compare artifacts on the same rows, or saved profiles.

    ITEM is an artifact (evaluated on --rows), or a JSON file that `evaluate -o` or `profile -o` wrote. The first
    item is what the others are compared with: differences are paired, row by row, with a 95 % interval.
    """
    if len(items) < 2:
        raise UsageError(f"{len(items)} item, a comparison needs 2 or more", "name another artifact or JSON file")
    if len(set(items)) < len(items):
        raise UsageError("an item is given twice", "name every artifact or JSON file once")
    profiles = comparing.read_profiles(items)
    if profiles is not None:
        found = comparing.compare_profiles(profiles)
    else:
        chosen = inputs.read_rows(rows, columns, overrides, skip_bad=skip_bad) if rows else None
        found = comparing.compare_quality(
            items, chosen, metrics=metrics, limit=limit, constrain=constrain, threads=threads
        )
    if as_json:
        output.result(found)
    elif profiles is not None:
        output.table([*found["columns"], "better is"], [[*row, found["better"][row[0]]] for row in found["rows"]])
    else:
        output.table(found["columns"], found["rows"])
