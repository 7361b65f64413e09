"""What one batch costs: the weighted losses of a run file, for text and for classes."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol

from ...models.outputs import SOFTMAX
from ..data.targets import loss
from ..heads import autocast, class_logits, head_of, hidden_states, summed_loss
from ..signals import Signal
from .weighted_losses import WeightedLosses

if TYPE_CHECKING:
    from torch import Tensor

    from ..data.batches import Batch

Told = Callable[["Batch"], Signal]
"""What a teacher says at each of a batch's labels."""


class Objective(Protocol):
    """The loss of a model."""

    def __call__(self, batch: Batch) -> Tensor:
        """The loss of `batch`, summed over what is learned from (its `count`), as a scalar with gradients."""


class TextObjective:
    """Losses of a decoder at the positions that predict a completion's tokens."""

    def __init__(self, student: Any, losses: WeightedLosses, told: Told | None = None,
                 precision: str = "fp32") -> None:
        import torch

        self.student, self.losses, self.told = student, losses, told
        self.head = head_of(student)
        self.device = self.head.weight.device.type
        self.precision = precision
        self.dtype = torch.bfloat16 if precision == "bf16" else torch.float32

    def __call__(self, batch: Batch) -> Tensor:
        """See Objective; counts completion tokens."""
        with autocast(self.device, self.precision):
            hidden = hidden_states(self.student, batch.ids).flatten(0, 1)[batch.positions]
        known = None if self.told is None else self.told(batch)

        def place_loss(logits: Tensor, part: slice) -> Tensor:
            return self.losses(Signal(logits), None if known is None else known[part], batch.labels[part])

        return summed_loss(hidden, self.head, place_loss, self.dtype, [*self.losses.parameters.values()])


class ClassObjective:
    """Losses of a classifier about whole rows."""

    def __init__(self, student: Any, losses: WeightedLosses, told: Told | None = None,
                 precision: str = "fp32", head: str = SOFTMAX) -> None:
        """`losses` are those of a softmax, other heads have one loss each."""
        self.head = head
        self.student, self.losses, self.told, self.precision = student, losses, told, precision
        self.device = next(student.parameters()).device.type

    def __call__(self, batch: Batch) -> Tensor:
        """See Objective; counts rows."""
        logits = class_logits(self.student, batch, self.precision)
        if self.head != SOFTMAX:
            return loss(self.head, logits, batch.labels).sum()
        known = None if self.told is None else self.told(batch)
        return self.losses(Signal(logits), known, batch.labels).sum()
