"""Run the checks: at export with the float model at hand, later from what the artifact carries, without torch."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from ..models import kinds, progress
from ..models.artifact import Artifact, versions
from ..models.errors import ArtifactError, EdgestillError, MissingExtra, UsageError
from ..runtime.foreign import UNVERIFIED, is_foreign, is_stranger, open_model
from ..runtime.rows import Row
from . import certificate, grade, held, pace, reference
from .certificate import Certificate, Check, check_hashes
from .subject import DECODE_TOKENS, Subject

if TYPE_CHECKING:
    from .witness import Witness

log = logging.getLogger(__name__)
PACKAGE = "quantize.certify"
ENGINES = {"gguf": "llama-cpp-python", "onnx": "onnxruntime"}
TOKENIZER_WORDS = ("vocab", "token", "merges")


@dataclass(frozen=True)
class Step:
    """One module of checks, or the opening before them."""

    name: str
    cause: str
    """What is wrong when it cannot be run."""
    work: Callable[[], Iterable[Check]]

    def run(self) -> list[Check]:
        """The checks; a failure of the engine is a failed check, what is missing here or asked wrongly is raised."""
        try:
            return list(self.work())
        except (UsageError, MissingExtra):
            raise
        except EdgestillError as error:
            return [self.failed(error.message)]

    def failed(self, why: str) -> Check:
        """The check that says why the others of this step were not run."""
        cause = self.cause
        if self.name == "opens":
            said = re.sub(r"\S*[/\\]", "", why.lower())  # a folder's name says nothing of what is wrong in it
            cause = "tokenizer" if any(word in said for word in TOKENIZER_WORDS) else "weights"
        return Check(self.name, False, cause, detail=why)


def steps(subject: Subject) -> list[Step]:
    """What is done with a subject, in order; nothing follows a file that cannot be opened.

    A quick proof leaves out the modules that say they take long (QUICK = False).
    """
    kind = subject.artifact.manifest.task.kind
    modules = {name: kinds.load(PACKAGE, name) for name in kinds.names(PACKAGE)}
    return [Step("opens", "weights", partial(_open, subject)),
            *(Step(name, module.CAUSE, partial(module.check, subject))
              for name, module in modules.items()
              if kind in module.TASKS and (getattr(module, "QUICK", True) or not subject.quick))]


def certify(subject: Subject, clients: Sequence[str] = ()) -> tuple[Check, ...]:
    """Every check of quantize/certify that applies to the subject's task, and one for each of `clients`."""
    checks: list[Check] = []
    for step in steps(subject):
        progress.at(f"prove {subject.artifact.manifest.scheme}: {step.name}")
        checks += step.run()
        if step.name == "opens":
            if not checks[-1].passed:
                return tuple(checks)
            _announce(subject)
    return (*checks, *held.checks(subject, clients))


def _announce(subject: Subject) -> None:
    """Say what a long proof takes before it is spent."""
    needed = pace.seconds(subject, DECODE_TOKENS)
    if needed > pace.WORTH_TELLING:
        log.warning("%s: the proof takes about %.0f minutes here%s", subject.artifact.manifest.scheme, needed / 60,
                    "" if subject.quick else "; verify --quick leaves out answers to rows and long texts")


def ran_with(artifact: Artifact, clients: Sequence[str] = ()) -> dict[str, str]:
    """Versions of what the checks of an artifact run in."""
    target = artifact.manifest.scheme
    own = versions(("edgestill", "tokenizers", ENGINES[target.partition(":")[0]]))
    return own | held.versions(clients, target)


def verify(path: Path | str, rows: Sequence[Row] | None = None, threads: int = 0,
           against: Path | str | Witness | None = None, clients: Sequence[str] = (),
           quick: bool = False) -> Certificate:
    """Prove an artifact again, without torch: first the hash of every file, then every check.

    `quick` proves tokens, template, stop ids, cache and KL, the last on the reference's first texts, and leaves out
    what takes long: the task on `rows`, texts beyond windows, every tensor, and graphs for other programs.

    A file that changed ends it there: nothing is read from what was tampered with. `rows` adds the user's texts to
    the token check and, where the export measured the float model on them, the task metric. An artifact that is not
    packed (of tune or distill) has only its hashes checked. The result's `require()` raises CheckFailed. `clients`
    names other people's programs, files of quantize/clients or `all`, that are held to our tokens too.

    `against`, a Hugging Face folder or a Witness of one, proves a file by the float model itself, loaded in torch: the
    only proof there is for a .gguf file or an ONNX folder made elsewhere, whose checks run in a limited process.
    Raises ArtifactError for what is no model, UsageError for one of another kind than `against`.
    """
    folder = Path(path)
    held.check_names(clients)
    if against is None:
        sealed = _sealed(folder)
        found = _verify(sealed, rows or (), threads, clients, quick)
        return replace(found, origin=UNVERIFIED) if is_stranger(sealed) else found
    if clients:
        raise UsageError("clients are held to an artifact's tokens, and --against asks the float model",
                         "verify the artifact without --against")
    from . import against as foreign

    artifact = open_model(folder)
    origin = UNVERIFIED if is_stranger(artifact) else Certificate.origin
    hashes = () if is_foreign(artifact) else tuple(check_hashes(folder, artifact.manifest, ""))
    whole = all(check.passed for check in hashes)
    checks = foreign.prove(artifact, against, rows or (), threads, quick) if whole else ()
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
    with Subject(artifact, reference.read(folder), rows=rows, test_rows=rows, threads=threads,
                 at_export=told, quick=quick) as subject:
        checks = certify(subject, clients)
    method = artifact.manifest.settings.get("method", {}).get("kind", "")
    return Certificate(target, (*hashes, *checks), stored, ran_with(artifact, clients),
                       grade=grade.of(checks, target, method, told))


def _open(subject: Subject) -> Iterator[Check]:
    subject.open()
    engine = ENGINES[subject.format]
    yield Check("opens", True, "weights", detail=f"in {engine} {versions((engine,)).get(engine, '')}")
