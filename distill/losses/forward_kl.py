"""Forward KL(teacher || student): covers everything the teacher finds likely; the default of distillation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ...models.strict import limited
from ..signals import AnySignal, Drawn, Signal
from ._base import divergence, kl, kl_of_drawn, without_parameters

if TYPE_CHECKING:
    from torch import Tensor

NEEDS = ("drawn",)
LEVEL = "token"


@dataclass(frozen=True)
class Config:
    """Options of the forward KL."""

    temperature: float = limited(1.0, minimum=0.05, maximum=100.0)
    """Divides both models' logits. 1 for text, about 2 for the few logits of a classifier."""


def build(config: Config, student: Any, teacher: Any) -> Any:
    """T² Σ p log(p / q) in nats; of drawn tokens an estimate without bias."""
    whole = divergence(kl, config.temperature)

    def loss(ours: Signal, theirs: AnySignal, labels: Tensor) -> Tensor:
        found: Tensor = kl_of_drawn(theirs, ours) if isinstance(theirs, Drawn) else whole(ours, theirs, labels)
        return found

    return without_parameters(loss)
