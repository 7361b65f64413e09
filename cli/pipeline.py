"""Stages, each keyed by what it reads: a second run does nothing, a killed run continues.

A stage's key is the hash of its settings, of the content it reads from outside, and of what the stages before it
wrote. `stages.json` beside the outputs holds the key a stage was begun with and, once it is done, the digest of its
output. A stage that was begun with the same key keeps what it left behind (training continues from its
checkpoint); one begun with another key starts from nothing.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..models import artifact, files, progress
from ..models.errors import ArtifactError, EdgestillError

LEDGER = "stages.json"
LOCK = ".lock"


@dataclass(frozen=True)
class Stage:
    """One step of a pipeline. `work` gets the path to write: a JSON file or an artifact folder."""

    name: str
    output: str
    """Relative to the pipeline's folder; a name with a suffix is a file, one without is an artifact folder."""
    reads: Mapping[str, Any]
    """Settings and digests of outside inputs: JSON values."""
    needs: tuple[str, ...]
    """Names of earlier stages whose output it reads."""
    work: Callable[[Path], None]


@dataclass(frozen=True)
class Step:
    """What became of a stage in one run."""

    name: str
    output: Path
    state: str
    """kept, or made."""
    seconds: float


def run(stages: Sequence[Stage], folder: Path, say: Callable[[str], None]) -> list[Step]:
    """Bring every output of `stages`, in order, up to date; `say` gets one line a stage.

    Raises whatever a stage raises; the outputs before it stay and count as done.
    """
    with _alone(folder):
        ledger = _read_ledger(folder)
        steps = []
        for number, stage in enumerate(stages, 1):
            title = f"[{number}/{len(stages)}] {stage.name}"
            key = _key(stage, ledger)
            output = folder / stage.output
            if _is_done(stage, key, ledger, folder):
                say(f"{title}: unchanged")
                steps.append(Step(stage.name, output, "kept", ledger[stage.name].get("seconds", 0.0)))
                continue
            entry = ledger.get(stage.name, {})
            if entry.get("begun") != key or "digest" in entry:
                _remove(output)
            say(title)
            progress.at(stage.name)
            ledger[stage.name] = {"begun": key}
            files.write_json(folder / LEDGER, ledger)
            started = time.perf_counter()
            if not _is_whole(output):  # a run killed between an output's last rename and the ledger left it whole
                stage.work(output)
            seconds = round(time.perf_counter() - started, 2)
            ledger[stage.name] = {"begun": key, "digest": digest(output), "seconds": seconds}
            files.write_json(folder / LEDGER, ledger)
            steps.append(Step(stage.name, output, "made", seconds))
        return steps


def plan(stages: Sequence[Stage], folder: Path) -> list[tuple[str, str, Path]]:
    """(name, `kept` or `make`, output) of every stage, without doing anything."""
    ledger = _read_ledger(folder)
    stale: set[str] = set()
    lines = []
    for stage in stages:
        fresh = not stale.intersection(stage.needs) and _is_done(stage, _key(stage, ledger), ledger, folder)
        if not fresh:
            stale.add(stage.name)
        lines.append((stage.name, "kept" if fresh else "make", folder / stage.output))
    return lines


def digest(path: Path) -> str:
    """What stands for the content of an output: the hash of a file, or of an artifact's manifest; empty for none."""
    path = path if path.suffix and path.is_file() else path / artifact.MANIFEST
    return files.sha256(path) if path.is_file() else ""


def digest_of_input(path: Path) -> str:
    """The hash of an outside file or of all files of a folder, names included."""
    if path.is_file():
        return files.sha256(path)
    names = sorted(item for item in path.rglob("*") if item.is_file())
    lines = [f"{item.relative_to(path).as_posix()} {files.sha256(item)}" for item in names]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def _key(stage: Stage, ledger: Mapping[str, Any]) -> str:
    read = {
        "name": stage.name, "reads": stage.reads, "version": artifact.versions(("edgestill",)).get("edgestill"),
        "needs": {name: ledger.get(name, {}).get("digest", "") for name in stage.needs},
    }
    return hashlib.sha256(json.dumps(read, sort_keys=True, default=str).encode()).hexdigest()


def _is_done(stage: Stage, key: str, ledger: Mapping[str, Any], folder: Path) -> bool:
    entry = ledger.get(stage.name, {})
    output = folder / stage.output
    return (
        bool(entry.get("digest")) and entry["begun"] == key and digest(output) == entry["digest"] and _is_whole(output)
    )


def _is_whole(output: Path) -> bool:
    if output.suffix:
        return output.is_file()
    try:
        artifact.open_artifact(output)
    except ArtifactError:
        return False
    return True


def _remove(output: Path) -> None:
    """Remove an output of an earlier run and what an unfinished run left beside it (gguf-Q4_0.failed, student.work)."""
    if not output.parent.is_dir():
        return
    leftovers = [*output.parent.glob(f".{output.name}.*"), *output.parent.glob(f"{output.name}.*")]
    for path in [output, *(() if output.suffix else leftovers)]:
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Hold the folder's lock; the system drops it when the process ends, however it ends."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / LOCK).open("a+b") as file:
        try:
            if sys.platform == "win32":
                import msvcrt

                msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
            else:
                import fcntl

                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise EdgestillError(
                f"{folder}: another run is at work there", "wait for it, or choose another -o/--out"
            ) from None
        yield


def _read_ledger(folder: Path) -> dict[str, Any]:
    path = folder / LEDGER
    if not path.is_file():
        return {}
    try:
        ledger = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise EdgestillError(f"{path}: not valid JSON: {error}", "remove it: every stage is then done again") from error
    return ledger if isinstance(ledger, dict) else {}
