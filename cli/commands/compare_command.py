"""`edgestill compare`: two or more models side by side: their answers to the same rows, or their profiles."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from ...models.errors import UsageError
from .. import inputs, options, output
from . import compared_profiles, comparing


@click.command("compare", epilog=options.example(
    "edgestill compare out/gguf-Q4_0 out/onnx-int4 --rows run.toml", "edgestill compare profile-a.json profile-b.json",
    "edgestill compare out/home --gate 'request_ms.p95<=300' --gate 'peak_rss_bytes<=200e6'"))
@click.argument("items", metavar="ITEM...", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option(
    "--rows", type=click.Path(path_type=Path), help="Run file (its test rows) or data file to evaluate artifacts on."
)
@click.option("--metric", "metrics", multiple=True, help="Metric to compare; default: those that suit the rows.")
@click.option("--limit", type=click.IntRange(0), default=0, metavar="N", help="Take N rows, evenly spaced; 0: all.")
@click.option("--quality", "evaluations", multiple=True, type=click.Path(path_type=Path), metavar="FILE",
              help="Of saved profiles: what evaluate -o wrote of each model, in the same order.")
@click.option("--gate", "gates", multiple=True, metavar="GATE",
              help="Of saved profiles: a limit, such as 'request_ms.p95<=300'; the best model that keeps all is named. "
                   "Exit code 3 if none does.")
@click.option("--constrain", is_flag=True, help="Hold decoding to the JSON schema of the task.")
@options.columns
@options.threads
@options.settings
@options.skip_bad
@options.as_json
@options.verbose
def command(items: tuple[Path, ...], rows: Path | None, metrics: tuple[str, ...], limit: int,
            evaluations: tuple[Path, ...], gates: tuple[str, ...], constrain: bool, columns: tuple[str, ...],
            threads: int, overrides: tuple[str, ...], skip_bad: bool, as_json: bool) -> None:
    """Compare artifacts on the same rows, or saved profiles.

    ITEM is an artifact (evaluated on --rows), a JSON file that `evaluate -o` or `profile -o` wrote, or a run's folder,
    which stands for the profiles of all files that it ships. The first is what the others are compared with:
    differences of answers are paired, row by row, and ratios of times, request by request, with a 95 % interval. Of
    more than two profiles it says which nobody beats in quality, p95, memory and bytes.
    """
    if len(set(items)) < len(items):
        raise UsageError("an item is given twice", "name every artifact or JSON file once")
    models = compared_profiles.read(items, evaluations)
    if models is None and len(items) < 2:
        raise UsageError(f"{len(items)} item, a comparison needs 2 or more", "name another artifact or JSON file")
    if models is None and (evaluations or gates):
        raise UsageError("--quality and --gate are of saved profiles",
                         "make them with edgestill profile ARTIFACT -o FILE.json")
    if models is not None:
        found = compared_profiles.compare(models, gates)
    else:
        chosen = inputs.read_rows(rows, columns, overrides, skip_bad=skip_bad) if rows else None
        found = comparing.compare_quality(
            items, chosen, metrics=metrics, limit=limit, constrain=constrain, threads=threads
        )
    if as_json:
        output.result(found)
    elif models is not None:
        _show_profiles(found)
    else:
        output.table(found["columns"], found["rows"])
    compared_profiles.check(found)


def _show_profiles(found: Mapping[str, Any]) -> None:
    output.table([*found["columns"], "better is"], [[*row, found["better"][row[0]]] for row in found["rows"]],
                 "medians")
    for name, ratios in found["ratios"].items():
        click.echo()
        if ratios:
            output.table(["number", "ratio", "low", "high", "requests", ""],
                         [[one["number"], one["value"], one["low"], one["high"], one["requests"],
                           compared_profiles.told(one)] for one in ratios], f"{name} beside {found['first']}")
        for line in found["differ"][name]:
            click.echo(f"{name} beside {found['first']}: not measured alike: {line}")
    front = found.get("frontier")
    if front is None:
        return
    click.echo()
    output.table(["model", front["metric"] or "quality", "p95 ms", "at most", "peak_rss_bytes", "file_bytes",
                  "nobody beats it", *(["gates"] if front["gates"] else [])],
                 [[one["name"], one["quality"], one["p95_ms"], one["p95_ms_at_most"], one["peak_rss_bytes"],
                   one["file_bytes"], "yes" if one["front"] else "no",
                   *(["; ".join(one["fails"]) or "kept"] if front["gates"] else [])] for one in front["points"]])
    if front["best"]:
        by = f"the best by {front['metric']}" if front["metric"] else "the lowest p95"
        click.echo(f"{by}{' that keeps the gates' if front['gates'] else ''}: {front['best']}")
