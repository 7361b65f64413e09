"""Prove a packed file again: from what the artifact carries, without torch, or against the float model itself."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from ...models.artifact import Artifact, versions
from ...models.errors import ArtifactError, UsageError
from ...runtime.data.reader import Row
from ...runtime.loading.foreign import UNVERIFIED, is_foreign, is_stranger, open_model, try_out
from . import certificate, foreign_file, grade, other_programs, reference, reference_checks
from .certificate import Certificate, Check, check_hashes
from .packed_file import Subject
from .steps import ENGINES, Step, certify

if TYPE_CHECKING:
    from .float_answers import Witness


def ran_with(artifact: Artifact, clients: Sequence[str] = ()) -> dict[str, str]:
    """Versions of what the checks of an artifact run in."""
    target = artifact.manifest.scheme
    own = versions(("edgestill", "tokenizers", ENGINES[target.partition(":")[0]]))
    return own | other_programs.versions(clients, target)


def verify(path: Path | str, rows: Sequence[Row] | None = None, threads: int = 0,
           against: Path | str | Witness | None = None, clients: Sequence[str] = (),
           quick: bool = False) -> Certificate:
    """Prove an artifact again, without torch: first the hash of every file, then every check.

    `quick` proves tokens, template, stop ids, cache and KL, the last on the reference's first texts, and leaves out
    what takes long: the task on `rows`, texts beyond windows, every tensor, and graphs for other programs.

    A file that changed ends it there: nothing is read from what was tampered with; nor from an artifact that was not
    made here and that fails in a limited process. `rows` adds the user's texts to
    the token check and, where the export measured the float model on them, the task metric. An artifact that is not
    packed (of tune or distill) has only its hashes checked. The result's `require()` raises CheckFailed. `clients`
    names other people's programs, files of quantize/proof/clients or `all`, that are held to our tokens too.

    `against`, a Hugging Face folder or a Witness of one, proves a file by the float model itself, loaded in torch: the
    only proof there is for a .gguf file or an ONNX folder made elsewhere, whose checks run in a limited process.
    Raises ArtifactError for what is no model, UsageError for one of another kind than `against`.
    """
    folder = Path(path)
    other_programs.check_names(clients)
    if against is None:
        sealed = _sealed(folder)
        found = _verify(sealed, rows or (), threads, clients, quick)
        return replace(found, origin=UNVERIFIED) if is_stranger(sealed) else found
    if clients:
        raise UsageError("clients are held to an artifact's tokens, and --against asks the float model",
                         "verify the artifact without --against")
    artifact = open_model(folder)
    origin = UNVERIFIED if is_stranger(artifact) else Certificate.origin
    hashes = () if is_foreign(artifact) else tuple(check_hashes(folder, artifact.manifest, ""))
    whole = all(check.passed for check in hashes)
    checks = foreign_file.prove(artifact, against, rows or (), threads, quick) if whole else ()
    scheme = artifact.manifest.scheme
    return Certificate(scheme, (*hashes, *checks), ran_with=ran_with(artifact), origin=origin,
                       grade=grade.of(checks, scheme))


def _sealed(path: Path) -> Artifact:
    artifact = open_model(path)
    if is_foreign(artifact):
        raise UsageError(f"{path}: {UNVERIFIED}; it says nothing of the float model it was made from",
                         f"edgestill verify {path} --against HF_FOLDER compares it with that model")
    return artifact


def _verify(artifact: Artifact, rows: Sequence[Row], threads: int, clients: Sequence[str], quick: bool) -> Certificate:
    folder, target = artifact.folder, artifact.manifest.scheme
    packed = artifact.manifest.stage == "export"
    try:  # whatever the stage is said to be: a changed manifest may say anything
        sealed = certificate.read(folder) if certificate.FILE in artifact.manifest.files else None
    except ArtifactError as error:
        return Certificate(target, (Check("hash certificate.json", False, "files", detail=error.message),))
    stored, told = (sealed.manifest_sha256, sealed.checks) if sealed else ("", ())
    hashes = tuple(check_hashes(folder, artifact.manifest, stored))
    if not packed or not all(check.passed for check in hashes):
        return Certificate(target, hashes, stored)
    if is_stranger(artifact):
        try:
            try_out(artifact)
        except ArtifactError as error:
            return Certificate(target, (*hashes, Step("opens", "weights", list).failed(error.message)), stored)
    known = reference.read(folder)
    reference_checks.check(known, artifact.manifest.task.kind == "generate")
    with Subject(artifact, known, rows=rows, test_rows=rows, threads=threads, at_export=told, quick=quick) as subject:
        checks = certify(subject, clients)
    method = artifact.manifest.settings.get("method", {}).get("kind", "")
    return Certificate(target, (*hashes, *checks), stored, ran_with(artifact, clients),
                       grade=grade.of(checks, target, method, told))
