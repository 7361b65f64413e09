"""What a run found, in one value: what the table in the terminal, `--json` and the report all show."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ...models.errors import ArtifactError
from ...models.json_values import read_object
from ...models.strict import build, limited

FILE = "summary.json"


@dataclass(frozen=True)
class Measure:
    """A number over `n` rows with the bounds of its 95 % interval."""

    value: float = limited(null_is_nan=True)
    low: float = limited(null_is_nan=True)
    high: float = limited(null_is_nan=True)
    n: int = 0


@dataclass(frozen=True)
class ModelSummary:
    """One line of the result: a baseline, a float model or a shipped file."""

    name: str
    role: str
    """baseline, teacher, labels (the student trained on labels alone), student or shipped."""
    metrics: dict[str, Measure] = field(default_factory=dict)
    constrained: dict[str, Measure] = field(default_factory=dict)
    """The same metrics with decoding held to the task's schema."""
    ratio_to_teacher: Measure | None = None
    """The main metric over the teacher's, on the same rows, resampled together."""
    parameters: int | None = None
    model_bytes: int | None = None
    profile: dict[str, Any] = field(default_factory=dict)
    checks: list[dict[str, Any]] = field(default_factory=list)
    """The certificate: name, passed, value, limit, n, detail."""
    grade: str = ""
    """How good a certified file is."""
    grade_told: str = ""
    """What its grade means, and what to take instead of one below good."""
    training: list[dict[str, float]] = field(default_factory=list)
    """Lines of metrics.jsonl."""
    folder: str = ""
    saved: dict[str, Any] = field(default_factory=dict)
    """What every request of a shipped file does without that the teacher is told: prompt_tokens and prompt_tokens_told,
    ttft_ms and ttft_ms_told; not_run where one was not measured."""

    @property
    def certified(self) -> bool | None:
        """Whether every check that ran passed; None without a certificate."""
        ran = [check["passed"] for check in self.checks if check.get("passed") is not None]
        return all(ran) if ran else None


    @property
    def saved_told(self) -> str:
        """`saved` in a sentence; empty where the teacher is told nothing more."""
        found, parts = self.saved, list[str]()
        if "prompt_tokens" in found:
            parts.append(f"{found['prompt_tokens']:.0f} prompt tokens a request instead of the "
                         f"{found['prompt_tokens_told']:.0f} with what the teacher is told")
        if "ttft_ms" in found:
            parts.append(f"the first token after {found['ttft_ms']:.3g} ms instead of {found['ttft_ms_told']:.3g}, "
                         "nothing of the prompt read before")
        if "not_run" in found:
            parts.append(f"not measured: {found['not_run']}")
        return f"{self.name}: {'; '.join(parts)}" if parts else ""


@dataclass(frozen=True)
class GateResult:
    """A limit of the run file and what was measured."""

    model: str
    name: str
    value: float | None
    """None where there is no number, which `reason` explains."""
    limit: float
    passed: bool
    side: str = "minimum"
    reason: str = ""


@dataclass(frozen=True)
class Summary:
    """Everything one run found."""

    title: str
    task: str
    metric: str
    """The main metric: what the task is judged by."""
    test_rows: int = 0
    models: list[ModelSummary] = field(default_factory=list)
    data: dict[str, Any] = field(default_factory=dict)
    gates: list[GateResult] = field(default_factory=list)
    stages: list[dict[str, Any]] = field(default_factory=list)
    """name and seconds of every stage."""
    run_file: str = ""
    made_by: dict[str, str] = field(default_factory=dict)

    def of_role(self, role: str) -> list[ModelSummary]:
        """The models with this role, in order."""
        return [model for model in self.models if model.role == role]


def read_summary(folder: Path) -> Summary:
    """Read summary.json of a run's folder; ArtifactError when it is missing or damaged."""
    path = folder / FILE
    if not path.is_file():
        raise ArtifactError(f"{folder}: no {FILE} in it, so no run has finished there",
                            f"edgestill run RUN.TOML -o {folder} makes or finishes it")
    return build(Summary, read_object(path, ArtifactError, "run the pipeline again: it writes the file anew"), FILE)
