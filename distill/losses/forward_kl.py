"""Forward KL(teacher || student): covers everything the teacher finds likely; the default of distillation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ...models.strict import limited

if TYPE_CHECKING:
    from torch import Tensor

TEACHER = True
"""This loss reads the teacher's logits."""


@dataclass(frozen=True)
class Config:
    """Options of the forward KL."""

    temperature: float = limited(1.0, minimum=0.05, maximum=100.0)
    """Divides both models' logits. 1 for text, about 2 for the few logits of a classifier."""


def loss(student: Tensor, teacher: Tensor, labels: Tensor, config: Config) -> Tensor:
    """T² Σ p log(p / q) in nats for each row, with p and q softened by the temperature T.

    student and teacher [n, v] → [n]. The factor T² keeps the gradient's size independent of T
    (Hinton, Vinyals and Dean 2015, section 2).
    """
    from torch.nn import functional

    log_q = functional.log_softmax(student / config.temperature, dim=-1)
    log_p = functional.log_softmax(teacher / config.temperature, dim=-1)
    return config.temperature**2 * functional.kl_div(log_q, log_p, reduction="none", log_target=True).sum(-1)
