"""`edgestill report`: the page of a run, or of saved profiles and sweeps."""

from __future__ import annotations

from pathlib import Path

import click

from ...models.errors import UsageError
from .. import options, output


@click.command("report", epilog=options.example(
    "edgestill report out", "edgestill report out -o page.html",
    "edgestill report desktop.json pi.json sweep.json -o page.html", "edgestill report pi.json -o requests.csv"))
@click.argument("items", metavar="ITEM...", nargs=-1, required=True, type=click.Path(path_type=Path))
@options.out_file("File to write; default: report.html in a run's folder. Of profiles .html, or .csv of all requests.")
@options.as_json
@options.verbose
def command(items: tuple[Path, ...], out: Path | None, as_json: bool) -> None:
    """Write the HTML page of a run, or of profiles.

    ITEM is the folder that `edgestill run` or `edgestill demo` wrote, or one or more JSON files of `profile -o`: runs,
    models, devices and sweeps, all on one page. The page is one file without any outside reference.
    """
    if items[0].suffix == ".json":
        if out is None or out.suffix not in (".html", ".csv"):
            raise UsageError(f"profiles are written to a file of their own, .html or .csv, not {out or 'nowhere'}",
                             f"edgestill report {' '.join(map(str, items))} -o page.html")
        from . import profile_files

        path = profile_files.write(items, out)
    else:
        if len(items) > 1:
            raise UsageError(f"{len(items)} folders, a report is about one", "or give JSON files of profile -o")
        from ..report import write

        path = write(items[0], out or items[0] / "report.html")
    if as_json:
        output.result({"report": path, "bytes": path.stat().st_size})
    else:
        click.echo(path)
