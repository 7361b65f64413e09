"""What a kind of task adds to training: which rows it takes, as which ids, what a batch costs, what is measured.

A kind is a file with a class `Kind` of TaskKind; what is said here already holds for tasks that need no more.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol, cast

from ...models import kinds
from ...models.task import Task
from ...runtime.data.reader import Row
from ...runtime.text.codec import Codec
from ..data.batches import Batch, Collate, Schedule
from ..data.token_sets import TokenSet
from ..signals import AnySignal, Inner, Signal

if TYPE_CHECKING:
    from torch import Tensor

TASKS = "distill.tasks"
Splits = Mapping[str, Sequence[Row]]
"""Rows by split: train, validation and test."""
Told = Callable[[Batch], AnySignal]
"""What a teacher says at each of a batch's labels."""


class Losses(Protocol):
    """The weighted losses of a run file."""

    @property
    def reads(self) -> frozenset[Inner]:
        """What those of them that look inside of the student read."""

    @property
    def of_logits(self) -> bool:
        """Whether any of them reads logits."""

    @property
    def parameters_of_logits(self) -> Sequence[Tensor]:
        """What those that read logits have of their own to train."""

    def __call__(self, student: Signal, teacher: AnySignal | None, labels: Tensor) -> Tensor:
        """The loss [n] of n places of those that read logits; labels [n]."""

    def inside(self, student: Signal, teacher: AnySignal | None, labels: Tensor) -> Tensor:
        """The loss [n] of n places of those that look inside."""


class Objective(Protocol):
    """What a model is trained towards."""

    @property
    def measures(self) -> Sequence[str]:
        """What `measure` gives numbers for."""

    def __call__(self, batch: Batch) -> Tensor:
        """The loss of `batch`, summed over what is learned from (its `count`), as a scalar with gradients."""

    def measure(self, batch: Batch) -> Mapping[str, float]:
        """The `measures`, the loss and what else tells of a model, from one forward pass, summed over the batch's
        `count`."""


class TaskKind:
    """A kind of task; every method but `examples` and `objective` has a sense where nothing is asked of it."""

    rows: frozenset[str]
    """Kinds of rows that it takes; see Row."""
    columns: str
    """What such rows hold, for messages."""
    hub_task: str
    """The hub's name of it, by which transformers chooses the class of its models."""
    new_head = False
    """Whether a head that the weights lack, or hold for other labels, is made anew."""
    collate: Collate
    """Where and what a batch learns."""

    def settle(self, task: Task, splits: Splits) -> tuple[Task, Splits]:
        """The task with what its rows leave no doubt of, and the rows as it takes them; DataError or UsageError for
        rows that it cannot take."""
        return task, splits

    def settle_on(self, task: Task, codec: Codec, rows: Sequence[Row]) -> Task:
        """The task with what its training rows ask of the model's tokenizer and template."""
        return task

    def check_distilled(self, task: Task) -> None:
        """UsageError for a task of which a teacher's word cannot be compared with the student's."""

    def configure(self, config: Any, task: Task) -> None:
        """Write the task's head into a configuration of transformers; UsageError for a head that cannot be."""

    def ready(self, model: Any, codec: Codec) -> None:
        """What a loaded model needs before it is trained."""

    def examples(self, rows: Sequence[Row], codec: Codec, task: Task, max_tokens: int, learn: str) -> TokenSet:
        """The rows as ids. Those longer than `max_tokens` are left out and counted; `learn` is that of [data].

        Raises DataError for a row that the task cannot learn from, or of which a part reaches no id.
        """
        raise NotImplementedError

    def objective(self, model: Any, losses: Losses, told: Told | None, precision: str, task: Task) -> Objective:
        """What `model` is trained towards; `told` is the teacher, where the losses read one."""
        raise NotImplementedError

    def calibrate(self, model: Any, validation: Schedule, precision: str, task: Task) -> tuple[Task, dict[str, Any]]:
        """The task, and settings for the manifest, with what is fitted on validation rows when training is done."""
        return task, {}


def kind_of(task: Task) -> TaskKind:
    """The kind of a task; UsageError for one that is not trained."""
    return cast(TaskKind, kinds.load(TASKS, task.kind).Kind())
