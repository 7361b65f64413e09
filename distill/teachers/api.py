"""A large model behind an OpenAI-compatible address: it answers rows before anything else is done.

Its student learns them as labels (sequence-level distillation, Kim and Rush 2016): all that it says stands in the rows,
so training asks it nothing. `run` labels them through distill/labelling, as `edgestill data label` does.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from ...models.errors import UsageError
from ...models.json_values import read_object
from ...models.runfile import RunFile
from ...models.strict import limited
from ...runtime.data.reader import read_rows
from ..labelling import Settings
from ..signals import TEXT
from ._prompt import system_of

IN_ROWS = True
"""What it says stands in the rows."""
_NOT_SAID = ("url", "key", "system", "examples", "schema", "max_cost", "max_tokens", "price", "concurrency", "rate",
             "timeout")
"""What answers do not depend on, and what is hashed by itself."""


@dataclass(frozen=True)
class Config:
    """The [teacher] table."""

    url: str = limited()
    """OpenAI-compatible address, such as https://host/v1."""
    model: str = limited()
    """The model to ask there."""
    key_variable: str = "EDGESTILL_TEACHER_KEY"
    """The environment variable that holds its key."""
    all: bool = False
    """Let it answer rows that have an answer, too: their own only measures it then."""
    system: str = ""
    """A system message for the teacher alone, or the text file with it (.txt, .md); empty: the task's."""
    examples: str = ""
    """A data file of rows with answers, shown to the teacher before every row."""
    private: list[str] = field(default_factory=list)
    """Columns that the teacher alone reads, behind the question."""
    votes: int = limited(1, minimum=1, maximum=101)
    """Times that every row is asked; what most answers mean is taken."""
    check: int = limited(20, minimum=0)
    """Rows, those with answers first, on which the teacher is measured before the others are asked."""
    min_agreement: float = limited(0.0, minimum=0.0, maximum=1.0)
    """Share of them in which it must agree with their answers, and with itself."""
    max_cost: float | None = None
    """Never spend more US dollars."""
    max_tokens: int | None = None
    """Never read and write more tokens."""
    price: str = ""
    """US dollars for a million tokens read and written, such as 0.15/0.6; empty: as genai-prices knows the model."""
    answer_tokens: int = limited(1024, minimum=1)
    """The longest answer, thoughts included."""
    temperature: float | None = limited(None, minimum=0.0, maximum=2.0)
    """Left out: the endpoint's own."""
    concurrency: int = limited(8, minimum=1, maximum=256)
    """Calls at a time."""
    rate: float = limited(0.0, minimum=0.0)
    """Calls a minute at most; 0: no limit."""
    timeout: float = limited(120.0, minimum=0.1)
    """Seconds for one call."""
    allow_personal_data: bool = False
    """Send rows in which personal data was found, too."""


def provides(config: Config, base: Path) -> frozenset[str]:
    """See Teacher."""
    return ApiTeacher.provides


def key(config: Config, base: Path) -> str:
    """Of the model and where it is: a hash, which says neither."""
    return hashlib.sha256(f"{config.url.rstrip('/')} {config.model}".encode()).hexdigest()


def open(config: Config, base: Path, device: str) -> ApiTeacher:
    """The teacher, as manifests name it."""
    return ApiTeacher(config.model, key(config, base))


def settings(config: Config, run: RunFile) -> Settings:
    """What the labelling of a resolved run is told; the key is that of the environment.

    Raises UsageError for labels or a schema that leave no form for answers, and for files that cannot be read.
    """
    task = run.task
    if task.kind == "classify" and len(task.labels) < 2:
        raise UsageError(f"task.labels: {len(task.labels)} are named, and the teacher is told what it can answer",
                         "name all labels that rows can have")
    given = {name: value for name, value in vars(config).items()
             if name not in ("key_variable", "private", "allow_personal_data")}
    schema = read_object(Path(task.schema), UsageError, "give a file with a JSON schema") if task.schema else None
    return Settings(**given | {
        "key": os.environ.get(config.key_variable, ""), "schema": schema,
        "system": system_of(config.system, Path()) or task.system,
        "examples": read_rows(config.examples, run.data.columns) if config.examples else (),
        "labels": task.labels if task.kind == "classify" else ()})


def stands_for_answers(settings: Settings) -> str:
    """SHA-256 of all that decides which answers rows get, in hex; not of limits of money and time."""
    said = {name: value for name, value in asdict(settings).items() if name not in _NOT_SAID}
    return hashlib.sha256(json.dumps([
        said, settings.url.rstrip("/"), settings.system, [row.messages or [row.text, row.answer] for row in
                                                          settings.examples], settings.schema]).encode()).hexdigest()


class ApiTeacher:
    """See Teacher: who answered the rows. No loss can read a signal of it, so nobody asks for one."""

    provides = frozenset({TEXT})

    def __init__(self, model: str, key: str) -> None:
        self.parents: Sequence[Mapping[str, Any]] = [{"role": "teacher", "name": model, "sha256": key}]
        self.licence = "unknown"
