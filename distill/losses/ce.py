"""Cross-entropy with the labels: what the rows say, whatever a teacher thinks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ...models.strict import limited

if TYPE_CHECKING:
    from torch import Tensor

TEACHER = False
"""This loss reads no teacher."""


@dataclass(frozen=True)
class Config:
    """Options of the cross-entropy."""

    label_smoothing: float = limited(0.0, minimum=0.0, maximum=0.9)
    """Share of the target spread evenly over all classes."""


def loss(student: Tensor, teacher: Tensor | None, labels: Tensor, config: Config) -> Tensor:
    """-log q(label) in nats for each row; student [n, v], labels [n] → [n]."""
    from torch.nn import functional

    return functional.cross_entropy(student, labels, reduction="none", label_smoothing=config.label_smoothing)
