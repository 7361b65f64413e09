"""Skew KL: the forward KL to a student helped along by a share of the teacher, so that no token costs without limit."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ...models.strict import limited
from ._base import divergence, kl, mixture

NEEDS = ("likeliest",)
LEVEL = "token"


@dataclass(frozen=True)
class Config:
    """Options of the skew KL."""

    alpha: float = limited(0.1, minimum=0.01, maximum=0.99)
    """Share of the teacher in the mixture: near 0 it is the forward KL; at temperature 1 it stays below -log alpha."""
    temperature: float = limited(1.0, minimum=0.05, maximum=100.0)
    """Divides both models' logits."""


def build(config: Config, student: Any, teacher: Any) -> Any:
    """T² KL(p || alpha p + (1 - alpha) q) in nats: Ko and others 2024 (DistiLLM, arXiv 2402.03898), section 3.1."""
    return divergence(lambda log_p, log_q: kl(log_p, mixture(log_p, log_q, config.alpha)), config.temperature)
