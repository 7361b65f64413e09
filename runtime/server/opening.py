"""Open a model for several answers at a time."""

from __future__ import annotations

from pathlib import Path

from ..classify import Classifier
from ..embed import Embedder
from ..generate import Generator
from ..loading import load


def opened(path: Path, threads: int, context: int, streams: int) -> list[Generator | Classifier | Embedder]:
    """The model, once a stream. Errors as in `load`."""
    return [load(path, threads, context)]
