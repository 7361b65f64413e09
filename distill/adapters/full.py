"""Train every parameter."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Config:
    """Nothing to choose."""


def attach(model: Any, config: Config, task_kind: str, seed: int) -> tuple[Any, Callable[[], Any]]:
    """The model to train, and a function that gives the plain trained model."""
    model.requires_grad_(True)
    return model, lambda: model
