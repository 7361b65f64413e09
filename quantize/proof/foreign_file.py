"""A packed file held against a Hugging Face folder: the float model answers here, the file in a limited process."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from ...models import family
from ...models.artifact import Artifact
from ...models.errors import ArtifactError, UsageError
from ...runtime.data.reader import Row
from ...runtime.files import limited_process
from ...runtime.loading.foreign import codec_of, is_foreign, open_model, place
from ..source.model_folder import Source
from . import duration, reference
from .certificate import Check
from .float_answers import Witness
from .packed_file import DECODE_TOKENS, Subject
from .steps import Step, steps


def witness(folder: Path | str, rows: Sequence[Row]) -> Witness:
    """The float model of a folder, to be asked about `rows`: those with an answer are scored, the others read."""
    scored: dict[bool, list[Row]] = {True: [], False: []}
    for row in rows:
        scored[row.kind != "text" and bool(row.answer)].append(row)
    return Witness(folder, scored[False], scored[True])


def prove(artifact: Artifact, against: Path | str | Witness, rows: Sequence[Row], threads: int = 0,
          quick: bool = False) -> list[Check]:
    """Every check of a packed file that nothing is known of; a crash of the engine is a failed check.

    Raises UsageError, before any weight loads, for a file of another architecture, size or task than `against`.
    """
    known = against if isinstance(against, Witness) else witness(against, rows)
    _check_kinship(artifact, known.origin)
    with tempfile.TemporaryDirectory(prefix="edgestill-") as folder:
        known.reference.write(Path(folder))
        outcome = limited_process.run(__name__, {
            "path": str(place(artifact)), "reference": folder, "folder": str(known.origin.folder),
            "task": asdict(known.origin.task), "threads": threads, "quick": quick,
            "rows": [asdict(row) for row in rows]}, artifact.model_bytes())
    if outcome.error is not None:
        raise outcome.error
    checks = [Check(**item["check"]) for item in outcome.found if "check" in item]
    if outcome.crash:
        begun = [item for item in outcome.found if "begins" in item]
        name, cause = begun[-1]["begins"] if begun else ("opens", "weights")
        checks.append(_late(name, outcome) if outcome.late else Step(name, cause, list).failed(outcome.crash))
    return checks


def _late(name: str, outcome: limited_process.Outcome) -> Check:
    """Not run for want of time, with what it would have needed: no fault of the file."""
    needs = [item["needs_s"] for item in outcome.found if "needs_s" in item]
    about = f"; all checks take about {needs[-1]:,.0f} s here" if needs else ""
    return Check(name, None, detail=f"{outcome.crash}{about}: give more threads or fewer rows, or --quick")


def checks_of(artifact: Artifact, job: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """In the limited process: {begins: (name, cause)} before each step, then {check: …} of each of its checks."""
    rows = [Row(**item | {"messages": tuple(item["messages"]), "tools": tuple(item["tools"])}) for item in job["rows"]]
    bare = is_foreign(artifact) and artifact.model_path.suffix == ".gguf"
    opening = Step("opens", "weights", list)
    yield {"begins": (opening.name, opening.cause)}
    try:
        told = _as_told(artifact, job["task"])
    except ArtifactError as error:
        yield {"check": asdict(opening.failed(error.message))}
        return
    with Subject(told, reference.read(Path(job["reference"])), None, rows, rows, job["threads"],
                 Path(job["folder"]) if bare else None, quick=job.get("quick", False),
                 float_folder=Path(job["folder"])) as subject:
        for step in steps(subject):
            yield {"begins": (step.name, step.cause)}
            found = step.run()
            for check in found:
                yield {"check": asdict(check)}
            if step.name != "opens":
                continue
            if not found[-1].passed:
                return
            yield {"needs_s": duration.seconds(subject, DECODE_TOKENS)}


def _as_told(artifact: Artifact, task: dict[str, Any]) -> Artifact:
    """The artifact with the float model's task, under which both answer, and with the stop ids of its own files."""
    if not is_foreign(artifact):
        return artifact
    manifest = artifact.manifest
    labels = manifest.task.labels or task["labels"]
    tokenizer = manifest.tokenizer
    if not tokenizer.stop_ids and manifest.task.kind == "generate":
        tokenizer = replace(tokenizer, stop_ids=sorted(codec_of(artifact).stop_ids))
    told = type(manifest.task)(**task | {"labels": labels})
    return replace(artifact, manifest=replace(manifest, task=told, tokenizer=tokenizer))


def _check_kinship(artifact: Artifact, origin: Source) -> None:
    manifest, sizes = artifact.manifest, origin.dimensions()
    pairs = [("task", manifest.task.kind, origin.task.kind)]
    if manifest.scheme.startswith("gguf"):  # a graph names its kind in too many ways; its sizes and numbers speak
        here, there = family.load(manifest.family).gguf, origin.checkpoint.family.gguf
        pairs.append(("architecture", here.architecture if here else "none", there.architecture if there else "none"))
    pairs += [(key, str(manifest.dimensions[key]), str(sizes[key])) for key in ("layers", "hidden")
              if manifest.dimensions.get(key)]
    for name, found, expected in pairs:
        if found != expected:
            raise UsageError(f"{artifact.model_path}: its {name} is {found}, that of {origin.folder} is {expected}",
                             "give the folder that the file was made from")


def _work(job: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield from checks_of(open_model(Path(job["path"])), job)


if __name__ == "__main__":
    limited_process.serve(_work)
