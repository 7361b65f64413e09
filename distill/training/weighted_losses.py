"""The losses of a run file: read, built for a student and its teacher, weighted and added up."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from ...models import kinds
from ...models.errors import UsageError
from ...models.runfile import kind_config
from ..signals import ATTENTION, HIDDEN, LOGITS, TEXT, AnySignal, Inner, Mixed, Signal, served
from ..teachers._base import Teacher
from ..teachers._several import Several
from ..teachers._tables import Entry

if TYPE_CHECKING:
    from torch import Tensor

LOSSES = "distill.losses"
_FROM_ANSWERS = 'its answers are learned as labels: set [distill] losses = [{ kind = "ce" }]'
LEVELS = ("token",)
"""What a loss may be a number of: a place, which of a classifier is a whole row."""


@dataclass(frozen=True)
class Term:
    """One loss of a run file."""

    name: str
    """The key of its table, for messages."""
    kind: str
    module: ModuleType
    config: Any
    weight: float

    @property
    def needs(self) -> frozenset[str]:
        """The parts of a teacher's signal that it reads: to soften a distribution takes all of its logits."""
        softens = self.module.NEEDS and getattr(self.config, "temperature", 1.0) != 1.0
        return frozenset(self.module.NEEDS) | ({LOGITS} if softens else set())


def read_losses(tables: Sequence[Mapping[str, Any]], name: str = "distill.losses") -> list[Term]:
    """The losses of a run file; each table's `weight` (default 1) scales it.

    Raises UsageError for an unknown kind or key, a level that is not computed, a weight that is not above 0, or no loss
    at all.
    """
    if not tables:
        raise UsageError(f"{name}: no loss is given", f"one of: {', '.join(kinds.names(LOSSES))}")
    terms = []
    for index, table in enumerate(tables):
        full, weight = f"{name}[{index}]", table.get("weight", 1.0)
        if isinstance(weight, bool) or not isinstance(weight, (int, float)) or not weight > 0:
            raise UsageError(f"{full}.weight: {weight!r} is not a number above 0", "leave the loss out instead")
        config = kind_config(LOSSES, {key: value for key, value in table.items() if key != "weight"}, full)
        module = kinds.load(LOSSES, table["kind"])
        if module.LEVEL not in LEVELS:
            raise UsageError(f"{full}: {table['kind']} is a number of each {module.LEVEL}, which no training adds up",
                             f"choose a loss of level {' or '.join(LEVELS)}")
        terms.append(Term(full, table["kind"], module, config, float(weight)))
    return terms


def needs(terms: Sequence[Term], teachers: Mapping[str, Collection[str]]) -> frozenset[str]:
    """The parts of the teacher's signal that the losses read; `teachers` are what each provides, by their names.

    Raises UsageError for a loss that needs a teacher where there is none, or what one does not provide.
    """
    for term in terms:
        if term.needs and not teachers:
            raise UsageError(f"{term.name}: {term.kind} needs a teacher, and the run file has no [teacher] table",
                             "add [teacher] with kind and model, or use the loss ce alone")
        if len(teachers) > 1 and term.needs & {HIDDEN, ATTENTION}:
            raise UsageError(f"{term.name}: {term.kind} compares what is inside of two models, and there are "
                             f"{len(teachers)} teachers", "choose a loss of logits, or one teacher")
        for name, provided in teachers.items():
            if lacking := term.needs - served(provided):
                raise UsageError(f"{term.name}: {term.kind} needs {', '.join(sorted(lacking))} of {name}, which "
                                 f"provides {', '.join(sorted(provided))}", _FROM_ANSWERS if TEXT in provided
                                 else "choose another loss or teacher")
    return frozenset[str]().union(*(term.needs for term in terms))


def provided(teacher: Teacher | None) -> dict[str, Collection[str]]:
    """What a teacher, or each of several, provides, by its name."""
    if isinstance(teacher, Several):
        return {entry.name: one.provides for entry, one in zip(teacher.entries, teacher.members, strict=True)}
    return {"the teacher": teacher.provides} if teacher else {}


def of_tables(entries: Sequence[Entry], base: Path) -> dict[str, Collection[str]]:
    """The same of teachers that are not opened yet; errors as of their kinds' `open`."""
    return {entry.name if len(entries) > 1 else "the teacher": entry.provides(base) for entry in entries}


class WeightedLosses:
    """Losses as modules; what they have of their own to train lies in `parameters`, by names of no model."""

    def __init__(self, terms: Sequence[Term], student: Any, teacher: Teacher | None = None, seed: int = 0) -> None:
        """Build each loss for the model `student` and for `teacher`; weights of their own are drawn from `seed`. Errors
        as of `needs`."""
        import torch

        self.needs = needs(terms, provided(teacher))
        self.weights = [term.weight for term in terms]
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.modules = [term.module.build(term.config, student, teacher) for term in terms]
        self.reads = frozenset[Inner]().union(*(getattr(module, "reads", ()) for module in self.modules))
        self.asks = frozenset[Inner]().union(*(getattr(module, "asks", ()) for module in self.modules))
        self.parameters: dict[str, Tensor] = {}
        for index, module in enumerate(self.modules):
            module.to(next(student.parameters()).device)
            self.parameters |= {f"losses[{index}].{name}": value for name, value in module.named_parameters()}

    @property
    def of_logits(self) -> bool:
        """Whether any of them reads logits."""
        return bool(self._terms(False))

    @property
    def parameters_of_logits(self) -> list[Tensor]:
        """What the losses that read logits have of their own to train."""
        return [value for module, _ in self._terms(False) for value in module.parameters()]

    def __call__(self, student: Signal, teacher: AnySignal | None, labels: Tensor) -> Tensor:
        """The weighted losses [n] of n places, of those that read logits; labels [n]."""
        return self._sum(False, student, teacher, labels)

    def inside(self, student: Signal, teacher: AnySignal | None, labels: Tensor) -> Tensor:
        """The same of those that look inside of the models."""
        return self._sum(True, student, teacher, labels)

    def _terms(self, inside: bool) -> list[tuple[Any, float]]:
        return [term for term in zip(self.modules, self.weights, strict=True) if hasattr(term[0], "reads") == inside]

    def _sum(self, inside: bool, student: Signal, teacher: AnySignal | None, labels: Tensor) -> Tensor:
        if isinstance(teacher, Mixed):
            return sum(share * self._sum(inside, student, told, labels) for share, told in teacher.parts)
        values: list[Tensor] = [module(student, teacher, labels) * weight for module, weight in self._terms(inside)]
        return sum(values[1:], values[0])
