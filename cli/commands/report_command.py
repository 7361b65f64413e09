"""`edgestill report`: the page of a run."""

from __future__ import annotations

from pathlib import Path

import click

from .. import options, output


@click.command("report", epilog=options.example("edgestill report out", "edgestill report out -o page.html"))
@click.argument("folder", type=click.Path(path_type=Path))
@options.out_file("File to write; default: report.html in FOLDER.")
@options.as_json
@options.verbose
def command(folder: Path, out: Path | None, as_json: bool) -> None:
    """Write the HTML report of a run again.

    FOLDER is what `edgestill run` or `edgestill demo` wrote. The page is one file without any outside reference.
    """
    from ..report import write

    path = write(folder, out or folder / "report.html")
    if as_json:
        output.result({"report": path, "bytes": path.stat().st_size})
    else:
        click.echo(path)
