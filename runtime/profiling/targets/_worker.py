"""The process that measures on another machine: `python -m edgestill.runtime.profiling.targets._worker` in the folder
of its run, where job.json says what. What it says goes to the file `events`, one JSON object a line, the last with
`end`; while it lives it holds `lock`."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ....models.errors import EdgestillError
from ....models.json_values import with_nulls


def main() -> None:
    """Measure, and hand over the profile, or the error that a user can cause."""
    import fcntl  # which Windows lacks, where others read this module

    with Path("lock").open("wb") as lock, Path("events").open("w", encoding="utf-8") as events:
        fcntl.flock(lock, fcntl.LOCK_EX)

        def tell(**event: Any) -> None:
            events.write(json.dumps(event) + "\n")
            events.flush()

        tell(began=True)
        job = json.loads(Path("job.json").read_text(encoding="utf-8"))
        try:
            tell(end=with_nulls(measured(job, lambda line: tell(say=line))))
        except EdgestillError as error:
            from ...files.limited_process import refusal

            tell(end=refusal(error))


def measured(job: dict[str, Any], say: Any) -> dict[str, Any]:
    """The profile or the sweep as a table; `job` holds the fields of Asked, its rows as tables, or those of Swept.
    Errors as in `measure.profile` and `sweep.sweep`."""
    from ...data.row import Row
    from . import local
    from ._base import Asked, Swept

    if "models" in job:
        models = {name: Path(place) for name, place in job.pop("models").items()}
        return local.sweep("local", Swept(models, **job), _rounds(), say)
    rows = job.pop("prompts")
    tuples: list[dict[str, Any]] = [
        {name: tuple(value) if isinstance(value, list) else value for name, value in row.items()}
        for row in rows or ()]
    prompts = None if rows is None else [Row(**row) for row in tuples]
    return local.profile("local", Asked(model=Path(job.pop("model")), prompts=prompts, **job), say)


def _rounds() -> Path:
    """The file for the rounds of a sweep: outside of its folder, which is made anew where the process was killed."""
    run = Path.cwd()
    return run.parents[1] / "rounds" / f"{run.name}.jsonl"


def row_table(row: Any) -> dict[str, Any]:
    """A row as `measured` takes it: what is asked, and neither its answer nor columns for others."""
    return {**{name: value for name, value in asdict(row).items() if name in ("text", "pair", "tools")},
            "messages": list(row.prompt_messages)}


if __name__ == "__main__":
    main()
