"""Generalised Jensen-Shannon divergence: one dial from forward KL (beta 0) to reverse KL (beta 1)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ...models.strict import limited

if TYPE_CHECKING:
    from torch import Tensor

TEACHER = True
"""This loss reads the teacher's logits."""


@dataclass(frozen=True)
class Config:
    """Options of the generalised Jensen-Shannon divergence."""

    beta: float = limited(0.5, minimum=0.0, maximum=1.0)
    """Weight of the teacher in the mixture; exactly 0 is the forward KL and exactly 1 the reverse KL."""
    temperature: float = limited(1.0, minimum=0.05, maximum=100.0)
    """Divides both models' logits."""


def loss(student: Tensor, teacher: Tensor, labels: Tensor, config: Config) -> Tensor:
    """T² (beta KL(p || m) + (1 - beta) KL(q || m)) in nats for each row, with m = beta p + (1 - beta) q.

    student and teacher [n, v] → [n]. Agarwal and others 2024 (GKD, arXiv 2306.13649), equation 1; TRL computes the
    same, with the plain KLs at both ends, where the divergence itself would vanish. As beta nears an end the
    value shrinks with beta (1 - beta), so sweeping beta also changes the step size. T² as for the KLs it is made of.
    """
    import torch
    from torch.nn import functional

    log_q = functional.log_softmax(student / config.temperature, dim=-1)
    log_p = functional.log_softmax(teacher / config.temperature, dim=-1)

    def kl(left: Tensor, right: Tensor) -> Tensor:
        return functional.kl_div(right, left, reduction="none", log_target=True).sum(-1)

    beta = config.beta
    if beta == 0.0:
        divergence = kl(log_p, log_q)
    elif beta == 1.0:
        divergence = kl(log_q, log_p)
    else:
        log_m = torch.logaddexp(log_p + math.log(beta), log_q + math.log1p(-beta))
        divergence = beta * kl(log_p, log_m) + (1.0 - beta) * kl(log_q, log_m)
    return config.temperature**2 * divergence
