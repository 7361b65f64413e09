"""`edgestill export`: from a trained model to proven files."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from ...models import kv_cache
from ...models.errors import UsageError
from ...models.files import refuse_non_empty
from ...models.runfile import Export, check_export, kind_config
from ...models.scheme import MIXED, Scheme
from ...models.task import Task
from .. import inputs, options, output, progress_lines, quiet
from . import named_models


@click.command("export", epilog=options.example(
    "edgestill export out/student --to gguf:Q4_0 --to onnx:int4 --rows run.toml -o out",
    "edgestill export ./my-llama --to gguf:Q8_0 --rows train.jsonl -o packed",
    "edgestill export packed/gguf-Q8_0 --app c -o packed"))
@click.argument("source", type=click.Path(path_type=Path))
@click.option("--base", default="", metavar="MODEL",
              help="Where SOURCE is a LoRA adapter: the model it was trained on. They are merged into OUT/merged.")
@click.option("--to", "targets", multiple=True, metavar="FORMAT:TYPE", help="Target; several make several artifacts.")
@click.option("--rows", "rows_file", type=click.Path(path_type=Path),
              help="Run file whose rows calibrate (train) and certify (test), or data file that calibrates.")
@options.columns
@click.option("--method", default="gptq", show_default=True, metavar="NAME",
              help="How 4-bit codes are found: gptq is the most exact and slowest.")
@click.option("--bits-per-weight", type=click.FloatRange(0, 16), default=0.0, metavar="X",
              help="Size of a mixed target, in bits of the file for each weight; else a tenth more than Q4_0 or int4.")
@click.option("--budget-mb", type=click.FloatRange(0), default=0.0, metavar="Y",
              help="Size of a mixed target, in megabytes.")
@click.option("--kv", type=click.Choice(kv_cache.CHOSEN),
              help="Keep keys and values of GGUF targets in so many bits: less memory for a long context.")
@click.option("--app", "with_apps", multiple=True, metavar="NAME",
              help="Program to write around the file: c, web, android or ios, where Python does not run, or container; "
                   "may be repeated.")
@options.clients
@options.out(what="Folder to write <format>-<type> folders into.")
@options.settings
@options.skip_bad
@options.dry_run
@options.as_json
@options.verbose
def command(source: Path, base: str, targets: tuple[str, ...], rows_file: Path | None, columns: tuple[str, ...],
            method: str, bits_per_weight: float, budget_mb: float, kv: str | None, with_apps: tuple[str, ...],
            clients: tuple[str, ...], out: Path, overrides: tuple[str, ...], skip_bad: bool, dry_run: bool,
            as_json: bool) -> None:
    """Quantize and pack a trained model, then prove it.

    SOURCE is what tune or distill wrote, or a Hugging Face folder. Without --to the targets are those of the run
    file. Exit code 3 names the check that failed; a file that failed is not left behind as an artifact. A proven file
    gets a grade (excellent, good, noticeable, poor), and one below good a better target to take instead.

    Apps go to OUT/apps. For an artifact that is packed already, without --to, only they are written.
    """
    if with_apps and not targets and rows_file is None:
        _write_apps(source, with_apps, out, dry_run, as_json)
        return
    given = [Export(target, {"kind": method}) for target in targets]
    wanted = _checked(_sized(given or _from_run_file(rows_file, overrides), bits_per_weight, budget_mb), kv)
    if clients:
        wanted = [replace(export, clients=list(clients)) for export in wanted]
    schemes = [Scheme.parse(export.target) for export in wanted]
    folders = {str(scheme): out / scheme.folder_name for scheme in schemes}
    for folder in folders.values():
        refuse_non_empty(folder)
    task = inputs.read_task(rows_file, overrides) if rows_file else None
    source = source if dry_run and not with_apps else named_models.source(source)
    places = _app_places(source, task, with_apps, schemes, out)
    if dry_run:
        _show(folders | places, as_json)
        return
    train, test = [], []
    if rows_file is not None:
        train = inputs.read_rows(rows_file, columns, overrides, "train", skip_bad)
        # The rows of a data file calibrate: what a model was fitted to says nothing about its answers.
        if rows_file.suffix == ".toml":
            test = inputs.read_rows(rows_file, columns, overrides, "test", skip_bad)
    from ...quantize import export

    with quiet.stdout_kept_clean(), progress_lines.shown():
        if base:
            from ...distill import merge

            source = merge(source, base, out / "merged", task, key="--base")
        made = export(source, wanted, out, rows=train, test_rows=test, task=task, with_apps=with_apps)
    _note(with_apps)
    _show(made | places, as_json, _grades(made))


def _sized(exports: list[Export], bits_per_weight: float, budget_mb: float) -> list[Export]:
    """Mixed targets get the size that was given. Where none is mixed, all do, and are refused for it."""
    mixed = [export for export in exports if Scheme.parse(export.target).type == MIXED] or exports
    if bits_per_weight or budget_mb:
        exports = [replace(export, bits_per_weight=bits_per_weight, budget_mb=budget_mb) if export in mixed else export
                   for export in exports]
    return exports


def _checked(exports: list[Export], kv: str | None) -> list[Export]:
    """GGUF targets get the cache that was given. Where none is, all do, and are refused for it."""
    if kv is not None:
        ggufs = [export for export in exports if Scheme.parse(export.target).format == "gguf"] or exports
        exports = [replace(export, kv=kv) if export in ggufs else export for export in exports]
    for export in exports:
        check_export(export)
        kind_config("quantize.methods", export.method, "method")
    return exports


def _from_run_file(rows_file: Path | None, overrides: tuple[str, ...]) -> list[Export]:
    exports: list[Export] = []
    if rows_file is not None and rows_file.suffix == ".toml":
        from ...models import runfile

        exports = runfile.read(rows_file, overrides).export
    if not exports:
        raise UsageError(
            "no export target given", "add --to gguf:Q4_0, or [[export]] tables in the run file given as --rows"
        )
    return exports


def _app_places(source: Path, task: Task | None, names: tuple[str, ...], schemes: list[Scheme],
                out: Path) -> dict[str, Path]:
    """Where every app of every target goes; the source is opened only for apps."""
    if not names:
        return {}
    from ...quantize import apps
    from ...quantize.source.model_folder import Source

    kind = Source.open(source, task).task.kind
    return {f"{scheme} {name}": apps.place(out, scheme.folder_name, name)
            for name, scheme in apps.fitting(names, kind, schemes)}


def _write_apps(packed: Path, names: tuple[str, ...], out: Path, dry_run: bool, as_json: bool) -> None:
    from ...quantize import apps
    from ...runtime.loading.foreign import open_model

    artifact = open_model(packed)
    places = {f"{artifact.manifest.scheme} {name}": apps.checked_place(artifact, name, out) for name in names}
    if not dry_run:
        with quiet.stdout_kept_clean():
            for name in dict.fromkeys(names):
                apps.write(artifact, name, out)
        _note(names)
    _show(places, as_json)


def _note(names: tuple[str, ...]) -> None:
    from ...models import kinds

    for name in dict.fromkeys(names):
        if note := kinds.load("quantize.apps", name).NOTE:
            output.note(f"{name}: {note}")


def _grades(made: dict[str, Path]) -> dict[str, Any]:
    """How good each file is, told on stderr with what to take instead of one that is below good."""
    from ...quantize.proof import certificate, grade

    found = {target: certificate.read(folder).grade for target, folder in made.items()}
    for target, each in found.items():
        if line := grade.told(target, each):
            output.note(line)
    return found


def _show(folders: dict[str, Path], as_json: bool, grades: Mapping[str, Any] | None = None) -> None:
    if as_json:
        output.result(folders | ({"grades": grades} if grades else {}))
        return
    graded = grades or {}
    output.table(["target", "artifact", *(["grade"] if graded else [])], [
        [target, str(folder), *([getattr(graded.get(target), "name", "")] if graded else [])]
        for target, folder in folders.items()])
