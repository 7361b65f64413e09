"""What lies where in the output folder of a run."""

from __future__ import annotations

DATA, SUMMARY, REPORT = "data.json", "summary.json", "report.html"
BASELINE, TEACHER, STUDENT, LABELS, GRID = "baseline", "teacher", "student", "student-labels", "student-grid"


def evaluation_file(name: str) -> str:
    """Where the evaluation of a model is kept, relative to the output folder."""
    return f"evaluations/{name}.json"


def profile_file(name: str) -> str:
    """Where the profile of a shipped file is kept, relative to the output folder."""
    return f"profiles/{name}.json"
