"""`edgestill distill`: training to match a teacher."""

from __future__ import annotations

from pathlib import Path

import click

from .. import inputs, options
from . import training


@click.command("distill", epilog=options.example(
    "edgestill distill run.toml -o out/student", "edgestill distill run.toml -o out/student --set distill.steps=500",
    "edgestill distill run.toml -o out/student --cache-only"))
@options.run_file
@click.option("--cache-only", is_flag=True, help="Ask the teacher, keep what it says in [teacher] cache, and stop.")
@options.out(what="Artifact folder to write; a run that was stopped continues there.")
@options.settings
@options.skip_bad
@options.dry_run
@options.as_json
@options.verbose
def command(run_file: Path, cache_only: bool, out: Path, overrides: tuple[str, ...], skip_bad: bool, dry_run: bool,
            as_json: bool) -> None:
    """Train a student to match a teacher.

    Uses [teacher], [student], [data] and [distill] of the run file. With [grid_aware] and without [teacher], the
    student's float weights teach its 4-bit self. Killed at any moment, the same command continues and ends with the
    same weights.
    """
    verb = "fill_cache" if cache_only else "distill"
    training.train(verb, run_file, out, [*overrides, *inputs.skipping(skip_bad)], dry_run, as_json)
