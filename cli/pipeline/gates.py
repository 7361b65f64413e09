"""Gates: what a run file's limits name is measured, or the run is refused before it starts.

A gate holds a metric, the ratio of the main metric to the teacher's, or a number of the profile, of every shipped file.
One that was not measured after all fails with the reason.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from ...models import kinds
from ...models.errors import EdgestillError, MissingExtra, UsageError
from ...models.gates import Gates
from ...models.runfile import RunFile
from ...runtime.profiling import limits, measures
from ..report.ranking import RATIO, higher_is_better
from ..report.summary import GateResult, ModelSummary
from . import teachers

if TYPE_CHECKING:
    from ...runtime.data.reader import Row

METRICS = "runtime.metrics"


def check(run: RunFile) -> None:
    """UsageError for a gate that no run like this one, or for a device's no profile, could measure, or that limits the
    wrong side of a number."""
    for full, side, name in _each(run.gates):
        metric = name.partition(":")[0]
        profiled = measures.split(name)[0] in measures.NUMBERS
        if metric not in kinds.names(METRICS) and name != RATIO and not profiled:
            known = [*kinds.names(METRICS), RATIO, *_profiled()]
            raise kinds.unknown(full.rpartition(".")[0], name, known)
        if (side == "minimum") is not higher_is_better(name):
            better, other = ("lower", "maximum") if side == "minimum" else ("higher", "minimum")
            raise UsageError(f"{full}: of {name} {better} is better, so a {side} would refuse the good files",
                             f"write it below [gates.{other}]")
        limit = getattr(run.gates, side)[name]
        if not profiled and name != RATIO and not 0 <= limit <= 1 and _is_share(name):
            raise UsageError(f"{full}: {limit:g}, and {name} is a share from 0 to 1", "write 0.95 for 95 %")
        if side == "maximum" and limit < 0:
            raise UsageError(f"{full}: {limit:g}, and {name} is never below 0, so no file would pass",
                             "write the largest value that is good enough")
        if not run.export:
            raise UsageError(f"{full}: the run file has no [[export]], so there is no shipped file to hold to it",
                             "add [[export]] with a target, or leave the gate out")
        if name in (RATIO, "agreement") and (why := teachers.unmeasured(run)):
            raise UsageError(f"{full}: {why}", "name a model in [teacher], or leave the gate out")
        if profiled and measures.split(name)[0] not in _measured_for(run.task.kind):
            raise UsageError(f"{full}: is not measured for task.kind = {run.task.kind!r}",
                             _hint(name, measures.names(run.task.kind)))
    for device, gates in run.gates.device.items():
        for side in ("minimum", "maximum"):
            for name, value in getattr(gates, side).items():
                limits.Limit.of(name, side == "maximum", value, run.task.kind, f"gates.device.{device}.{side}")


def check_rows(run: RunFile, rows: Sequence[Row], schema: dict[str, Any] | None) -> None:
    """UsageError for a gate on a metric that these test rows do not allow; its hint names those that they do."""
    from ...runtime.evaluation.evaluate import check_metrics, suitable

    answered = not teachers.unmeasured(run)
    for full, _, name in _metrics(run.gates):
        try:
            check_metrics([name], rows, schema, answered)
        except MissingExtra:
            raise
        except EdgestillError as error:
            fitting = [known for known in suitable(rows) if answered or known != "agreement"]
            raise UsageError(f"{full}: {error.message}", _hint(name, fitting)) from error


def metrics(gates: Gates) -> list[str]:
    """The metrics that gates name, each once."""
    return list(dict.fromkeys(name for _, _, name in _metrics(gates)))


def judge(gates: Gates, models: Sequence[ModelSummary]) -> list[GateResult]:
    """Every gate against every shipped file; what is missing or no number does not hold."""
    shipped = [model for model in models if model.role == "shipped"]
    return [_result(model, name, side, getattr(gates, side)[name]) for _, side, name in _each(gates)
            for model in shipped]


def requests(gates: Gates) -> int:
    """The requests of a profile that the gates' bounds take."""
    return limits.requests(name for _, _, name in _each(gates))


def measured(model: ModelSummary, name: str) -> tuple[float | None, str]:
    """What a gate of this name holds, and why it is that number or none: a metric, a number of the profile, or the
    bound of its percentile."""
    if name in model.metrics:
        return model.metrics[name].value, ""
    if name == RATIO:
        return (model.ratio_to_teacher.value, "") if model.ratio_to_teacher else (
            None, "has no value: the teacher's own answers measure 0")
    stem, part = measures.split(name)
    if stem == "model_bytes":
        return (None, "") if model.model_bytes is None else (float(model.model_bytes), "")
    return limits.bounded(model.profile, stem, part)[:2]


def _result(model: ModelSummary, name: str, side: str, limit: float) -> GateResult:
    value, reason = measured(model, name)
    if value is None:
        return GateResult(model.name, name, None, limit, False, side, reason or "was not measured")
    if math.isnan(value):
        return GateResult(model.name, name, None, limit, False, side, "is not a number")
    return GateResult(model.name, name, value, limit, value >= limit if side == "minimum" else value <= limit, side)


def _each(gates: Gates) -> Iterator[tuple[str, str, str]]:
    """(full key, side, name) of every gate."""
    for side in ("minimum", "maximum"):
        for name in getattr(gates, side):
            yield f"gates.{side}.{name}", side, name


def _metrics(gates: Gates) -> Iterator[tuple[str, str, str]]:
    known = kinds.names(METRICS)
    return (gate for gate in _each(gates) if gate[2].partition(":")[0] in known)


def _measured_for(task: str) -> list[str]:
    return [name for name, number in measures.NUMBERS.items() if task in number.tasks]


def _profiled() -> list[str]:
    return list(dict.fromkeys(name for task in ("generate", "classify") for name in measures.names(task)))


def _is_share(name: str) -> bool:
    from ...runtime.evaluation.evaluate import metric

    return bool(metric(name)[0].SHARE)


def _hint(name: str, fitting: Sequence[str]) -> str:
    near = difflib.get_close_matches(name, fitting, n=1)
    return f"{f'did you mean {near[0]!r}? ' if near else ''}measured for this task: {', '.join(fitting)}"
