"""Cross-entropy with the labels: what the rows say, whatever a teacher thinks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ...models.strict import limited
from ._base import without_parameters

NEEDS: tuple[str, ...] = ()
LEVEL = "token"


@dataclass(frozen=True)
class Config:
    """Options of the cross-entropy."""

    label_smoothing: float = limited(0.0, minimum=0.0, maximum=0.9)
    """Share of the target spread evenly over all classes."""


def build(config: Config, student: Any, teacher: Any) -> Any:
    """-log q(label) in nats."""
    from torch.nn import functional

    return without_parameters(lambda ours, theirs, labels: functional.cross_entropy(
        ours.logits, labels, reduction="none", label_smoothing=config.label_smoothing))
