"""The steps of a proof: a packed file is opened, then every check that applies to its task is run."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

from ...models import kinds, progress
from ...models.artifact import versions
from ...models.errors import EdgestillError, MissingExtra, UsageError
from . import duration, other_programs
from .certificate import Check
from .packed_file import DECODE_TOKENS, Subject

log = logging.getLogger(__name__)
PACKAGE = "quantize.proof.checks"
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
    """Every check of quantize/proof/checks that applies to the subject's task, and one for each of `clients`."""
    checks: list[Check] = []
    for step in steps(subject):
        progress.at(f"prove {subject.artifact.manifest.scheme}: {step.name}")
        checks += step.run()
        if step.name == "opens":
            if not checks[-1].passed:
                return tuple(checks)
            _announce(subject)
    return (*checks, *other_programs.checks(subject, clients))


def _announce(subject: Subject) -> None:
    """Say what a long proof takes before it is spent."""
    needed = duration.seconds(subject, DECODE_TOKENS)
    if needed > duration.WORTH_TELLING:
        log.warning("%s: the proof takes about %.0f minutes here%s", subject.artifact.manifest.scheme, needed / 60,
                    "" if subject.quick else "; verify --quick leaves out answers to rows and long texts")


def _open(subject: Subject) -> Iterator[Check]:
    subject.open()
    engine = ENGINES[subject.format]
    yield Check("opens", True, "weights", detail=f"in {engine} {versions((engine,)).get(engine, '')}")
