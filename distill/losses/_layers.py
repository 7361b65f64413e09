"""Losses that compare what models compute on their way, layer by layer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any

from ...models.errors import UsageError
from ...models.family import of_config
from ..signals import Inner, Signal

if TYPE_CHECKING:
    from torch import Tensor


def pairs(layers: Sequence[Sequence[int]], first: int, student: Any, teacher: Any) -> list[tuple[int, int]]:
    """The layers of student and teacher that are compared, from `first` on; those below 0 count from the last.

    Raises UsageError for a layer that a model does not have, or what is no pair.
    """
    counts = [int(of_config(config, training=True).of(config, "layers"))
              for config in (student.config.to_dict(), teacher.config)]
    if not layers:
        raise UsageError("layers: no pair of layers is given", "name one, such as [[-1, -1]], or leave the loss out")
    found = []
    for pair in layers:
        if len(pair) != 2:
            raise UsageError(f"layers: {list(pair)} is not one layer of the student and one of the teacher",
                             "give pairs, such as [[2, 4], [-1, -1]]")
        places = [layer + count + 1 if layer < 0 else layer for layer, count in zip(pair, counts, strict=True)]
        for layer, place, count, model in zip(pair, places, counts, ("student", "teacher"), strict=True):
            if not first <= place <= count:
                raise UsageError(f"layers: the {model} has no layer {layer}: it has {count}",
                                 f"give a number from {first} to {count}, or from -{count + 1 - first} to -1")
        found.append((places[0], places[1]))
    return found


@cache
def _module() -> Any:
    from torch import nn

    class LayerLoss(nn.Module):  # type: ignore[misc]
        """The mean over pairs of layers of what `between` gives for them."""

        def __init__(self, between: Callable[[Tensor, Tensor], Tensor], reads: list[Inner], asks: list[Inner],
                     widths: tuple[int, int] | None) -> None:
            super().__init__()
            self.between, self.reads, self.asks = between, reads, asks
            self.maps = nn.ModuleList(nn.Linear(*widths, bias=False) for _ in reads) if widths else None

        def forward(self, student: Signal, teacher: Signal, labels: Tensor) -> Tensor:
            total: Any = 0
            for place, (ours, theirs) in enumerate(zip(self.reads, self.asks, strict=True)):
                state = student.inside[ours]
                total = total + self.between(state if self.maps is None else self.maps[place](state),
                                             teacher.inside[theirs])
            return total / len(self.reads)

    return LayerLoss


def layer_loss(between: Callable[[Tensor, Tensor], Tensor], what: str, layers: Sequence[tuple[int, int]],
               widths: tuple[int, int] | None = None) -> Any:
    """A loss of each place, the mean over pairs of layers of between(student's, teacher's) → [n].

    `what` is a part of signals; of `widths` (student's, teacher's) linear maps are learned, one a pair.
    """
    return _module()(between, [(what, ours) for ours, _ in layers], [(what, theirs) for _, theirs in layers], widths)
