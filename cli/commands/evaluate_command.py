"""`edgestill evaluate`: task metrics of one artifact."""

from __future__ import annotations

from pathlib import Path

import click

from .. import inputs, options, output, progress_lines
from . import named_models


@click.command(
    "evaluate",
    epilog=options.example(
        "edgestill evaluate out/gguf-Q4_0 run.toml",
        "edgestill evaluate out/onnx-int8 test.jsonl --metric accuracy -o quality.json",
    ),
)
@click.argument("artifact", type=click.Path(path_type=Path))
@click.argument("rows", type=click.Path(path_type=Path))
@click.option("--metric", "metrics", multiple=True, help="Metric to measure; default: those that suit the rows.")
@click.option("--limit", type=click.IntRange(0), default=0, metavar="N", help="Take N rows, evenly spaced; 0: all.")
@click.option("--constrain", is_flag=True, help="Hold decoding to the JSON schema of the task.")
@options.columns
@options.out_file("Also write answers, scores and metrics to this JSON file.")
@options.threads
@options.settings
@options.skip_bad
@options.as_json
@options.verbose
def command(artifact: Path, rows: Path, metrics: tuple[str, ...], limit: int, constrain: bool, columns: tuple[str, ...],
            out: Path | None, threads: int, overrides: tuple[str, ...], skip_bad: bool, as_json: bool) -> None:
    """Measure task metrics on the file that ships.

    ROWS is a data file, or a run file whose test rows are taken. Every metric has a 95 % interval.
    """
    from ...runtime import evaluate, load

    chosen = inputs.read_rows(rows, columns, overrides, skip_bad=skip_bad)
    model = load(named_models.model(artifact), threads=threads)
    with progress_lines.bar("evaluating") as advance:
        found = evaluate(model, chosen, metrics=metrics, limit=limit, constrain=constrain, progress=advance)
    if out is not None:
        from ...models import files

        files.write_json(out, found.to_json())
    if as_json:
        output.result({"artifact": artifact, "metrics": found.metrics, "rows_sha256": found.rows_sha256,
                       "constrained": found.constrained, "seconds": found.seconds})
        return
    output.table(["metric", "value", "low", "high", "n"], [
        [name, item.value, item.low, item.high, item.n] for name, item in found.metrics.items()])
