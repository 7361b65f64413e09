"""`edgestill models`: the catalogue as a table."""

from __future__ import annotations

import click

from ...models.catalogue import entry, names
from .. import options, output


@click.command("models", epilog=options.example("edgestill models", "edgestill models smollm2-135m --json"))
@click.argument("name", required=False)
@options.as_json
@options.verbose
def command(name: str | None, as_json: bool) -> None:
    """List the small models to start from.

    NAME shows one entry with its learning rates. A name of this list can stand in a run file as student.model
    or teacher.model, and after `edgestill init --student`.
    """
    entries = {key: entry(key) for key in ([name] if name else names())}
    if as_json:
        output.result(next(iter(entries.values())) if name else entries)
    elif name:
        output.table(["fact", "value"], list(output.plain(entries[name]).items()))
    else:
        columns = ["name", "task", "parameters", "context", "family", "licence", "commercial use", "hub id"]
        output.table(columns, [
            [key, item.task, item.parameters, item.context, item.family, item.licence, item.commercial_use, item.hub_id]
            for key, item in entries.items()
        ])
