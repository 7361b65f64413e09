"""`edgestill tune`: training on labels alone."""

from __future__ import annotations

from pathlib import Path

import click

from .. import inputs, options
from . import training


@click.command("tune", epilog=options.example(
    "edgestill tune run.toml -o out/student", "edgestill tune run.toml -o out/student --set tune.learning_rate=1e-4"))
@options.run_file
@options.out(what="Artifact folder to write; a run that was stopped continues there.")
@options.settings
@options.skip_bad
@options.dry_run
@options.as_json
@options.verbose
def command(run_file: Path, out: Path, overrides: tuple[str, ...], skip_bad: bool, dry_run: bool,
            as_json: bool) -> None:
    """Train a student on labels alone.

    Uses [student], [data] and [tune] of the run file. Killed at any moment, the same command continues and ends
    with the same weights.
    """
    training.train("tune", run_file, out, [*overrides, *inputs.skipping(skip_bad)], dry_run, as_json)
