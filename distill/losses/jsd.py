"""Generalised Jensen-Shannon divergence: one dial from forward KL (beta 0) to reverse KL (beta 1)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ...models.strict import limited
from ._base import divergence, kl, mixture

if TYPE_CHECKING:
    from torch import Tensor

NEEDS = ("likeliest",)
LEVEL = "token"


@dataclass(frozen=True)
class Config:
    """Options of the generalised Jensen-Shannon divergence."""

    beta: float = limited(0.5, minimum=0.0, maximum=1.0)
    """Weight of the teacher in the mixture; exactly 0 is the forward KL and exactly 1 the reverse KL."""
    temperature: float = limited(1.0, minimum=0.05, maximum=100.0)
    """Divides both models' logits."""


def build(config: Config, student: Any, teacher: Any) -> Any:
    """T² (beta KL(p || m) + (1 - beta) KL(q || m)) in nats, with m = beta p + (1 - beta) q.

    Agarwal and others 2024 (GKD, arXiv 2306.13649), equation 1; TRL computes the same, with the plain KLs at both
    ends, where the divergence itself would vanish. As beta nears an end the value shrinks with beta (1 - beta), so
    sweeping beta also changes the step size.
    """
    beta = config.beta

    def between(log_p: Tensor, log_q: Tensor) -> Tensor:
        if beta == 0.0:
            return kl(log_p, log_q)
        if beta == 1.0:
            return kl(log_q, log_p)
        log_m = mixture(log_p, log_q, beta)
        return beta * kl(log_p, log_m) + (1.0 - beta) * kl(log_q, log_m)

    return divergence(between, config.temperature)
