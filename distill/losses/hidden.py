"""Hidden states: the student's are to point where the teacher's point, at every token that is learned."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ...models.family import of_config
from ..signals import HIDDEN
from ._layers import layer_loss, pairs

if TYPE_CHECKING:
    from torch import Tensor

NEEDS = (HIDDEN,)
LEVEL = "token"


@dataclass(frozen=True)
class Config:
    """Options of the loss of hidden states."""

    layers: list[list[int]] = field(default_factory=lambda: [[-1, -1]])
    """Pairs of a student's and a teacher's layer: 0 is what enters the first one, -1 what leaves the last."""


def build(config: Config, student: Any, teacher: Any) -> Any:
    """1 - cos(W s, t), the mean over pairs: Jiao and others 2020 (TinyBERT, arXiv 1909.10351), section 3.1, where it is
    the squared distance; a cosine does not ask for the teacher's scale.

    W is learned where the two models are of different widths; else s is taken as it is.
    """
    from torch.nn import functional

    ours, theirs = (int(of_config(table, training=True).of(table, "hidden"))
                    for table in (student.config.to_dict(), teacher.config))

    def between(state: Tensor, wanted: Tensor) -> Tensor:
        return 1.0 - functional.cosine_similarity(state, wanted, dim=-1)

    return layer_loss(between, HIDDEN, pairs(config.layers, 0, student, teacher),
                      None if ours == theirs else (ours, theirs))
