"""Reverse KL(student || teacher): keeps to what the teacher finds likely, at the price of variety."""

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
    """Options of the reverse KL."""

    temperature: float = limited(1.0, minimum=0.05, maximum=100.0)
    """Divides both models' logits."""


def loss(student: Tensor, teacher: Tensor, labels: Tensor, config: Config) -> Tensor:
    """T² Σ q log(q / p) in nats for each row, with p and q softened by the temperature T.

    student and teacher [n, v] → [n]. Mode-seeking: see Gu and others 2024 (MiniLLM, arXiv 2306.08543), section 2.
    """
    from torch.nn import functional

    log_q = functional.log_softmax(student / config.temperature, dim=-1)
    log_p = functional.log_softmax(teacher / config.temperature, dim=-1)
    return config.temperature**2 * functional.kl_div(log_p, log_q, reduction="none", log_target=True).sum(-1)
