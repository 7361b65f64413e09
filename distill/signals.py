"""What a model says at some places, as losses compare it: at positions of texts, or about whole rows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, eq=False)
class Signal:
    """A model's word at n places; any part of them can be had as a signal of its own."""

    states: Tensor
    """[n, v] logits, or what `head` makes them from."""
    head: Callable[[Tensor], Tensor] | None = None
    """Makes float32 logits of states, so that those of all places need not be held at once."""

    def __getitem__(self, part: slice) -> Signal:
        return Signal(self.states[part], self.head)

    @cached_property
    def logits(self) -> Tensor:
        """[n, v] in float32, over the student's tokens or labels."""
        return self.states if self.head is None else self.head(self.states)
