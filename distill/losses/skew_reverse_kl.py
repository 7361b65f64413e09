"""Skew reverse KL: the reverse KL to a teacher mixed with a share of the student, steadier where both lie far apart."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ...models.strict import limited
from ._base import divergence, kl, mixture

NEEDS = ("likeliest",)
LEVEL = "token"


@dataclass(frozen=True)
class Config:
    """Options of the skew reverse KL."""

    alpha: float = limited(0.1, minimum=0.01, maximum=0.99)
    """Share of the student in the mixture: near 0 it is the reverse KL; at temperature 1 it stays below -log alpha."""
    temperature: float = limited(1.0, minimum=0.05, maximum=100.0)
    """Divides both models' logits."""


def build(config: Config, student: Any, teacher: Any) -> Any:
    """T² KL(q || (1 - alpha) p + alpha q) in nats: Ko and others 2024 (DistiLLM, arXiv 2402.03898), section 3.1.

    The gradient goes through both q: it is that of the divergence.
    """
    return divergence(lambda log_p, log_q: kl(log_q, mixture(log_q, log_p, config.alpha)), config.temperature)
