"""Targets by their addresses, and what each of them is asked."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from ....models import kinds
from ....models.errors import UsageError

if TYPE_CHECKING:
    from ...data.reader import Row

PACKAGE = "runtime.profiling.targets"
NAMED = re.compile(r"([A-Za-z][\w.-]*)=(.+)", re.DOTALL)
Say = Callable[[str], object]


@dataclass(frozen=True)
class Asked:
    """What is to be measured: the arguments of `measure.profile`, wherever that is done."""

    model: Path | None
    """An artifact or another model that lies here; None where a server has one of its own."""
    prompt_tokens: int = 128
    new_tokens: int | None = None
    warmup: int = 2
    repeats: int = 10
    threads: int = 0
    prompts: Sequence[Row] | None = None
    held_to: Sequence[str] = ()
    seconds: float = 0.0
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Swept:
    """What is to be swept: the arguments of `sweep.sweep`, wherever that is done."""

    models: Mapping[str, Path]
    """Models that lie here, by the names that the table gives them."""
    threads: Sequence[int]
    contexts: Sequence[int]
    streams: Sequence[int]
    new_tokens: int
    warmup: int
    repeats: int


@dataclass(frozen=True)
class Target:
    """One place to measure at, such as pi5=ssh://pi@pi5.local."""

    name: str
    """What gates and tables call it: its own name, or else its address."""
    place: str

    @classmethod
    def parse(cls, text: str) -> Target:
        """Read [NAME=]ADDRESS; UsageError for an address of no kind, or one that its kind refuses."""
        found = NAMED.fullmatch(text)
        name, place = found.groups() if found else (text, text)
        target = cls(name, place)
        target.kind.check(place)
        return target

    @property
    def kind(self) -> ModuleType:
        """The file that measures there; UsageError where there is none."""
        scheme = self.place.partition("://")[0]
        return kinds.load(PACKAGE, "server" if scheme in ("http", "https") else scheme)


def parse(texts: Sequence[str]) -> list[Target]:
    """The targets; UsageError as in `Target.parse`, and for two of one name."""
    found = [Target.parse(text) for text in texts]
    names = [target.name for target in found]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise UsageError(f"--target: {', '.join(twice)} is named twice", "name every target once, as NAME=ADDRESS")
    return found
