"""Forward KL(teacher || student): covers everything the teacher finds likely; the default of distillation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ...models.strict import limited
from ._base import divergence, kl

NEEDS = ("logits",)
LEVEL = "token"


@dataclass(frozen=True)
class Config:
    """Options of the forward KL."""

    temperature: float = limited(1.0, minimum=0.05, maximum=100.0)
    """Divides both models' logits. 1 for text, about 2 for the few logits of a classifier."""


def build(config: Config, student: Any, teacher: Any) -> Any:
    """T² Σ p log(p / q) in nats."""
    return divergence(kl, config.temperature)
