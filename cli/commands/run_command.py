"""`edgestill run`: a whole run file."""

from __future__ import annotations

from pathlib import Path

import click

from ...models.errors import UsageError
from .. import inputs, options
from . import running


@click.command("run", epilog=options.example(
    "edgestill run run.toml -o out", "edgestill run run.toml -o out --set distill.steps=500 --dry-run",
    "edgestill run run.toml -o out --dry-run --sky > run.sky.yaml"))
@options.run_file
@options.out(what="Folder of this run; give the same one again to continue or to redo what changed.")
@click.option("--yes", is_flag=True, help="Do not ask before rows are sent to a teacher of the kind api.")
@options.settings
@options.skip_bad
@options.dry_run
@click.option("--sky", is_flag=True, help="With --dry-run: print a SkyPilot file that runs it on AWS, Google Cloud or "
                                          "Azure.")
@options.as_json
@options.verbose
def command(run_file: Path, out: Path, yes: bool, overrides: tuple[str, ...], skip_bad: bool, dry_run: bool, sky: bool,
            as_json: bool) -> None:
    """Run every stage of a run file, skipping what is unchanged.

    Lets a teacher of the kind api answer rows, checks the data, tunes the teacher where asked, trains the student (with
    [grid_aware] once more, on the grid of its 4-bit files), exports and certifies every target, evaluates and profiles
    the shipped files, and writes report.html. A stage whose inputs and settings are unchanged is skipped; a run that
    was stopped continues. Exit code 3 when a certificate or a gate does not hold.
    """
    if sky and (not dry_run or as_json):
        raise UsageError("--sky prints a file, and runs nothing", "give it with --dry-run, and without --json")
    running.run(run_file, out, [*overrides, *inputs.skipping(skip_bad)], dry_run, as_json, out.resolve().name, sky, yes)
