"""The processes that train one model together, as `accelerate launch` starts them; mostly one.

Each takes its share of every step's rows, and gradients are added up, so that the weights are those of one process but
for the order of sums. The lead alone writes files.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from torch import Tensor

Value = TypeVar("Value")
BUCKET = 2**24
"""Numbers that are sent at once: 64 MiB of float32."""


@dataclass(frozen=True)
class World:
    """This process among those that train together."""

    rank: int = 0
    size: int = 1

    @property
    def leads(self) -> bool:
        """Whether this process writes."""
        return self.rank == 0

    @property
    def share_of_rows(self) -> slice:
        """Which of rows in any order are this process's."""
        return slice(self.rank, None, self.size)

    def total(self, numbers: Mapping[str, float]) -> dict[str, float]:
        """The sums over all processes of numbers of the same names."""
        if self.size == 1:
            return dict(numbers)
        import torch

        values = torch.tensor([*numbers.values()], dtype=torch.float64)
        torch.distributed.all_reduce(values)
        return dict(zip(numbers, values.tolist(), strict=True))

    def add_gradients(self, parameters: Iterable[Tensor]) -> None:
        """Let every process have the sum of all processes' gradients; one that has none counts as 0."""
        if self.size == 1:
            return
        import torch

        waiting: list[Tensor] = []
        for parameter in parameters:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
            waiting.append(parameter.grad)
            if sum(grad.numel() for grad in waiting) >= BUCKET:
                _reduce(waiting)
                waiting = []
        if waiting:
            _reduce(waiting)

    def share(self, value: Value) -> Value:
        """What the lead has."""
        if self.size == 1:
            return value
        import torch

        held = [value]
        torch.distributed.broadcast_object_list(held)
        return held[0]

    def wait(self) -> None:
        """Until all processes are here."""
        if self.size > 1:
            import torch

            torch.distributed.barrier()

    @contextmanager
    def lead_first(self) -> Iterator[None]:
        """The block is done by the lead, and then by the others, who find what it made."""
        if not self.leads:
            self.wait()
        yield
        if self.leads:
            self.wait()


def _reduce(gradients: list[Tensor]) -> None:
    import torch

    flat = torch.cat([grad.flatten() for grad in gradients])
    torch.distributed.all_reduce(flat)
    for grad, part in zip(gradients, flat.split([grad.numel() for grad in gradients]), strict=True):
        grad.copy_(part.view_as(grad))


@cache
def world() -> World:
    """The processes that a launcher has started with this one; its environment says so."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        return World()
    import torch
    from accelerate import PartialState

    state = PartialState(cpu=not torch.cuda.is_available())
    return World(state.process_index, state.num_processes)
