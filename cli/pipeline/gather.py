"""From the files that the stages wrote to the one Summary that is shown."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...models import artifact, toml_text
from ...models.runfile import RunFile
from ...models.scheme import Scheme
from ...quantize.proof.grade import told
from ..report.summary import Measure, ModelSummary, Summary
from . import evaluate, gates, saved_prompts
from .engine import LEDGER, Stage
from .layout import BASELINE, DATA, LABELS, STUDENT, TEACHER, evaluation_file, profile_file

if TYPE_CHECKING:
    from ...runtime.evaluation.evaluate import Evaluation


MAIN = ("accuracy", "exact_match", "bits_per_character", "perplexity")
"""What a task is judged by: the first of these that was measured."""


@dataclass(frozen=True)
class Finished:
    """A run whose stages are all done."""

    run: RunFile
    folder: Path
    title: str
    shown: RunFile
    """The run file as the summary tells it."""
    stages: Sequence[Stage]

    def writes(self, output: str) -> bool:
        """Whether a stage writes `output`; a folder may hold files of an earlier run file."""
        return any(stage.output == output for stage in self.stages)


def gather(plan: Finished) -> Summary:
    """Read every output of a finished run."""
    teacher = _evaluation(plan, TEACHER)
    tuned = TEACHER if plan.writes(TEACHER) else None
    order = [(BASELINE, None), (TEACHER, tuned), (LABELS, LABELS), (STUDENT, STUDENT)]
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
        gates=gates.judge(plan.run.gates, models),
        stages=[
            {"name": stage.name, "seconds": ledger[stage.name].get("seconds")}
            for stage in plan.stages
            if stage.name in ledger and "seconds" in ledger[stage.name]
        ],
        run_file=toml_text.to_toml(plan.shown),
        made_by=artifact.versions(),
    )


def _main(evaluation: Evaluation) -> str:
    return next((name for name in MAIN if name in evaluation.metrics), next(iter(evaluation.metrics)))


def _evaluation(plan: Finished, name: str) -> evaluate.Kept | None:
    if not plan.writes(evaluation_file(name)):
        return None
    path = plan.folder / evaluation_file(name)
    return evaluate.Kept.read(path) if _read_json(path) else None  # plain text has no baseline


def _model(plan: Finished, name: str, folder: str | None, teacher: evaluate.Kept | None) -> ModelSummary | None:
    kept = _evaluation(plan, name)
    if kept is None:
        return None
    main = _main(kept.evaluation)
    against = teacher.evaluation.scores.get(main) if teacher and kept.role not in ("teacher", "baseline") else None
    place = plan.folder / folder if folder else None
    proof = _read_json(place / "certificate.json") if place else {}
    grade = proof.get("grade", {})
    return ModelSummary(
        name=kept.name, role=kept.role, metrics=_measures(kept.evaluation),
        constrained=_measures(kept.constrained) if kept.constrained else {},
        ratio_to_teacher=ratio(kept.evaluation.scores[main], against, main) if against else None,
        parameters=kept.parameters, model_bytes=kept.model_bytes,
        profile=_read_json(plan.folder / profile_file(name)),
        saved=_read_json(plan.folder / saved_prompts.file(name)) if plan.writes(saved_prompts.file(name)) else {},
        checks=proof.get("checks", []),
        grade=grade.get("name", ""),
        grade_told=told(kept.name, grade),
        training=read_training(place / "metrics.jsonl") if place and kept.role != "shipped" else [],
        folder=str(folder or ""))


def ratio(values: Sequence[Any], teacher: Sequence[Any], metric: str = "exact_match") -> Measure | None:
    """A metric's scores beside the teacher's, as a ratio of which higher is better; None where it cannot be divided."""
    from ...runtime.evaluation.ratio import ratio as beside

    found = beside(values, teacher, metric)
    return Measure(**asdict(found)) if found else None


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
