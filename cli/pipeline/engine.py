"""Stages, each keyed by what it reads: a second run does nothing, a killed run continues.

A stage's key is the hash of its settings, of the content it reads from outside, and of what the stages before it
wrote. `stages.json` beside the outputs holds the key, the packages' versions and the digest of every output.
A stage works in the folder `unfinished`, and its old output goes when the new one is whole. One that was begun with
the same key keeps what it left there (training continues from its checkpoint); with another it starts from nothing.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ...models import artifact, files, progress
from ...models.errors import ArtifactError, EdgestillError
from ...models.json_values import read_object

LEDGER = "stages.json"
LOCK = ".lock"
UNFINISHED = "unfinished"
"""The folder, beside the outputs, in which stages work."""


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
    versions: Mapping[str, str] = field(default_factory=dict)
    """Of the packages that make the output: other ones make it anew, from the checkpoint where there is one."""


@dataclass(frozen=True)
class Step:
    """What became of a stage in one run."""

    name: str
    output: Path
    state: str
    """kept, or made."""
    seconds: float


def run(stages: Sequence[Stage], folder: Path, say: Callable[[str], None], last: bool = True) -> list[Step]:
    """Bring every output of `stages`, in order, up to date; `say` gets one line a stage. Unless these are the `last`
    ones, what others left unfinished is kept.

    Raises whatever a stage raises; the outputs before it stay and count as done.
    """
    with _alone(folder):
        ledger = _read_ledger(folder)
        steps = []
        for number, stage in enumerate(stages, 1):
            title = f"[{number}/{len(stages)}] {stage.name}"
            output = folder / stage.output
            _settle(stage, ledger, folder)
            key = _key(stage, ledger)
            state = "kept" if _is_done(stage, key, ledger, folder) else "made"
            say(title if state == "made" else f"{title}: unchanged")
            if state == "made":
                _make(stage, key, ledger, folder)
            steps.append(Step(stage.name, output, state, ledger[stage.name].get("seconds", 0.0)))
        if last:
            _discard(folder / UNFINISHED)
        return steps


def _make(stage: Stage, key: str, ledger: dict[str, Any], folder: Path) -> None:
    """Let a stage write its output aside, and put it in its place once it is whole."""
    aside, entry = folder / UNFINISHED / stage.output, ledger.setdefault(stage.name, {})
    begun = {"key": key, "versions": dict(stage.versions)}
    if entry.get("begun", {}).get("key") != key:
        _remove(aside)
    elif entry["begun"] != begun:
        _discard(aside)  # made by other versions; a half-done training beside it says itself what has changed
    entry["begun"] = begun
    files.write_json(folder / LEDGER, ledger)
    progress.at(stage.name)
    aside.parent.mkdir(parents=True, exist_ok=True)
    started = time.perf_counter()
    if not _is_whole(aside):  # a run killed between an output's last rename and the ledger left it whole
        stage.work(aside)
    seconds = round(time.perf_counter() - started, 2)
    entry["whole"] = {**begun, "digest": digest(aside), "seconds": seconds}
    files.write_json(folder / LEDGER, ledger)
    _settle(stage, ledger, folder)


def _settle(stage: Stage, ledger: dict[str, Any], folder: Path) -> None:
    """Finish what a stage ends with, wherever it was killed: its whole output in the place of the old one."""
    output, aside = folder / stage.output, folder / UNFINISHED / stage.output
    old, entry = aside.with_name(f"{aside.name}.old"), ledger.get(stage.name, {})
    whole = entry.get("whole")
    if whole and _is_whole(aside) and digest(aside) == whole["digest"]:
        if output.is_dir():  # unlike a file it cannot be replaced in one step
            _discard(old)
            os.rename(output, old)
        output.parent.mkdir(parents=True, exist_ok=True)
        os.replace(aside, output)
        files.sync_folder(output.parent)
    elif old.exists() and not output.exists():
        os.rename(old, output)
    if whole:
        ledger[stage.name] = whole if digest(output) == whole["digest"] else {
            name: value for name, value in entry.items() if name != "whole"}
        files.write_json(folder / LEDGER, ledger)
    _discard(old)


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


def _key(stage: Stage, ledger: Mapping[str, Any]) -> str:
    read = {
        "name": stage.name, "reads": stage.reads, "version": artifact.versions(("edgestill",)).get("edgestill"),
        "needs": {name: ledger.get(name, {}).get("digest", "") for name in stage.needs},
    }
    return hashlib.sha256(json.dumps(read, sort_keys=True, default=str).encode()).hexdigest()


def _is_done(stage: Stage, key: str, ledger: Mapping[str, Any], folder: Path) -> bool:
    entry, output = ledger.get(stage.name, {}), folder / stage.output
    return (entry.get("key") == key and entry.get("versions") == dict(stage.versions)
            and digest(output) == entry.get("digest") and _is_whole(output))


def _is_whole(output: Path) -> bool:
    if output.suffix:
        return output.is_file()
    try:
        artifact.open_artifact(output)
    except ArtifactError:
        return False
    return True


def _remove(aside: Path) -> None:
    """Remove what an unfinished run left of an output: student, student.work, gguf-Q4_0.failed."""
    leftovers = [*aside.parent.glob(f".{aside.name}.*"), *aside.parent.glob(f"{aside.name}.*")]
    for path in [aside, *leftovers]:
        _discard(path)


def _discard(path: Path) -> None:
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
            files.lock(file)
        except OSError:
            raise EdgestillError(
                f"{folder}: another run is at work there", "wait for it, or choose another -o/--out"
            ) from None
        yield


def _read_ledger(folder: Path) -> dict[str, Any]:
    path = folder / LEDGER
    if not path.is_file():
        return {}
    entries = read_object(path, EdgestillError, "remove it: every stage is then done again")
    return {name: entry for name, entry in entries.items()
            if isinstance(entry, dict) and isinstance(entry.get("begun", {}), dict)}  # text in older versions' ledgers
