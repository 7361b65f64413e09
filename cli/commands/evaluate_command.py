"""`edgestill evaluate`: task metrics of one artifact."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from .. import inputs, options, output, progress_lines
from . import named_models

if TYPE_CHECKING:
    from ...runtime.data.row import Row
    from ...runtime.evaluation.evaluate import Evaluation

_SHOWN = 5
"""Labels, and pairs of them, that the terminal shows: all of them stand in the file."""


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

    ROWS is a data file, or a run file whose test rows are taken. Every metric has a 95 % interval. Of a classifier the
    worst labels are shown, and which it takes for which.
    """
    from ...runtime import evaluate, load

    chosen = inputs.read_rows(rows, columns, overrides, skip_bad=skip_bad)
    model = load(named_models.model(artifact), threads=threads)
    with progress_lines.bar("evaluating") as advance:
        found = evaluate(model, chosen, metrics=metrics, limit=limit, constrain=constrain, progress=advance)
    told = _labels(found, chosen, limit)
    if out is not None:
        from ...models import files

        files.write_json(out, {**found.to_json(), **output.plain(told)})
    if as_json:
        output.result({"artifact": artifact, "metrics": found.metrics, "rows_sha256": found.rows_sha256,
                       "constrained": found.constrained, "seconds": found.seconds, **told})
        return
    output.table(["metric", "value", "low", "high", "n"], [
        [name, item.value, item.low, item.high, item.n] for name, item in found.metrics.items()])
    if told:
        output.table(["worst labels", "rows", "precision %", "recall %", "F1"], [
            [one.label, one.rows, output.interval(one.precision), output.interval(one.recall), f"{one.f1:.3f}"]
            for one in told["labels"][:_SHOWN] if one.f1 < 1])
        output.table(["label", "taken for", "rows"], [[one.label, one.given, one.rows]
                                                      for one in told["confusions"][:_SHOWN]])


def _labels(found: Evaluation, rows: Sequence[Row], limit: int) -> dict[str, Any]:
    """Of rows of one label each and their answers: what each label came to, and which were taken for which."""
    from ...runtime.evaluation.evaluate import spaced
    from ...runtime.evaluation.labels import by_label, confusions

    if not {"accuracy", "macro_f1"} & found.metrics.keys():  # which rows of one label, so answered, alone have
        return {}
    asked = [rows[place] for place in spaced(range(len(rows)), limit)]
    return {"labels": by_label(asked, found.answers), "confusions": confusions(asked, found.answers)}
