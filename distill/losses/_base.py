"""What losses are made with: functions as modules, and divergences between softened distributions."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache
from typing import TYPE_CHECKING, Any

from ..signals import AnySignal, Drawn, Likeliest, Signal, grouped

if TYPE_CHECKING:
    from torch import Tensor

Function = Callable[[Signal, AnySignal, "Tensor"], "Tensor"]
"""(student's signal of n places, teacher's, labels [n]) → loss of each place [n]."""


def without_parameters(function: Function) -> Any:
    """A function as a loss that has nothing of its own to train."""
    return _module()(function)


def divergence(between: Callable[[Tensor, Tensor], Tensor], temperature: float) -> Any:
    """The loss T² between(log p, log q), where p is the teacher's distribution and q the student's, both softened by
    the temperature T; log p and log q [n, v] → [n].

    The factor T² keeps the gradient's size independent of T (Hinton, Vinyals and Dean 2015, section 2). Models of one
    family pad their vocabularies differently: what lies behind the shorter one is padding, and plays no part. Of a
    teacher's likeliest tokens v is those and all others as one: never more than between whole distributions.
    """
    from torch.nn import functional

    def loss(student: Signal, teacher: AnySignal, labels: Tensor) -> Tensor:
        if isinstance(teacher, Likeliest):  # read_losses softens only where there are logits
            return between(teacher.log_probabilities, grouped(student.logits[:, :teacher.vocabulary], teacher.ids))
        assert isinstance(teacher, Signal)
        common = min(student.logits.shape[-1], teacher.logits.shape[-1])
        log_q = functional.log_softmax(student.logits[:, :common] / temperature, dim=-1)
        log_p = functional.log_softmax(teacher.logits[:, :common] / temperature, dim=-1)
        return temperature**2 * between(log_p, log_q)

    return without_parameters(loss)


def kl(left: Tensor, right: Tensor) -> Tensor:
    """KL(left || right) in nats of log-probabilities [n, v] → [n]."""
    from torch.nn import functional

    return functional.kl_div(right, left, reduction="none", log_target=True).sum(-1)


def kl_of_drawn(drawn: Drawn, student: Signal) -> Tensor:
    """What drawn tokens say of KL(teacher || student) in nats [n]: in the mean over draws that very number, with its
    gradient, and 0 of every draw where both models are the same."""
    log_q = student.logits[:, :drawn.vocabulary].log_softmax(-1)
    return drawn.own - (drawn.weights * log_q.gather(-1, drawn.ids)).sum(-1)


def mixture(left: Tensor, right: Tensor, share: float) -> Tensor:
    """The log-probabilities of share · left + (1 - share) · right; 0 < share < 1."""
    import torch

    return torch.logaddexp(left + math.log(share), right + math.log1p(-share))


@cache
def _module() -> Any:
    from torch import nn

    class Loss(nn.Module):  # type: ignore[misc]
        """A function as a module."""

        def __init__(self, function: Function) -> None:
            super().__init__()
            self.function = function

        def forward(self, student: Signal, teacher: AnySignal, labels: Tensor) -> Tensor:
            return self.function(student, teacher, labels)

    return Loss
