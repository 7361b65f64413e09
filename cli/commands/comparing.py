"""Quality for `edgestill compare`, paired row by row."""

from __future__ import annotations

from collections.abc import Sequence
from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...models.errors import UsageError
from ...models.json_values import read_object
from ..report.ranking import higher_is_better

if TYPE_CHECKING:
    from ...runtime.data.reader import Row
    from ...runtime.evaluation.evaluate import Evaluation
    from ...runtime.evaluation.intervals import Interval

WRITTEN = "give what evaluate -o or profile -o wrote"


def compare_quality(items: Sequence[Path], rows: Sequence[Row] | None, metrics: Sequence[str] = (), limit: int = 0,
                    constrain: bool = False, threads: int = 0) -> dict[str, Any]:
    """Evaluate every artifact on `rows` (or read its saved evaluation) and pair each with the first.

    Raises UsageError for an artifact without rows, and for evaluations of different rows.
    """
    from ...runtime.evaluation.evaluate import compare

    found = {str(item): _evaluation(item, rows, metrics, limit, constrain, threads) for item in items}
    first, *others = found
    lines: list[list[Any]] = []
    for name, evaluation in found.items():
        comparison = compare(evaluation, found[first]) if name in others else None
        for metric, interval in evaluation.metrics.items():
            difference = comparison.differences.get(metric) if comparison else None
            test = comparison.tests.get(metric) if comparison else None
            lines.append([name, metric, interval.value, interval.low, interval.high, interval.n,
                          difference.value if difference else None, difference.low if difference else None,
                          difference.high if difference else None, test.p if test else None,
                          verdict(metric, difference) if difference else None])
    return {"kind": "quality", "first": first, "rows": lines, "columns": [
        "model", "metric", "value", "low", "high", "n", "difference", "difference low", "difference high", "McNemar p",
        "beside the first"]}


def verdict(metric: str, difference: Interval) -> str:
    """better or worse, by the metric's own direction, where the interval of a difference to the first leaves 0 out;
    else how many rows would tell."""
    if not (difference.low > 0 or difference.high < 0):  # NaN shows nothing either
        from ...runtime.evaluation.intervals import rows_that_tell

        rows = rows_that_tell(difference) if isfinite(difference.value) else None
        return "no difference shown" if rows is None else f"cannot tell: some {rows:,} rows would"
    return "better" if (difference.low > 0) is higher_is_better(metric) else "worse"


def _evaluation(item: Path, rows: Sequence[Row] | None, metrics: Sequence[str], limit: int, constrain: bool,
                threads: int) -> Evaluation:
    from ...runtime import evaluate, load
    from ...runtime.evaluation.evaluate import Evaluation

    if item.suffix == ".json":
        return Evaluation.from_json(read_object(item, UsageError, WRITTEN))
    if rows is None:
        raise UsageError(
            f"{item}: an artifact is compared on rows, and --rows was not given", "add --rows run.toml or a data file"
        )
    return evaluate(load(item, threads=threads), rows, metrics=metrics, limit=limit, constrain=constrain)
