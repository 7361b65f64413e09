"""From a weight to codes: the method that the run file names, with what calibration knows of the layer."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...models import kinds
from ...models.runfile import kind_config
from ..source.checkpoint import Checkpoint
from .calibration import Calibration
from .codes import Codes, exact, fits, from_bytes, to_bytes
from .scaled_grids import Q4_0, Grid

PACKAGE = "quantize.methods"


@dataclass(frozen=True)
class Stored:
    """Codes on disk."""

    path: Path
    grid: Grid

    def read(self) -> Codes:
        """The codes."""
        return from_bytes(np.load(self.path), self.grid)


class Encoder:
    """The codes that a method finds for a weight [out, in] of a Hugging Face name.

    What was found once is kept on disk as long as the encoder lives: formats share grids, so they share the work, and
    memory holds one matrix. Weights that stand on the grid already keep their codes, whatever the method: training put
    them there.
    """

    def __init__(self, method: Mapping[str, Any], calibration: Calibration | None) -> None:
        """`method` is a table with its `kind`."""
        self._config = kind_config(PACKAGE, method, "export.method")
        self._method = kinds.load(PACKAGE, method["kind"])
        self._calibration = calibration
        self._folder = tempfile.TemporaryDirectory(prefix="edgestill-codes-")

    def __call__(self, name: str, weight: NDArray[np.float32], grid: Grid = Q4_0) -> Codes:
        """Its codes on `grid`."""
        return self.find(name, weight, grid).read()

    def find(self, name: str, weight: NDArray[np.float32], grid: Grid = Q4_0) -> Stored:
        """Where its codes stand; they are made where they do not yet."""
        told = hashlib.blake2b(np.ascontiguousarray(weight).data, digest_size=16)
        told.update(f"{grid.type} {weight.shape} {name}".encode())
        stored = Stored(Path(self._folder.name) / f"{told.hexdigest()}.npy", grid)
        if not stored.path.is_file():
            np.save(stored.path, to_bytes(self._made(name, weight, grid)))
        return stored

    def prepare(self, checkpoint: Checkpoint) -> None:
        """Do now all that needs the float model: what follows may be done without it in memory."""
        if self._calibration is None:
            return
        for name in self._calibration.importance:
            if name not in checkpoint.entries or name == checkpoint.family.head:  # heads stay at eight bits
                continue
            if not self._method.GRAM:
                self._calibration.importance[name]
            elif fits(checkpoint.entries[name].shape[1]):
                self.find(name, checkpoint.tensor(name))

    def _made(self, name: str, weight: NDArray[np.float32], grid: Grid) -> Codes:
        found = exact(weight) if grid is Q4_0 else None
        if found is not None:
            return found
        moments = None
        if self._calibration is not None:
            moments = self._calibration.gram(name) if self._method.GRAM else self._calibration.importance.get(name)
        codes: Codes = self._method.quantize(weight, moments, self._config, grid)
        return codes


def encoder(method: Mapping[str, Any], calibration: Calibration | None) -> Encoder:
    """The encoder of `method`; UsageError for an unknown one, or a setting it does not have."""
    return Encoder(method, calibration)
