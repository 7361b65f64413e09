"""From the files that the stages wrote to the one Summary that is shown."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..models import artifact, runfile, toml_text
from ..models.scheme import Scheme
from . import measure
from .pipeline import LEDGER
from .stages import BASELINE, DATA, LABELS, STUDENT, TEACHER, Plan, evaluation_file, profile_file
from .summary import GateResult, Measure, ModelSummary, Summary

if TYPE_CHECKING:
    from ..runtime.evaluate import Evaluation


MAIN = ("accuracy", "exact_match", "bits_per_character", "perplexity")
"""What a task is judged by: the first of these that was measured."""


def gather(plan: Plan) -> Summary:
    """Read every output of a finished plan."""
    teacher = _evaluation(plan, TEACHER)
    order = [(BASELINE, None), (TEACHER, TEACHER if plan.tunes_teacher else None), (LABELS, LABELS), (STUDENT, STUDENT)]
    order += [(name, name) for name in (Scheme.parse(export.target).folder_name for export in plan.run.export)]
    models = [model for name, folder in order if (model := _model(plan, name, folder, teacher)) is not None]
    student = _evaluation(plan, STUDENT)
    assert student is not None
    ledger = json.loads((plan.folder / LEDGER).read_text(encoding="utf-8"))
    main = _main(student.evaluation)
    return Summary(
        title=plan.title,
        task=plan.run.task.kind,
        metric=main,
        test_rows=student.evaluation.metrics[main].n,
        models=models,
        data=json.loads((plan.folder / DATA).read_text(encoding="utf-8")),
        gates=_gates(plan.run.gates, models, main),
        stages=[
            {"name": stage.name, "seconds": ledger[stage.name].get("seconds")}
            for stage in plan.stages
            if stage.name in ledger and "seconds" in ledger[stage.name]
        ],
        run_file=toml_text.to_toml(plan.run),
        made_by=artifact.versions(),
    )


def ratio(values: Sequence[float], teacher: Sequence[float]) -> Measure | None:
    """Mean over mean of the same rows, resampled together; None where the teacher's mean is not above 0."""
    import numpy as np

    from ..runtime.intervals import bootstrap

    both = np.array([values, teacher], np.float64)
    if both.ndim != 2 or both[1].mean() <= 0:
        return None
    # A resample in which the teacher has nothing right has no ratio; it counts as the largest finite one.
    smallest = 1 / both.shape[1]
    found = bootstrap(
        both.T, aggregate=lambda rows: rows[..., 0].mean(axis=1) / np.maximum(rows[..., 1].mean(axis=1), smallest)
    )
    return Measure(found.value, found.low, found.high, found.n)


def _main(evaluation: Evaluation) -> str:
    return next((name for name in MAIN if name in evaluation.metrics), next(iter(evaluation.metrics)))


def _evaluation(plan: Plan, name: str) -> measure.Kept | None:
    if not plan.writes(evaluation_file(name)):
        return None
    path = plan.folder / evaluation_file(name)
    return measure.Kept.read(path) if _read_json(path) else None  # plain text has no baseline


def _model(plan: Plan, name: str, folder: str | None, teacher: measure.Kept | None) -> ModelSummary | None:
    kept = _evaluation(plan, name)
    if kept is None:
        return None
    main = _main(kept.evaluation)
    against = teacher.evaluation.scores.get(main) if teacher and kept.role not in ("teacher", "baseline") else None
    place = plan.folder / folder if folder else None
    return ModelSummary(
        name=kept.name, role=kept.role, metrics=_measures(kept.evaluation),
        constrained=_measures(kept.constrained) if kept.constrained else {},
        ratio_to_teacher=ratio(kept.evaluation.scores[main], against) if against else None,
        parameters=kept.parameters, model_bytes=kept.model_bytes,
        profile=_read_json(plan.folder / profile_file(name)),
        checks=_read_json(place / "certificate.json").get("checks", []) if place else [],
        training=read_training(place / "metrics.jsonl") if place and kept.role != "shipped" else [],
        folder=str(folder or ""))


def _measures(evaluation: Evaluation) -> dict[str, Measure]:
    return {name: Measure(**asdict(interval)) for name, interval in evaluation.metrics.items()}


def read_training(path: Path) -> list[dict[str, float]]:
    """The numeric values of metrics.jsonl, line by line; empty when there is no such file."""
    if not path.is_file():
        return []
    lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    return [{key: float(value) for key, value in line.items() if isinstance(value, (int, float))} for line in lines]


def _read_json(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    value = json.loads(path.read_text(encoding="utf-8"))
    return value if isinstance(value, dict) else {}


def _gates(gates: runfile.Gates, models: Sequence[ModelSummary], main: str) -> list[GateResult]:
    """Every gate against every shipped file."""
    results = []
    for side, limits in (("minimum", gates.minimum), ("maximum", gates.maximum)):
        for name, limit in limits.items():
            for model in models:
                value = measured(model, name) if model.role == "shipped" else None
                if value is not None:
                    passed = value >= limit if side == "minimum" else value <= limit
                    results.append(GateResult(model.name, name, value, limit, passed, side))
    return results


def measured(model: ModelSummary, name: str) -> float | None:
    """A number of a model by the name a gate gives it; the median where there are percentiles."""
    if name in model.metrics:
        return model.metrics[name].value
    if name == "ratio_to_teacher":
        return model.ratio_to_teacher.value if model.ratio_to_teacher else None
    value = model.model_bytes if name == "model_bytes" else model.profile.get(name)
    if isinstance(value, dict):
        value = value.get("p50")
    return float(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else None
