"""Attention: the student is to look where the teacher looks, at every token that is learned."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ..signals import ATTENTION
from ._layers import layer_loss, pairs

if TYPE_CHECKING:
    from torch import Tensor

NEEDS = (ATTENTION,)
LEVEL = "token"
LEAST = 1e-9
"""Below this a share of the attention counts as none: later tokens, and those beyond a window."""


@dataclass(frozen=True)
class Config:
    """Options of the loss of attention."""

    layers: list[list[int]] = field(default_factory=lambda: [[-1, -1]])
    """Pairs of a student's and a teacher's layer: 1 is the first one, -1 the last."""


def build(config: Config, student: Any, teacher: Any) -> Any:
    """KL(teacher || student) in nats between what a token looks at, the mean over heads, which may differ in number:
    after Wang and others 2020 (MiniLM, arXiv 2002.10957), section 3.1, who compare head by head.

    Attention has to be computed openly for it, as [length, length] for each head: slower, and more memory. Raises
    UsageError as of `pairs`.
    """
    layers = pairs(config.layers, 1, student, teacher)
    student.set_attn_implementation("eager")

    def between(looked: Tensor, wanted: Tensor) -> Tensor:
        ours, theirs = looked.clamp(min=LEAST).log(), wanted.clamp(min=LEAST).log()
        return (wanted * (theirs - ours)).sum(-1)

    return layer_loss(between, ATTENTION, layers)
