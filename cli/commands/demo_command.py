"""`edgestill demo`: the whole pipeline on the embedded model."""

from __future__ import annotations

from pathlib import Path

import click

from .. import options
from . import running


@click.command("demo", epilog=options.example("edgestill demo", "edgestill demo -o out/demo --set distill.steps=100"))
@options.out("edgestill-demo", what="Folder of the demo; give the same one again to continue.")
@options.settings
@options.dry_run
@options.as_json
@options.verbose
def command(out: Path, overrides: tuple[str, ...], dry_run: bool, as_json: bool) -> None:
    """Distil, export and prove the embedded model, in minutes.

    A voice assistant for the home: spoken requests become JSON calls under a schema. The rows come from a seeded
    grammar, the teacher lies in the source tree; nothing is downloaded. The same stages as `edgestill run`.
    """
    running.demo(out, overrides, dry_run, as_json)
