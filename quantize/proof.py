"""Run the checks: at export with the float model at hand, later from what the artifact carries, without torch."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ..models import kinds
from ..models.artifact import Artifact, open_artifact
from ..models.errors import ArtifactError
from ..runtime.rows import Row
from . import certificate, reference
from .certificate import Certificate, Check, check_hashes
from .subject import Subject

PACKAGE = "quantize.certify"


def certify(subject: Subject) -> tuple[Check, ...]:
    """Every check of quantize/certify that applies to the subject's task."""
    kind = subject.artifact.manifest.task.kind
    modules = [kinds.load(PACKAGE, name) for name in kinds.names(PACKAGE)]
    return tuple(check for module in modules if kind in module.TASKS for check in module.check(subject))


def verify(path: Path | str, rows: Sequence[Row] | None = None, threads: int = 0) -> Certificate:
    """Prove an artifact again, without torch: first the hash of every file, then every check.

    A file that changed ends it there: nothing is read from what was tampered with. `rows` adds the user's texts to
    the token check and, where the export measured the float model on them, the task metric. An artifact that is not
    packed (of tune or distill) has only its hashes checked. The result's `require()` raises CheckFailed.
    Raises ArtifactError for a folder that is no artifact.
    """
    folder = Path(path)
    artifact = open_artifact(folder)
    target = artifact.manifest.scheme
    packed = artifact.manifest.stage == "export"
    try:
        stored = certificate.read(folder).manifest_sha256 if packed else ""
    except ArtifactError as error:
        return Certificate(target, (Check("hash certificate.json", False, "files", detail=error.message),))
    hashes = tuple(check_hashes(folder, artifact.manifest, stored))
    if not packed or not all(check.passed for check in hashes):
        return Certificate(target, hashes, stored)
    return Certificate(target, (*hashes, *_prove(artifact, rows or ())), stored)


def _prove(artifact: Artifact, rows: Sequence[Row]) -> tuple[Check, ...]:
    with Subject(artifact, reference.read(artifact.folder), rows=rows, test_rows=rows) as subject:
        return certify(subject)
