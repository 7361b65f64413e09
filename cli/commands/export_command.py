"""`edgestill export`: from a trained model to proven files."""

from __future__ import annotations

from pathlib import Path

import click

from ...models.errors import UsageError
from ...models.files import refuse_non_empty
from ...models.runfile import Export
from ...models.scheme import Scheme
from .. import inputs, options, output, quiet


@click.command("export", epilog=options.example(
    "edgestill export out/student --to gguf:Q4_0 --to onnx:int4 --rows run.toml -o out",
    "edgestill export ./my-llama --to gguf:Q8_0 --rows train.jsonl -o packed"))
@click.argument("source", type=click.Path(path_type=Path))
@click.option("--to", "targets", multiple=True, metavar="FORMAT:TYPE", help="Target; several make several artifacts.")
@click.option("--rows", "rows_file", type=click.Path(path_type=Path),
              help="Run file or data file whose rows calibrate (train) and certify (test).")
@click.option(
    "--column", "columns", multiple=True, metavar="OURS=THEIRS", help="Column of a data file; may be repeated."
)
@options.out(what="Folder to write <format>-<type> folders into.")
@options.settings
@options.skip_bad
@options.dry_run
@options.as_json
@options.verbose
def command(source: Path, targets: tuple[str, ...], rows_file: Path | None, columns: tuple[str, ...], out: Path,
            overrides: tuple[str, ...], skip_bad: bool, dry_run: bool, as_json: bool) -> None:
    """Quantize and pack a trained model, then prove it.

    SOURCE is what tune or distill wrote, or a Hugging Face folder. Without --to the targets are those of the run
    file. Exit code 3 names the check that failed; a file that failed is not left behind as an artifact.
    """
    wanted = _targets(targets, rows_file, overrides)
    schemes = [Scheme.parse(item if isinstance(item, str) else item.target) for item in wanted]
    folders = {str(scheme): out / scheme.folder_name for scheme in schemes}
    for folder in folders.values():
        refuse_non_empty(folder)
    if dry_run:
        _show(folders, as_json)
        return
    train, test = [], []
    if rows_file is not None:
        train = inputs.read_rows(rows_file, columns, overrides, "train", skip_bad)
        test = inputs.read_rows(rows_file, columns, overrides, "test", skip_bad)
    task = inputs.read_task(rows_file, overrides) if rows_file else None
    from ...quantize import export

    with quiet.stdout_kept_clean():
        made = export(source, wanted, out, rows=train, test_rows=test, task=task)
    _show(made, as_json)


def _targets(targets: tuple[str, ...], rows_file: Path | None, overrides: tuple[str, ...]) -> list[str | Export]:
    if targets:
        return list(targets)
    if rows_file is not None and rows_file.suffix == ".toml":
        from ...models import runfile

        exports: list[str | Export] = list(runfile.read(rows_file, overrides).export)
        if exports:
            return exports
    raise UsageError(
        "no export target given", "add --to gguf:Q4_0, or [[export]] tables in the run file given as --rows"
    )


def _show(folders: dict[str, Path], as_json: bool) -> None:
    if as_json:
        output.result(folders)
    else:
        output.table(["target", "artifact"], [[target, str(folder)] for target, folder in folders.items()])
