"""What the verbs `tune` and `distill` share."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path

import click

from ...models import runfile, toml_text
from ...models.artifact import open_artifact
from .. import output, progress_lines, quiet
from ..pipeline import teachers


def train(verb: str, run_file: Path, out: Path, overrides: Sequence[str], dry_run: bool, as_json: bool) -> None:
    """Train as `run_file` says, or print the resolved run file when `dry_run`; the result is the artifact folder;
    of `fill_cache` the teachers' caches.

    `distill` without a teacher, with [grid_aware]: the student's own float weights teach its 4-bit self.
    """
    run = runfile.read(run_file, overrides)
    if dry_run:
        run = teachers.shown(run, run_file.parent)
        if as_json:
            output.result({"verb": verb, "out": out, "run": run})
        else:
            click.echo(toml_text.to_toml(run), nl=False)
        return
    from ... import distill
    from ...distill.training.world import world

    if verb == "distill" and run.grid_aware and not run.teacher:
        verb = "grid_aware"
    with quiet.stdout_kept_clean(), progress_lines.shown() if world().leads else nullcontext():
        made = getattr(distill, verb)(run_file, out, overrides)
    if not world().leads:
        return
    folders = made if isinstance(made, list) else [made]
    if not as_json:
        click.echo("\n".join(map(str, folders)))
    elif verb == "fill_cache":
        output.result({"caches": folders})
    else:
        folder = folders[0]
        manifest = open_artifact(folder).manifest
        output.result({"folder": folder, "dimensions": manifest.dimensions, "checks": manifest.checks})
