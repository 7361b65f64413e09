"""What one batch costs: the weighted losses of a run file, for text and for classes."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any, Protocol

from ..models.outputs import SOFTMAX
from .heads import Head, head_of, hidden_states, summed_loss
from .signals import Signal
from .targets import loss
from .weighted_losses import WeightedLosses

if TYPE_CHECKING:
    from torch import Tensor

    from .batches import Batch, TokenSet

class Objective(Protocol):
    """The loss of a model."""

    def __call__(self, batch: Batch) -> Tensor:
        """The loss of `batch`, summed over what is learned from (its `count`), as a scalar with gradients."""


def autocast(device: str, precision: str) -> Any:
    """The context in which a model's forward pass is computed."""
    import torch

    return torch.autocast(device, dtype=torch.bfloat16) if precision == "bf16" else nullcontext()


class TextObjective:
    """Losses of a decoder at the positions that predict a completion's tokens."""

    def __init__(self, student: Any, losses: WeightedLosses, teacher: TextTeacher | None = None,
                 precision: str = "fp32") -> None:
        import torch

        self.student, self.losses, self.teacher = student, losses, teacher
        self.head = head_of(student)
        self.device = self.head.weight.device.type
        self.precision = precision
        self.dtype = torch.bfloat16 if precision == "bf16" else torch.float32

    def __call__(self, batch: Batch) -> Tensor:
        """See Objective; counts completion tokens."""
        with autocast(self.device, self.precision):
            hidden = hidden_states(self.student, batch.ids).flatten(0, 1)[batch.positions]
        known = None if self.teacher is None else Signal(self.teacher.hidden(batch), self.teacher.logits)

        def place_loss(logits: Tensor, part: slice) -> Tensor:
            return self.losses(Signal(logits), None if known is None else known[part], batch.labels[part])

        return summed_loss(hidden, self.head, place_loss, self.dtype, [*self.losses.parameters.values()])


class TextTeacher:
    """A frozen decoder; its hidden states are kept between epochs where they fit into memory."""

    def __init__(self, model: Any, real_tokens: int, token_map: Sequence[int] | None = None,
                 precision: str = "fp32") -> None:
        """`real_tokens` is the size of the shared tokenizer. `token_map` gives the teacher's id of each of the
        student's tokens; None where they are the same."""
        import torch

        self.model = model.eval().requires_grad_(False)
        self.device = next(model.parameters()).device
        self.precision = precision
        self.dtype = torch.bfloat16 if precision == "bf16" else torch.float32
        self.map = None if token_map is None else torch.tensor(token_map, device=self.device)
        head = head_of(model)
        # Only real tokens are compared: rows behind them are padding of the embedding.
        head = head.rows(torch.arange(real_tokens, device=self.device) if self.map is None else self.map)
        bias = None if head.bias is None else head.bias.to(self.dtype)
        self.head = Head(head.weight.to(self.dtype), bias, head.scale, head.softcap)
        self.kept: dict[int, Tensor] = {}

    def hidden(self, batch: Batch) -> Tensor:
        """Hidden states [n, hidden] at the batch's positions."""
        import torch

        if all(row in self.kept for row in batch.rows):
            return torch.cat([self.kept[row] for row in batch.rows])
        with torch.no_grad(), autocast(self.device.type, self.precision):
            ids = batch.ids if self.map is None else self.map[batch.ids]
            return hidden_states(self.model, ids).flatten(0, 1)[batch.positions].to(self.dtype)

    def logits(self, hidden: Tensor) -> Tensor:
        """Logits [c, v] in float32 over the student's tokens."""
        import torch

        with torch.no_grad():
            return self.head.logits(hidden, self.head.weight, self.head.bias)

    def view(self) -> TextTeacher:
        """A copy that shares the model and keeps hidden states of its own: rows are known by their numbers, which
        mean one set of rows."""
        other = copy.copy(self)
        other.kept = {}
        return other

    def bytes_for(self, tokens: TokenSet) -> int:
        """What keeping the hidden states of all completions would take."""
        return int(tokens.learned.sum()) * int(self.head.weight.shape[1] * self.dtype.itemsize)

    def keep(self, batch: Batch) -> None:
        """Compute the batch's hidden states now and keep them for every later use of its rows."""
        states = self.hidden(batch).split(batch.counts)
        self.kept.update((row, part.clone()) for row, part in zip(batch.rows, states, strict=True))


class ClassObjective:
    """Losses of a classifier; what a teacher says about each row is known before training starts."""

    def __init__(self, student: Any, losses: WeightedLosses, teacher_logits: Tensor | None = None,
                 precision: str = "fp32", head: str = SOFTMAX) -> None:
        """`teacher_logits` [rows, labels], float32, in the order of the rows; `losses` are those of a softmax, other
        heads have one loss each."""
        self.head = head
        self.student, self.losses, self.teacher_logits, self.precision = student, losses, teacher_logits, precision
        self.device = next(student.parameters()).device.type

    def __call__(self, batch: Batch) -> Tensor:
        """See Objective; counts rows."""
        logits = class_logits(self.student, batch, self.precision)
        if self.head != SOFTMAX:
            return loss(self.head, logits, batch.labels).sum()
        known = None if self.teacher_logits is None else Signal(self.teacher_logits[batch.rows].to(logits.device))
        return self.losses(Signal(logits), known, batch.labels).sum()


def class_logits(model: Any, batch: Batch, precision: str) -> Tensor:
    """Logits [rows, labels] in float32 of a batch of texts."""
    with autocast(batch.ids.device.type, precision):
        logits: Tensor = model(input_ids=batch.ids, attention_mask=batch.mask).logits
    return logits.float()
