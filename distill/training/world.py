"""The processes that train one model together, as `torchrun` or `accelerate launch` starts them; mostly one.

Each takes its share of every step's rows, and gradients are added up, so that the weights are those of one process but
for the order of sums, and for dropout. The lead alone writes files.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from functools import cache
from typing import TYPE_CHECKING, TypeVar

from ...models.errors import EdgestillError, UsageError

if TYPE_CHECKING:
    from torch import Tensor

Value = TypeVar("Value")
BUCKET = 2**24
"""Numbers that are sent at once: 64 MiB of float32."""
PATIENCE = timedelta(days=7)
"""How long processes wait for each other: a teacher may take hours to fill its cache."""


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
        with _together():
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

    def of_lead(self, value: Value) -> Value:
        """What the lead gives."""
        if self.size == 1:
            return value
        import torch

        held = [value]
        with _together():
            torch.distributed.broadcast_object_list(held, device=torch.device("cpu"))
        return held[0]

    def wait(self) -> None:
        """Until all processes are here."""
        if self.size > 1:
            import torch

            with _together():  # no barrier(): of GPUs it takes one that another process may compute on
                torch.distributed.all_reduce(torch.zeros(1))

    def by_lead(self, make: Callable[[], object]) -> None:
        """Let the lead do something while the others wait."""
        if self.leads:
            make()
        self.wait()

    @contextmanager
    def lead_first(self) -> Iterator[None]:
        """The block is done by the lead, and then by the others, who find what it made."""
        if not self.leads:
            self.wait()
        yield
        if self.leads:
            self.wait()


@contextmanager
def _together() -> Iterator[None]:
    """EdgestillError where another process is gone."""
    try:
        yield
    except RuntimeError as error:
        if "connect" not in str(error).lower():
            raise
        raise EdgestillError("another of the processes that train together has stopped",
                             "its own message says why; start all of them again: they go on from the last checkpoint"
                             ) from error


def _reduce(gradients: list[Tensor]) -> None:
    import torch

    flat = torch.cat([grad.flatten() for grad in gradients])
    with _together():
        torch.distributed.all_reduce(flat)
    for grad, part in zip(gradients, flat.split([grad.numel() for grad in gradients]), strict=True):
        grad.copy_(part.view_as(grad))


_LAUNCH = "accelerate launch --multi_gpu --num_processes N …, which starts them on processors, too"


def check_launcher(environment: Mapping[str, str]) -> None:
    """UsageError for what `accelerate launch` was told, as its `environment` says, and what does not come of it."""
    for name, asked in (("FSDP", "FSDP"), ("DEEPSPEED", "DeepSpeed"), ("MEGATRON_LM", "Megatron-LM"),
                        ("PARALLELISM_CONFIG", "a parallelism config")):
        if environment.get(f"ACCELERATE_USE_{name}", "").lower() == "true":
            raise UsageError(f"accelerate launch was told to use {asked}, and here each process trains the whole model",
                             f"use {_LAUNCH}")
    compiler = environment.get("ACCELERATE_DYNAMO_BACKEND", "NO")
    if compiler.upper() != "NO":
        raise UsageError(f"accelerate launch was told to compile with {compiler}, and nothing is compiled here",
                         "leave --dynamo_backend out")
    alone = "WORLD_SIZE" not in environment and "MASTER_PORT" in environment
    if alone and environment.get("ACCELERATE_USE_CPU", "").lower() == "true":
        raise UsageError("accelerate launch --cpu was told to start several processes, and has started this one alone",
                         f"use {_LAUNCH}")


@cache
def world() -> World:
    """The processes that a launcher has started with this one; its environment says so. Errors as of
    `check_launcher`."""
    check_launcher(os.environ)
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        return World()
    import torch

    backend = "gloo"
    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
        backend = "cuda:nccl,cpu:gloo"
    with _together():
        torch.distributed.init_process_group(backend, timeout=PATIENCE)
    return World(torch.distributed.get_rank(), torch.distributed.get_world_size())
