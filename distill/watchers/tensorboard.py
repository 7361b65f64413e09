"""TensorBoard's event files: look at them with `tensorboard --logdir FOLDER`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Config:
    """Nothing to choose."""


def open(config: Config, folder: Path, first_step: int) -> Board | None:
    """A writer of event files in `folder`, in which steps after `first_step` are of a lost attempt; None where
    TensorBoard is not installed."""
    if find_spec("tensorboard") is None:
        return None
    from torch.utils.tensorboard import SummaryWriter

    return Board(SummaryWriter(str(folder), purge_step=first_step + 1))


class Board:
    """Numbers by step."""

    def __init__(self, writer: Any) -> None:
        self._writer = writer

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """One record."""
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)

    def sync(self) -> None:
        """Write down what is held back."""
        self._writer.flush()

    def close(self) -> None:
        """Close the files."""
        self._writer.close()
