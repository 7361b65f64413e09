"""Saved profiles side by side: ratios to the first with their intervals, the front of what nobody beats, and the best
that keeps the gates."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ...models.errors import CheckFailed, UsageError
from ...models.json_values import read_object
from ...runtime.profiling import measures
from ..report.ranking import higher_is_better
from ..report.summary import FILE, read_summary

MEASURES = ("file_bytes", "load_ms", "ttft_ms", "prefill_tokens_per_s", "decode_tokens_per_s", "latency_ms",
            "peak_rss_bytes")
WRITTEN = "give what profile -o wrote, or a run's folder"
_METRIC = re.compile(r"\s*([\w:]+)\s*(<=|>=)\s*([-\d.eE]+)\s*")


@dataclass(frozen=True)
class Measured:
    """One model: its profile and, where it is known, how good its answers are."""

    name: str
    profile: dict[str, Any]
    metric: str = ""
    quality: float | None = None

    @property
    def whole(self) -> str:
        """The number that times a whole request."""
        return "request_ms" if self.profile.get("kind", "generate") == "generate" else "latency_ms"

    def number(self, name: str) -> float | None:
        """A number of the profile; of a spread its median, or the part behind a dot."""
        stem, part = measures.split(name)
        value = self.profile.get(stem)
        value = value.get(part) if isinstance(value, Mapping) else value
        return float(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else None


def read(items: Sequence[Path], evaluations: Sequence[Path]) -> list[Measured] | None:
    """The saved profiles and run folders `items`, or None where none is one; `evaluations` say in the same order how
    good they are.

    Raises UsageError where profiles and others are mixed, or for another number of evaluations.
    """
    found: list[Measured] = []
    others = 0
    for item in items:
        if (item / FILE).is_file():
            summary = read_summary(item)
            found += [Measured(model.name if len(items) == 1 else f"{item}: {model.name}",
                               {"file_bytes": model.model_bytes} | model.profile, summary.metric,
                               model.metrics[summary.metric].value if summary.metric in model.metrics else None)
                      for model in summary.of_role("shipped")]
            continue
        table = read_object(item, UsageError, WRITTEN) if item.suffix == ".json" else {"rows_sha256": ""}
        others += "rows_sha256" in table
        found += [Measured(name, one) for name, one in by_target(str(item), table).items()]
    if others == len(found):
        return None
    if others:
        raise UsageError("saved profiles can only be compared with saved profiles",
                         "make the others with edgestill profile ARTIFACT -o FILE.json")
    if len(found) < 2:
        raise UsageError(f"{len(found)} profile, a comparison needs 2 or more", WRITTEN)
    if not evaluations:
        return found
    if len(evaluations) != len(found):
        raise UsageError(f"--quality: {len(evaluations)} evaluations of {len(found)} profiles",
                         "give one for each, in the same order")
    return [_judged(one, path) for one, path in zip(found, evaluations, strict=True)]


def by_target(name: str, table: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """A saved profile under its name, or those of several targets under theirs."""
    targets = table.get("targets")
    return {f"{name}: {target}": one for target, one in targets.items()} if isinstance(targets, dict) else {name: table}


def compare(models: Sequence[Measured], gates: Sequence[str]) -> dict[str, Any]:
    """Medians, ratios to the first, and of more than two (or with gates or quality) the front."""
    from ...runtime.profiling import comparison

    names, first = [one.name for one in models], models[0]
    kinds = {one.profile.get("kind") for one in models}
    if len(kinds) > 1:
        raise UsageError(f"profiles of models that {' and '.join(sorted(map(str, kinds)))}: nothing that both are "
                         "timed by", "compare models of one task")
    known = {measure: [one.number(measure) for one in models] for measure in MEASURES}
    medians = {measure: values for measure, values in known.items() if None not in values}
    found: dict[str, Any] = {
        "kind": "profiles", "first": first.name,
        "columns": ["measure", *names, *(f"{name} / first" for name in names[1:])],
        "rows": [[measure, *values, *(value / values[0] if value is not None and values[0] else None
                                      for value in values[1:])] for measure, values in medians.items()],
        "better": {measure: "higher" if higher_is_better(measure) else "lower" for measure in medians},
        "ratios": {one.name: [asdict(ratio) for ratio in comparison.compare(first.profile, one.profile)]
                   for one in models[1:]},
        "differ": {one.name: comparison.differences(first.profile, one.profile) for one in models[1:]}}
    if len(models) > 2 or gates or any(one.quality is not None for one in models):
        found["frontier"] = frontier(models, gates)
    return found


def told(ratio: Mapping[str, Any]) -> str:
    """What a ratio says, and what it would take where it says nothing."""
    if ratio["told"] != "cannot tell":
        return str(ratio["told"])
    return f"cannot tell: about {ratio['needed']:,} requests each would" if ratio["needed"] else \
        "cannot tell: two runs of one model differ as much"


def check(found: Mapping[str, Any]) -> None:
    """CheckFailed (exit code 3) where no model keeps the gates that were named."""
    front = found.get("frontier")
    if front and front["gates"] and front["best"] is None:
        raise CheckFailed("no model keeps every gate: " + "; ".join(
            f"{point['name']}: {', '.join(point['fails'])}" for point in front["points"]),
            "take a smaller student or fewer bits, or a gate that one of them keeps")


def frontier(models: Sequence[Measured], gates: Sequence[str]) -> dict[str, Any]:
    """Every model with what it is judged by, whether nobody beats it, which gates it fails; and the best of the rest:
    the most exact, or without that the fastest."""
    from ...runtime.profiling import limits
    from ...runtime.profiling.frontier import front

    metrics = {one.metric for one in models}
    if len(metrics) > 1:
        raise UsageError(f"quality is measured by {' and '.join(sorted(metrics))}: no order between them",
                         "evaluate all by one metric")
    metric = metrics.pop()
    points = [{"p95_ms": one.number(f"{one.whole}.p95"), "peak_rss_bytes": one.number("peak_rss_bytes"),
               "file_bytes": one.number("file_bytes"), "quality": one.quality} for one in models]
    more = ("quality",) if metric and higher_is_better(metric) else ()
    on_front = front(points, more)
    fails = [_fails(one, gates) for one in models]
    sign = -1.0 if more else 1.0

    def order(index: int) -> tuple[float, float]:
        point = points[index]
        late = point["p95_ms"] if point["p95_ms"] is not None else float("inf")
        return (sign * point["quality"], late) if point["quality"] is not None else (float("inf"), late)

    kept = [index for index in range(len(models)) if not fails[index]]
    return {"metric": metric, "gates": list(gates), "points": [
        {"name": one.name, **point, "p95_ms_at_most": limits.bounded(one.profile, one.whole, "p95")[0]
         if "views" in one.profile else None, "front": free, "fails": failed}
        for one, point, free, failed in zip(models, points, on_front, fails, strict=True)],
        "best": models[min(kept, key=order)].name if kept else None}


def _fails(one: Measured, gates: Sequence[str]) -> list[str]:
    """Which gates a model does not keep: those of its quality by the value, those of its profile by their bounds."""
    from ...runtime.profiling import limits

    found = []
    for gate in gates:
        of_metric = _METRIC.fullmatch(gate)
        if of_metric and one.metric and of_metric[1] == one.metric:
            most = of_metric[2] == "<="
            if most is higher_is_better(one.metric):
                raise UsageError(f"gate {gate!r}: of {one.metric} {'lower' if not most else 'higher'} is better",
                                 f"write {one.metric}{'>=' if most else '<='}{of_metric[3]}")
            value, limit = one.quality, float(of_metric[3])
            if value is None or not (value <= limit if most else value >= limit):
                found.append(f"{gate}: {'not measured' if value is None else f'{value:.4g}'}")
            continue
        judged = limits.judge(limits.Limit.parse(gate, str(one.profile.get("kind", "generate"))), one.profile)
        if not judged.passed:
            found.append(f"{judged.limit}: {judged.reason}")
    return found


def _judged(one: Measured, path: Path) -> Measured:
    table = read_object(path, UsageError, "give what evaluate -o wrote")
    known = table.get("metrics")
    if "rows_sha256" not in table or not isinstance(known, dict) or not known:
        raise UsageError(f"{path}: no evaluation", "give what evaluate -o wrote")
    metric = next(iter(known))
    return Measured(one.name, one.profile, metric, float(known[metric]["value"]))
