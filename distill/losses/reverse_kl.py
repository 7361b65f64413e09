"""Reverse KL(student || teacher): keeps to what the teacher finds likely, at the price of variety."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ...models.strict import limited
from ._base import divergence, kl

NEEDS = ("likeliest",)
LEVEL = "token"


@dataclass(frozen=True)
class Config:
    """Options of the reverse KL."""

    temperature: float = limited(1.0, minimum=0.05, maximum=100.0)
    """Divides both models' logits."""


def build(config: Config, student: Any, teacher: Any) -> Any:
    """T² Σ q log(q / p) in nats. Mode-seeking: see Gu and others 2024 (MiniLLM, arXiv 2306.08543), section 2."""
    return divergence(lambda log_p, log_q: kl(log_q, log_p), config.temperature)
